"""BM25 (Robertson and Zaragoza 2009): how rare words are in one index or over several, and what that makes of a chunk.

Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log
from typing import Protocol

from indexer.chunking import Chunk
from indexer.tokens import tokens

# What a word is worth where it stands; measured in benchmarks/retrieval.md.
FIELD_WEIGHTS = {"body": 1.0, "symbol": 1.0, "path": 1.0}
_K1, _B = 1.2, 0.75  # tantivy's own
_MEAN_TOKENS = {"body": 120.0, "symbol": 8.0, "path": 6.0}  # of our chunks; only these few are compared by it
Frequencies = Mapping[str, Mapping[str, int]]  # field -> token -> how often it stands there


class WordCounts(Protocol):
    """How many chunks there are, and how many of them have a word in a field: a lexical index, or several."""

    def count(self) -> int: ...
    def document_frequency(self, name: str, word: str) -> int: ...


class Remembered:
    """The word counts of an index as they were when first asked for: for one query, which asks for each word twice."""

    def __init__(self, counts: WordCounts) -> None:
        self._counts = counts
        self._count: int | None = None
        self._known: dict[tuple[str, str], int] = {}

    def count(self) -> int:
        if self._count is None:
            self._count = self._counts.count()
        return self._count

    def document_frequency(self, name: str, word: str) -> int:
        if (name, word) not in self._known:
            self._known[name, word] = self._counts.document_frequency(name, word)
        return self._known[name, word]


class _Summed:
    def __init__(self, every: Sequence[WordCounts]) -> None:
        self._every = every

    def count(self) -> int:
        return sum(one.count() for one in self._every)

    def document_frequency(self, name: str, word: str) -> int:
        return sum(one.document_frequency(name, word) for one in self._every)


def all_words(every: Sequence[WordCounts]) -> WordCounts:
    """The word counts of several indexes as those of one, for one query."""
    return Remembered(_Summed(every))


def rarity(total: int, having: int) -> float:
    """What BM25 gives for a word that `having` of `total` chunks have; tantivy's form."""
    return log(1 + (total - having + 0.5) / (having + 0.5))


def weights_among(words: Sequence[str], here: WordCounts, every: WordCounts) -> Mapping[tuple[str, str], float]:
    """(field, word) -> the factor that makes the BM25 scores of the index `here` those of `every` chunk counted.

    A word that stands nowhere in `here` is left out: it need not be looked for.
    """
    weights = {}
    total, total_here = max(1, every.count()), max(1, here.count())
    for name, weight in FIELD_WEIGHTS.items():
        for word in words:
            if having := here.document_frequency(name, word):
                of_all = rarity(total, every.document_frequency(name, word))
                weights[name, word] = weight * of_all / rarity(total_here, min(having, total_here))
    return weights


def field_tokens(chunk: Chunk, name: str) -> list[str]:
    """The tokens of `chunk` in the field `name` (a key of `FIELD_WEIGHTS`)."""
    texts = {"body": chunk.text, "symbol": " ".join((chunk.symbol, *chunk.defines)), "path": chunk.path}
    return tokens(texts[name])


def frequencies(chunk: Chunk) -> Frequencies:
    """How often each token stands in each field of `chunk`."""
    return {name: Counter(field_tokens(chunk, name)) for name in FIELD_WEIGHTS}


def bm25(words: Sequence[str], chunk: Chunk, counts: WordCounts) -> float:
    """BM25 of one chunk, in an index or not, by these word counts."""
    return bm25_of(words, frequencies(chunk), counts)


def bm25_of(words: Sequence[str], there: Frequencies, counts: WordCounts) -> float:
    """The same, where the chunk's tokens are counted already."""
    total = max(1, counts.count())
    score = 0.0
    for name, weight in FIELD_WEIGHTS.items():
        length = sum(there[name].values()) / _MEAN_TOKENS[name]
        for word in words:
            if frequency := there[name].get(word, 0):
                weighed = weight * rarity(total, counts.document_frequency(name, word))
                score += weighed * frequency * (_K1 + 1) / (frequency + _K1 * (1 - _B + _B * length))
    return score
