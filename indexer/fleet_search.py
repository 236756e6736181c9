"""What several repositories found for one query -> one list, by rank; scores of different indexes never meet. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from indexer.chunking import Chunk
from indexer.overlays import WordCounts, bm25
from indexer.ranking import Candidate, Query, rank

T = TypeVar("T")
OWN = 0.25  # what the place in its own repository counts, beside the one over all
RRF = 60  # Cormack et al. 2009: what a rank is worth falls slowly


@dataclass(frozen=True, slots=True)
class Answered:
    """What one repository found: its candidates best first, and how rare words are in it."""

    repository: str
    candidates: Sequence[Candidate]
    counts: WordCounts


@dataclass(frozen=True, slots=True)
class Placed:
    """A chunk of a repository, `path` as that repository has it, and what its two ranks are worth."""

    repository: str
    chunk: Chunk
    score: float


class _AllWords:
    """The word counts of several repositories as those of one."""

    def __init__(self, every: Sequence[WordCounts]) -> None:
        self._every = every
        self._known: dict[tuple[str, str], int] = {}

    def count(self) -> int:
        return sum(one.count() for one in self._every)

    def document_frequency(self, name: str, word: str) -> int:
        if (name, word) not in self._known:
            self._known[name, word] = sum(one.document_frequency(name, word) for one in self._every)
        return self._known[name, word]


def fuse(query: Query, answered: Sequence[Answered]) -> list[Placed]:
    """Best first, by reciprocal rank of two lists: each repository's own, and one over all of them.

    The first alone would give the best of every repository the same place, whether it answers or not. For the second
    words are counted over all repositories asked. The same lines at the same path (a fork's) come once.
    """
    own = {(one.repository, c.chunk.id): n for one in answered for n, c in enumerate(one.candidates, 1)}
    placed = [
        Placed(one.repository, chunk, OWN / (RRF + own[one.repository, chunk.id]) + 1 / (RRF + n))
        for n, (one, chunk) in enumerate(_rank_all(query, answered), 1)
    ]
    ranked = sorted(placed, key=lambda one: (-one.score, one.repository, one.chunk.path, one.chunk.start_line))
    first: dict[tuple[str, str], Placed] = {}
    for one in ranked:
        first.setdefault((one.chunk.path, one.chunk.text), one)
    return list(first.values())


def _rank_all(query: Query, answered: Sequence[Answered]) -> list[tuple[Answered, Chunk]]:
    counts = _AllWords([one.counts for one in answered])
    owners: dict[str, Answered] = {}
    candidates = []
    for one in answered:
        for candidate in one.candidates:
            chunk = replace(candidate.chunk, path=f"{one.repository}/{candidate.chunk.path}")
            owners[chunk.path] = one
            candidates.append(Candidate(chunk, bm25(query.tokens, chunk, counts), candidate.cosine))
    ranked = [chunk for chunk, _ in rank(query, candidates)]
    return [
        (owners[chunk.path], replace(chunk, path=chunk.path.removeprefix(f"{owners[chunk.path].repository}/")))
        for chunk in ranked
    ]


def in_turn(lists: Sequence[Sequence[T]], most: int) -> list[T]:
    """The first of each list, then the second of each, and so on: `most` in all."""
    by_rank: defaultdict[int, list[T]] = defaultdict(list)
    for one in lists:
        for n, item in enumerate(one):
            by_rank[n].append(item)
    return [item for n in sorted(by_rank) for item in by_rank[n]][:most]
