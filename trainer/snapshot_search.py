"""The search of the server over a snapshot: the same chunks, words and rank, without embeddings.

Without: embedding every chunk of the past takes longer than the rest of the night on a CPU. By words alone the right
file is among the first ten nearly as often (benchmarks/retrieval.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from indexer.chunking import Chunk
from indexer.lexical import LexicalIndex
from indexer.ranking import Candidate, Query, rank
from indexer.search import CANDIDATES, Passage, make_passage


class SnapshotSearch:
    """`chunks` of one snapshot, searchable; the index lies in `folder`, which is the caller's to delete."""

    def __init__(self, chunks: Sequence[Chunk], folder: Path) -> None:
        self._chunks = {chunk.id: chunk for chunk in chunks}
        self._definers: defaultdict[str, list[str]] = defaultdict(list)
        for chunk in chunks:
            for name in chunk.defines:
                self._definers[name.rsplit(".", 1)[-1].lower()].append(chunk.id)
        self._index = LexicalIndex(folder)
        self._index.write((chunk.id, chunk) for chunk in chunks)
        self._index.close()

    def search(self, question: str, k: int) -> list[Passage]:
        """The `k` best passages for `question`, best first: `indexer.search.search` without its dense half."""
        query = Query(question)
        bm25 = dict(self._index.search(query.tokens, CANDIDATES))
        defining = [id for name in query.names for id in self._definers.get(name, [])[:CANDIDATES]]
        ids = dict.fromkeys((*bm25, *sorted(defining)))
        found = [Candidate(self._chunks[id], bm25.get(id, 0.0)) for id in ids]
        return [make_passage(chunk, round(score, 6)) for chunk, score in rank(query, found)[:k]]
