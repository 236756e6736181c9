"""Fusion of the lexical and the dense list, and rank by what is known about code. Pure.

Every weight here was set on development repositories only; benchmarks/retrieval.md has each on and off.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from indexer.chunking import Chunk
from indexer.file_rank import FILE_WEIGHTS, FileWeights, file_factors, stem_tokens
from indexer.places import is_aside, is_prose, is_reexport, is_test
from indexer.tokens import QUALIFIED_NAME, STOPWORDS, asked_words, query_tokens, word_tokens


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that one of the two searches found. `bm25` and `cosine` are 0 where that search did not."""

    chunk: Chunk
    bm25: float = 0.0
    cosine: float = 0.0


@dataclass(frozen=True, slots=True)
class Weights:
    """The knobs of the rank; 0 (for factors: 1) switches an ingredient off. `file`: see there."""

    dense_share_prose: float = 0.5
    dense_share_symbol: float = 0.2
    definition: float = 1.0
    stem_path: float = 0.5
    coherence: float = 0.4
    test: float = 0.35
    aside: float = 0.45
    prose: float = 0.25
    reexport: float = 0.6
    same_file_decay: float = 0.3
    file: FileWeights = FILE_WEIGHTS


DEFAULT_WEIGHTS = Weights()


@dataclass(frozen=True)
class Query:
    """A question as the rank reads it."""

    text: str

    @cached_property
    def tokens(self) -> list[str]:
        return query_tokens(self.text)

    @cached_property
    def places(self) -> dict[str, float]:
        """Where each token stands first: 0 in the first word that says something, below 1 in the last."""
        words = asked_words(self.text)
        found: dict[str, float] = {}
        for number, word in enumerate(words):
            for token in word_tokens(word):
                found.setdefault(token, number / len(words))
        return found

    @cached_property
    def asked(self) -> frozenset[str]:
        return frozenset(self.tokens)

    @cached_property
    def is_symbol(self) -> bool:
        """One identifier, dotted or not, and nothing else."""
        words = self.text.strip().split()
        return len(words) == 1 and bool(QUALIFIED_NAME.fullmatch(words[0].strip("`'\"()?")))

    @cached_property
    def identifiers(self) -> list[str]:
        """Last components of the words that look like names in code: `camelCase`, `snake_case`, `a.b`, `f()`."""
        found = QUALIFIED_NAME.findall(self.text)
        if not self.is_symbol:
            found = [name for name in found if re.search(r"[a-z\d][A-Z]|[A-Z]{2,}[a-z]|_|\.|::|#|->", name)]
        return [re.split(r"\.|::|#|->", name)[-1] for name in found if name.lower() not in STOPWORDS]

    @cached_property
    def names(self) -> frozenset[str]:
        """The identifiers, lower case."""
        return frozenset(name.lower() for name in self.identifiers)

    @cached_property
    def wants_tests(self) -> bool:
        return bool(
            {"test", "tests", "testing", "spec", "mock", "fixture", "fixtures"} & set(self.text.lower().split())
        )

    @cached_property
    def wants_prose(self) -> bool:
        words = {
            "readme",
            "docs",
            "documentation",
            "changelog",
            "guide",
            "tutorial",
            "license",
            "contributing",
            "install",
        }
        return bool(words & set(self.text.lower().split()))


def rank(
    query: Query, candidates: Sequence[Candidate], weights: Weights = DEFAULT_WEIGHTS
) -> list[tuple[Chunk, float]]:
    """The candidates' chunks, best first, each with its score."""
    base = fuse(query, candidates, weights)
    scored = [
        (c.chunk, score * _place_factor(query, c.chunk, weights) * (1 + _name_boost(query, c.chunk, weights)))
        for c, score in zip(candidates, base, strict=True)
    ]
    by_path = zip((c.chunk.path for c in candidates), base, strict=True)
    factors = file_factors(query.places, by_path, weights.file)
    cohered = _cohere(scored, weights)
    return _decay([(chunk, score * factors[chunk.path]) for chunk, score in cohered], weights)


def fuse(query: Query, candidates: Sequence[Candidate], weights: Weights) -> list[float]:
    """Both scores on a scale of 0..1 (by the best of each list), mixed by the kind of query."""
    share = weights.dense_share_symbol if query.is_symbol else weights.dense_share_prose
    best_bm25 = max((c.bm25 for c in candidates), default=0.0) or 1.0
    cosines = [c.cosine for c in candidates if c.cosine]
    low, high = (min(cosines), max(cosines)) if cosines else (0.0, 1.0)
    spread = (high - low) or 1.0
    return [
        (1 - share) * c.bm25 / best_bm25 + share * (max(0.0, c.cosine - low) / spread if c.cosine else 0.0)
        for c in candidates
    ]


def _place_factor(query: Query, chunk: Chunk, weights: Weights) -> float:
    """Tests, examples, prose, configuration and re-exports come below the code they are about, unless asked for."""
    factor = 1.0
    if not query.wants_tests and is_test(chunk.path):
        factor *= weights.test
    if is_aside(chunk.path):
        factor *= weights.aside
    if not query.wants_prose and is_prose(chunk.language):
        factor *= weights.prose
    if is_reexport(chunk.path) and not chunk.defines:
        factor *= weights.reexport
    return factor


def _name_boost(query: Query, chunk: Chunk, weights: Weights) -> float:
    """How well the names that the chunk defines, and its file's own, answer to the words of the query."""
    is_defined = 0.0
    if query.names:
        last_names = {name.rsplit(".", 1)[-1].lower() for name in chunk.defines}
        is_defined = weights.definition * bool(last_names & query.names)
    return is_defined + weights.stem_path * _covered(stem_tokens(chunk.path), query.asked)


def _covered(named: frozenset[str], asked: frozenset[str]) -> float:
    """The share of a name's tokens that the query has."""
    return len(named & asked) / len(named) if named else 0.0


def _cohere(scored: list[tuple[Chunk, float]], weights: Weights) -> list[tuple[Chunk, float]]:
    """A file with many good chunks lifts its best ones: what it is about is the question's subject."""
    by_file: defaultdict[str, float] = defaultdict(float)
    for chunk, score in scored:
        by_file[chunk.path] += score
    most = max(by_file.values(), default=1.0) or 1.0
    return [(chunk, score * (1 + weights.coherence * by_file[chunk.path] / most)) for chunk, score in scored]


def _decay(scored: list[tuple[Chunk, float]], weights: Weights) -> list[tuple[Chunk, float]]:
    """The second chunk of a file counts `same_file_decay` of its score, the third that squared, and so on."""
    seen: defaultdict[str, int] = defaultdict(int)
    decayed = []
    for chunk, score in sorted(scored, key=lambda pair: (-pair[1], pair[0].path, pair[0].start_line)):
        decayed.append((chunk, score * weights.same_file_decay ** seen[chunk.path]))
        seen[chunk.path] += 1
    return sorted(decayed, key=lambda pair: (-pair[1], pair[0].path, pair[0].start_line))
