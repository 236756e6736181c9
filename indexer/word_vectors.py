"""The embedder that comes with nightschool: a vector for each of many words of code, and of a text their weighted mean.

Learnt from descriptions and the code that they describe (`benchmarks/word_vectors/`). It needs neither torch nor a
network, and embeds hundreds of chunks in the time that a transformer takes for one.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from indexer.embedding import WORD_VECTORS, EmbedderUnavailable
from indexer.tokens import tokens

_FILE = Path(__file__).with_name("word_vectors.safetensors")


class WordVectors:
    """The packaged table, read by the first `embed`; safe to use from several threads."""

    name = WORD_VECTORS

    def __init__(self, file: Path = _FILE) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._table: _Table | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of `texts`, float32 (len(texts), dim), each of length 1, however long the texts are.

        A text without one known word has the embedding of nothing: the first axis. Raises `EmbedderUnavailable`.
        """
        with self._lock:
            table = self._table = self._table or _Table(self._file)
        return np.stack([table.embed(text) for text in texts]) if texts else np.empty((0, table.dim), np.float32)


class _Table:
    def __init__(self, file: Path) -> None:
        try:
            parts = load_file(file)
        except (SafetensorError, OSError) as error:
            raise EmbedderUnavailable(f"{file.name} cannot be read ({error}): install nightschool again") from error
        words = parts["words"].tobytes().decode().split("\n")
        self._rows = {word: row for row, word in enumerate(words)}
        self._vectors, self._scales = parts["vectors"], parts["scales"].astype(np.float32)
        self.dim = self._vectors.shape[1]

    def embed(self, text: str) -> NDArray[np.float32]:
        counts = Counter(row for token in tokens(text) if (row := self._rows.get(token)) is not None)
        rows = np.fromiter(counts, np.intp, len(counts))
        # A word's tenth use says less than its first.
        weights = 1 + np.log(np.fromiter(counts.values(), np.float32, len(counts)))
        total: NDArray[np.float32] = (weights * self._scales[rows]) @ self._vectors[rows].astype(np.float32)
        length = np.linalg.norm(total)
        return total / length if length else np.eye(1, self.dim, dtype=np.float32)[0]
