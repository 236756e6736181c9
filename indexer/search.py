"""A query -> passages: candidates of both searches, ranked, then verified against what is on disk now."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from indexer.chunking import Chunk, chunk_text
from indexer.files import SourceFile, read_source
from indexer.languages import language_of
from indexer.lexical import Weights
from indexer.lines import cut_lines
from indexer.overlays import overlay_candidates
from indexer.parts import Parts
from indexer.quarantine import read_quarantine
from indexer.ranking import Candidate, Query, rank
from indexer.secrets import mask_secrets
from indexer.word_counts import WordCounts

log = logging.getLogger(__name__)
CANDIDATES = 150  # of each search; recall of the files sought is flat above
OTHERS = 50  # of all files by words, where code itself has its CANDIDATES: tests and guides would crowd it out


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk a search returned, verified against the bytes on disk (or the overlay).

    `path` relative to the workspace, "/"; lines 1-based and inclusive; `symbol` dotted, what it defines or what
    encloses it; `text` the lines as on disk, secrets replaced by placeholders; `sha256` hex, of `text`;
    `repository` its name in a fleet, where `path` begins with it, "" elsewhere.
    """

    path: str
    start_line: int
    end_line: int
    score: float
    symbol: str
    language: str
    text: str
    sha256: str
    repository: str = ""


def search(text: str, k: int, parts: Parts, overlays: Mapping[str, str]) -> list[Passage]:
    """The `k` passages that answer `text` best, best first. Without a store: by words only."""
    query = Query(text)
    candidates = find_candidates(query, parts, overlays)
    ranked = rank(query, candidates)
    current = CurrentTexts(parts, overlays)
    passages: list[Passage] = []
    taken: set[tuple[str, int]] = set()
    for chunk, score in ranked:
        passage = verify(chunk, score, current)
        if passage is not None and (passage.path, passage.start_line) not in taken:
            taken.add((passage.path, passage.start_line))
            passages.append(passage)
        if len(passages) == k:
            break
    return passages


@dataclass(frozen=True, slots=True)
class Hits:
    """What the searches of one index found, id -> score, before a chunk is read: by words among code itself and among
    everything, and by meaning."""

    code: Mapping[str, float]
    others: Mapping[str, float]
    cosine: Mapping[str, float]


def find_candidates(
    query: Query, parts: Parts, overlays: Mapping[str, str], embedding: NDArray[np.float32] | None = None
) -> list[Candidate]:
    """What either search finds, and what defines a name that is asked for; overlays in place of their files.

    `embedding` is the query's, where somebody has it already.
    """
    return read_candidates(query, find_hits(query, parts, embedding), parts, overlays, parts.lexical)


def find_hits(
    query: Query, parts: Parts, embedding: NDArray[np.float32] | None = None, weights: Weights | None = None
) -> Hits:
    """What either search finds; `weights`: see `LexicalIndex.candidates`."""
    code, others = parts.lexical.candidates(query.tokens, CANDIDATES, OTHERS, weights)
    return Hits(code, others, dict(_dense(query.text, parts, embedding)) if query.text.strip() else {})


def read_candidates(
    query: Query, hits: Hits, parts: Parts, overlays: Mapping[str, str], counts: WordCounts
) -> list[Candidate]:
    """The chunks of `hits`, and those that define a name that is asked for; overlays in place of their files, their
    words weighed by `counts`."""
    bm25, cosine = {**hits.code, **hits.others}, hits.cosine
    ids = list(dict.fromkeys((*bm25, *cosine)))
    if query.identifiers:
        names = [name.lower() for name in query.identifiers]
        ids += [id for id in parts.catalogue.definers(names, CANDIDATES) if id not in bm25 and id not in cosine]
    chunks = parts.catalogue.chunks(ids)
    found = [Candidate(chunks[id], bm25.get(id, 0.0), cosine.get(id, 0.0)) for id in ids if id in chunks]
    if not overlays:
        return found
    kept = [candidate for candidate in found if candidate.chunk.path not in overlays]
    return kept + overlay_candidates(query, overlays, counts, cosine)


def _dense(text: str, parts: Parts, embedding: NDArray[np.float32] | None) -> list[tuple[str, float]]:
    store = parts.store  # another thread may let go of it meanwhile
    if store is None:
        return []
    return store.search(parts.embedder.embed([text])[0] if embedding is None else embedding, CANDIDATES)


class CurrentTexts:
    """What each file says now: the overlay where there is one, else the bytes on disk; each read once."""

    def __init__(self, parts: Parts, overlays: Mapping[str, str]) -> None:
        self._parts, self._overlays = parts, overlays
        self._raw: dict[str, SourceFile | None] = {}
        self._masked: dict[str, str] = {}

    def source(self, path: str) -> SourceFile | None:
        """The file as it is now; None when it is gone or no source any more."""
        if path not in self._raw:
            self._raw[path] = self._look(path)
        return self._raw[path]

    def masked(self, path: str) -> str:
        """Its text without secrets; "" when it is gone."""
        if path not in self._masked:
            source = self.source(path)
            self._masked[path] = mask_secrets(source.text).text if source else ""
        return self._masked[path]

    def _look(self, path: str) -> SourceFile | None:
        if path in self._overlays and not read_quarantine(self._parts.workspace).holds_path(path):
            text = self._overlays[path]
            return SourceFile(path, text.encode("utf-8", "replace"), text, language_of(path, text[:100]))
        source = read_source(self._parts.workspace, path, self._parts.settings)
        return source if isinstance(source, SourceFile) else None


def verify(chunk: Chunk, score: float, current: CurrentTexts) -> Passage | None:
    """What `chunk` is now: as it stands, found again where it moved to, or cut anew; None when it is gone."""
    source = current.source(chunk.path)
    if source is None:
        return None
    if cut_lines(source.text, chunk.start_line, chunk.end_line) == chunk.text:
        return make_passage(chunk, score)
    if cut_lines(current.masked(chunk.path), chunk.start_line, chunk.end_line) == chunk.text:
        return make_passage(chunk, score)
    log.debug("%s changed since it was indexed: cut anew", chunk.path)
    now = chunk_text(chunk.path, current.masked(chunk.path), source.language)
    again = _find_again(chunk, now)
    return make_passage(again, score) if again else None


def _find_again(chunk: Chunk, now: Sequence[Chunk]) -> Chunk | None:
    """The same text elsewhere in the file, else what the same symbol is now."""
    same_text = (c for c in now if c.text == chunk.text)
    same_symbol = (c for c in now if chunk.defines and chunk.defines[0] in c.defines)
    return next(same_text, None) or next(same_symbol, None)


def make_passage(chunk: Chunk, score: float) -> Passage:
    """`chunk` as a passage; the caller has verified it."""
    digest = sha256(chunk.text.encode()).hexdigest()
    where = (chunk.path, chunk.start_line, chunk.end_line)
    return Passage(*where, score, chunk.symbol, chunk.language, chunk.text, digest)
