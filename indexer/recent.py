"""Chunks that were just saved: found by their words at once, until the lexical index has them on disk. Pure."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from indexer.chunking import Chunk
from indexer.places import is_core
from indexer.word_counts import Frequencies, WordCounts, bm25_of, frequencies

MOST = 100  # chunks: scoring them takes a query 0.6 ms


@dataclass(frozen=True, slots=True)
class _Counted:
    is_core: bool
    frequencies: Frequencies


class Recent:
    """At most `MOST` chunks, scored as open buffers are. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunks: dict[str, _Counted] = {}  # replaced, never changed: searches read it without the lock

    def __len__(self) -> int:
        return len(self._chunks)

    def put(self, chunks: Sequence[Chunk]) -> bool:
        """Add these; False, and nothing is added, when there are too many."""
        with self._lock:
            if len({*self._chunks, *(chunk.id for chunk in chunks)}) > MOST:
                return False
            new = [chunk for chunk in chunks if chunk.id not in self._chunks]
            counted = {c.id: _Counted(is_core(c.path, c.language), frequencies(c)) for c in new}
            self._chunks = self._chunks | counted
            return True

    def drop(self, ids: Iterable[str]) -> None:
        """Without these."""
        with self._lock:
            gone = set(ids)
            self._chunks = {id: one for id, one in self._chunks.items() if id not in gone}

    def search(self, words: Sequence[str], counts: WordCounts) -> list[tuple[str, float, bool]]:
        """(id, BM25 score by `counts`, is it code itself) of those that have a word, best first."""
        scored = [(id, bm25_of(words, one.frequencies, counts), one.is_core) for id, one in self._chunks.items()]
        return sorted((hit for hit in scored if hit[1]), key=lambda hit: -hit[1])

    def document_frequency(self, name: str, word: str) -> int:
        """How many of them have the token `word` in the field `name`."""
        if not self._chunks:
            return 0
        return sum(word in one.frequencies[name] for one in self._chunks.values())
