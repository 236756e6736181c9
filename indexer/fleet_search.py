"""What several repositories found for one query -> one list, by rank. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from typing import TypeVar

from indexer.chunking import Chunk
from indexer.ranking import Candidate, Query, rank
from indexer.search import CANDIDATES, OTHERS, Hits

T = TypeVar("T")
OWN = 0.25  # what the place in its own repository counts, beside the one over all
RRF = 60  # Cormack et al. 2009: what a rank is worth falls slowly


@dataclass(frozen=True, slots=True)
class Answered:
    """What one repository found: its candidates best first, their words weighed over all repositories."""

    repository: str
    candidates: Sequence[Candidate]


@dataclass(frozen=True, slots=True)
class Placed:
    """A chunk of a repository, `path` as that repository has it, and what its two ranks are worth."""

    repository: str
    chunk: Chunk
    score: float


def best_of_all(found: Mapping[str, Hits]) -> dict[str, Hits]:
    """Of what each repository found the chunks that are among the best of all, as if all were one index: only they are
    read and ranked. A repository with none is left out."""
    code = _best({name: hits.code for name, hits in found.items()}, CANDIDATES)
    others = _best({name: hits.others for name, hits in found.items()}, OTHERS)
    cosine = _best({name: hits.cosine for name, hits in found.items()}, CANDIDATES)
    return {
        name: Hits(code[name], others[name], cosine[name])
        for name in found
        if name in code or name in others or name in cosine
    }


def _best(found: Mapping[str, Mapping[str, float]], most: int) -> defaultdict[str, dict[str, float]]:
    """Of all (id, score) the `most` best, by repository."""
    every = ((score, name, id) for name, scores in found.items() for id, score in scores.items())
    kept: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for score, name, id in nlargest(most, every):
        kept[name][id] = score
    return kept


def fuse(query: Query, answered: Sequence[Answered]) -> list[Placed]:
    """Best first, by reciprocal rank of two lists: each repository's own, and one over all of them.

    The first alone would give the best of every repository the same place, whether it answers or not. The same lines
    at the same path (a fork's) come once.
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
    owners: dict[str, Answered] = {}
    candidates = []
    for one in answered:
        for candidate in one.candidates:
            chunk = replace(candidate.chunk, path=f"{one.repository}/{candidate.chunk.path}")
            owners[chunk.path] = one
            candidates.append(replace(candidate, chunk=chunk))
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
