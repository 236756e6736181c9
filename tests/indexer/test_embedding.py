"""The embedder that comes with nightschool, and the door to sentence-transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexer.embedding import (
    PACKAGED_TRANSFORMER,
    WORD_VECTORS,
    EmbedderUnavailable,
    SentenceTransformerEmbedder,
    find_embedder,
)
from indexer.word_vectors import WordVectors

TEXTS = [
    "how are routes registered",
    "",
    "é ☕ 🎓 中文",
    "def parse_header(line):\r\n    return line.split(':', 1)\r\n",
    "word " * 70_000,
]


@pytest.mark.parametrize("name", [WORD_VECTORS, PACKAGED_TRANSFORMER])
def test_a_text_has_the_same_embedding_alone_and_among_others(name):
    embedder = find_embedder(name)
    assert embedder.name == name
    together = embedder.embed(TEXTS)
    one_by_one = np.concatenate([embedder.embed([text]) for text in TEXTS])
    assert together.dtype == np.float32
    assert np.abs(one_by_one - together).max() < 1e-5
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-5


def test_no_texts_have_no_embeddings():
    assert WordVectors().embed([]).shape == (0, 256)


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("authenticate somebody", "def login(user, password):\n    session.start(user)", "def draw(canvas): ..."),
        ("retry after a failed request", "func backoff(attempt int) time.Duration {", "func Sort(items []int) {"),
        ("remove a file", "fn delete_path(path: &Path) -> io::Result<()> {", "fn parse_number(text: &str) -> i64 {"),
        ("turn an object into JSON", "public String serialize(Object value) {", "public void close() {"),
    ],
)
def test_code_is_found_by_what_it_means_in_other_words(question, right, wrong):
    asked, near, far = WordVectors().embed([question, right, wrong])
    assert asked @ near > asked @ far + 0.1


def test_word_vectors_need_no_torch():
    code = (
        "import sys; from indexer.embedding import *; find_embedder(WORD_VECTORS).embed(['a'])\n"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("content", [None, b"", b"\x08\0\0\0\0\0\0\0garbage!"])
def test_a_damaged_table_says_what_to_do(tmp_path, content):
    file = tmp_path / "vectors.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EmbedderUnavailable, match=r"vectors\.safetensors cannot be read .* install nightschool again"):
        WordVectors(file).embed(["a"])


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(EmbedderUnavailable, match="no/such-model cannot be loaded"):
        SentenceTransformerEmbedder("no/such-model").embed(["a"])
