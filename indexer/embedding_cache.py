"""Embeddings by content, in a SQLite file of their own: nothing is ever embedded twice, whatever else is rebuilt."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class EmbeddingCache:
    """(embedder, text) -> embedding, kept as float16: 768 bytes for 384 dimensions, cosine error below 1e-3."""

    def __init__(self, file: Path, embedder: str) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(file, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        # kB. Keys are hashes, so each goes to another page: with 2,000, the default, it was an eighth of a cold index.
        self._connection.execute("PRAGMA cache_size = -32000")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS embeddings(key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID"
        )

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def check(self) -> bool:
        """Does SQLite find its pages in order?"""
        with self._lock:
            return bool(self._connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))

    def get(self, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """The embedding of each text, None where it is not known; a damaged one counts as not known."""
        with self._lock:
            rows = [
                self._connection.execute("SELECT vector FROM embeddings WHERE key = ?", (self._key(text),)).fetchone()
                for text in texts
            ]
        return [_decode(row[0]) if row else None for row in rows]

    def has(self, texts: Sequence[str]) -> list[bool]:
        """Is the embedding of each text known?"""
        with self._lock:
            found = [
                self._connection.execute("SELECT 1 FROM embeddings WHERE key = ?", (self._key(text),)).fetchone()
                for text in texts
            ]
        return [row is not None for row in found]

    def put(self, texts: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        """Keep the embeddings of `texts`, rows of `embeddings`; on disk when this returns."""
        rows = [(self._key(t), e.astype(np.float16).tobytes()) for t, e in zip(texts, embeddings, strict=True)]
        with self._lock, self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)

    def count(self) -> int:
        with self._lock:
            return int(self._connection.execute("SELECT count(*) FROM embeddings").fetchone()[0])

    def _key(self, text: str) -> bytes:
        return sha256(f"{self._embedder}\0{text}".encode()).digest()[:16]


def _decode(raw: bytes) -> NDArray[np.float32] | None:
    vector = np.frombuffer(raw, dtype=np.float16).astype(np.float32) if len(raw) % 2 == 0 else np.zeros(1, np.float32)
    length = float(np.linalg.norm(vector))
    return vector / length if 0.99 < length < 1.01 else None
