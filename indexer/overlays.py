"""Open buffers in place of their files: chunked on the spot, scored by the same BM25 as the index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import log
from typing import Protocol

from indexer.chunking import Chunk, chunk_text
from indexer.files import judge_content
from indexer.languages import language_of
from indexer.lexical import FIELD_WEIGHTS, field_tokens
from indexer.parts import Parts
from indexer.ranking import Candidate, Query
from indexer.secrets import mask_secrets

_K1, _B = 1.2, 0.75  # tantivy's own
_MEAN_TOKENS = {"body": 120.0, "symbol": 8.0, "path": 6.0}  # of our chunks; only these few are compared by it


class WordCounts(Protocol):
    """How many chunks there are, and how many of them have a word in a field: a lexical index, or several."""

    def count(self) -> int: ...
    def document_frequency(self, name: str, word: str) -> int: ...


def overlay_candidates(
    query: Query, overlays: Mapping[str, str], parts: Parts, cosine: Mapping[str, float]
) -> list[Candidate]:
    """The chunks of the buffers that have a word of the query, or that the dense search found unchanged."""
    chunks = [chunk for path, text in overlays.items() for chunk in chunk_overlay(path, text)]
    scores = [bm25(query.tokens, chunk, parts.lexical) for chunk in chunks]
    scored = [Candidate(chunk, score, cosine.get(chunk.id, 0.0)) for chunk, score in zip(chunks, scores, strict=True)]
    return [candidate for candidate in scored if candidate.bm25 or candidate.cosine]


def chunk_overlay(path: str, text: str) -> list[Chunk]:
    """The chunks of an open buffer, secrets masked; none when a file like it would not be indexed."""
    if not hasattr(judge_content(path, text.encode("utf-8", "replace")), "text"):
        return []
    return chunk_text(path, mask_secrets(text).text, language_of(path, text[:100]))


def bm25(words: list[str], chunk: Chunk, counts: WordCounts) -> float:
    """BM25 (Robertson and Zaragoza 2009) of one chunk, in an index or not, by these word counts."""
    total = max(1, counts.count())
    score = 0.0
    for name, weight in FIELD_WEIGHTS.items():
        there = Counter(field_tokens(chunk, name))
        length = sum(there.values()) / _MEAN_TOKENS[name]
        for word in words:
            if frequency := there[word]:
                having = counts.document_frequency(name, word)
                rarity = log(1 + (total - having + 0.5) / (having + 0.5))
                score += weight * rarity * frequency * (_K1 + 1) / (frequency + _K1 * (1 - _B + _B * length))
    return score
