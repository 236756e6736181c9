"""The embedder: one query in numpy, many texts in torch, the same numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from indexer.embedding import PACKAGED_EMBEDDER, SentenceTransformerEmbedder

TEXTS = [
    "how are routes registered",
    "",
    "é ☕ 🎓 中文",
    "def parse_header(line):\r\n    return line.split(':', 1)\r\n",
    "word " * 700,
]


def test_a_query_has_the_embedding_that_torch_gives_it():
    light, heavy = SentenceTransformerEmbedder(PACKAGED_EMBEDDER), SentenceTransformerEmbedder(PACKAGED_EMBEDDER)
    one_by_one = np.concatenate([light.embed([text]) for text in TEXTS])
    together = heavy.embed(TEXTS)
    assert (one_by_one.shape, one_by_one.dtype) == (together.shape, together.dtype) == ((5, 384), np.float32)
    assert np.abs(one_by_one - together).max() < 1e-5
    assert np.abs(heavy.embed([TEXTS[0]]) - one_by_one[:1]).max() < 1e-5


def test_a_query_does_not_load_torch():
    code = (
        "import sys; from indexer.embedding import *; SentenceTransformerEmbedder(PACKAGED_EMBEDDER).embed(['a'])\n"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
