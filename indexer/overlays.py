"""Open buffers in place of their files: chunked on the spot, scored by the same BM25 as the index."""

from __future__ import annotations

from collections.abc import Mapping

from indexer.chunking import Chunk, chunk_text
from indexer.files import judge_content
from indexer.languages import language_of
from indexer.ranking import Candidate, Query
from indexer.secrets import mask_secrets
from indexer.word_counts import WordCounts, bm25


def overlay_candidates(
    query: Query, overlays: Mapping[str, str], counts: WordCounts, cosine: Mapping[str, float]
) -> list[Candidate]:
    """The chunks of the buffers that have a word of the query, or that the dense search found unchanged."""
    chunks = [chunk for path, text in overlays.items() for chunk in chunk_overlay(path, text)]
    scores = [bm25(query.tokens, chunk, counts) for chunk in chunks]
    scored = [Candidate(chunk, score, cosine.get(chunk.id, 0.0)) for chunk, score in zip(chunks, scores, strict=True)]
    return [candidate for candidate in scored if candidate.bm25 or candidate.cosine]


def chunk_overlay(path: str, text: str) -> list[Chunk]:
    """The chunks of an open buffer, secrets masked; none when a file like it would not be indexed."""
    if not hasattr(judge_content(path, text.encode("utf-8", "replace")), "text"):
        return []
    return chunk_text(path, mask_secrets(text).text, language_of(path, text[:100]))
