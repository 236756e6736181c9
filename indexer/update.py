"""MAIN PATH: the working tree -> catalogue -> lexical index -> embeddings -> store, as one diff. Twice does nothing."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from indexer.catalogue import Catalogue, FileChange, Target, Todo
from indexer.chunking import Chunk, chunk_text
from indexer.embedding import Embedder
from indexer.embedding_cache import EmbeddingCache
from indexer.files import Skipped, SourceFile, list_files, read_source
from indexer.lexical import LexicalIndex
from indexer.recent import MOST
from indexer.secrets import mask_secrets
from indexer.settings import IndexerSettings
from indexer.store import Store
from indexer.workspace import Workspace

log = logging.getLogger(__name__)
_FILES_A_TRANSACTION = 100
_TODO_A_ROUND = 512
# Embedded in a round: an edit waits for no more of the backlog. A transformer takes three seconds for the least of it
# on one core; word vectors are soon at the most, and 10,000 chunks are stored in 11 s instead of 43.
_LEAST_A_ROUND, _MOST_A_ROUND = 32, _TODO_A_ROUND
_SHORT_S = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an update is: `done` of `total` in the stage named."""

    stage: str
    done: int
    total: int


Tell = Callable[[Progress], None]


def say_nothing(progress: Progress) -> None:
    """Nobody wants to know."""


@dataclass
class Tally:
    """What one update found and did."""

    updated_files: int = 0
    deleted_files: int = 0
    embedded: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def read_tree(
    workspace: Workspace, settings: IndexerSettings, catalogue: Catalogue, tell: Tell, only: Sequence[str] = ()
) -> Tally:
    """Bring the catalogue up to the tree (with `only`: to these files and folders). Content decides, not times."""
    tally = Tally()
    known = catalogue.hashes(only)
    listed = list_files(workspace, only)
    changes: list[FileChange] = []
    here: set[str] = set()
    for number, path in enumerate(listed, 1):
        source = read_source(workspace, path, settings, known.get(path, ""))
        if isinstance(source, Skipped):
            tally.skipped[source.reason] += 1
        elif source is not None:
            here.add(path)
        if isinstance(source, SourceFile):
            changes.append(describe(source))
            tally.updated_files += 1
        if len(changes) == _FILES_A_TRANSACTION:
            catalogue.put_files(changes)
            changes = []
        if number % 50 == 0:
            tell(Progress("reading", number, len(listed)))
    gone = sorted(known.keys() - here)
    catalogue.put_files(changes, gone)
    tally.deleted_files = len(gone)
    tell(Progress("reading", len(listed), len(listed)))
    return tally


def describe(source: SourceFile) -> FileChange:
    """A file as the catalogue keeps it: masked, then cut into chunks."""
    masked = mask_secrets(source.text)
    chunks = chunk_text(source.path, masked.text, source.language)
    return FileChange(source.path, source.sha256, source.language, masked.counts, chunks)


def sync_lexical(catalogue: Catalogue, lexical: LexicalIndex, tell: Tell) -> None:
    """Bring the lexical index up to the catalogue. Killed at any point, the next call does the rest."""
    total = catalogue.waiting(Target.LEXICAL)
    done = 0
    while todo := catalogue.todo(Target.LEXICAL, 5_000):
        lexical.write((one.id, one.chunk) for one in todo)
        catalogue.done(todo)
        lexical.hide([one.id for one in todo])
        done += len(todo)
        tell(Progress("indexing words", min(done, total), total))


def show_lexical(catalogue: Catalogue, lexical: LexicalIndex) -> bool:
    """Let what waits for the lexical index be found before it is written, and go on waiting; False when it is much."""
    todo = catalogue.todo(Target.LEXICAL, MOST + 1)
    if len(todo) > MOST or not lexical.show((one.id, one.chunk) for one in todo):
        return False
    # What another thread has written meanwhile was hidden before it was shown.
    waiting = {one.id for one in catalogue.todo(Target.LEXICAL, MOST + 1)}
    lexical.hide([one.id for one in todo if one.id not in waiting])
    return True


def sync_store(
    catalogue: Catalogue, cache: EmbeddingCache, embedder: Embedder, store: Store, tell: Tell, stop: Callable[[], bool]
) -> int:
    """Bring the store up to the catalogue, embedding what was never embedded; returns how many that were.

    The newest edits first. Killed at any point, or ended by `stop`, the next call goes on; what was embedded stays so.
    """
    embedded, most = 0, _LEAST_A_ROUND
    total = catalogue.waiting(Target.STORE)
    while (todo := catalogue.todo(Target.STORE, _TODO_A_ROUND)) and not stop():
        gone, moved, known, unknown = _sort_out(todo, catalogue, cache)
        _drop(gone, catalogue, store)
        _move(moved, catalogue, store)
        _put(known, catalogue, cache, store)
        fresh = _next_to_embed(unknown, most)
        if fresh:
            seconds = embed_chunks([one.chunk for one in fresh if one.chunk], cache, embedder)
            most = min(2 * most, _MOST_A_ROUND) if seconds < _SHORT_S else max(most // 2, _LEAST_A_ROUND)
            _put(fresh, catalogue, cache, store)
            embedded += len(fresh)
        waiting = catalogue.waiting(Target.STORE)
        total = max(total, waiting)
        tell(Progress("embedding", total - waiting, total))
    return embedded


def _sort_out(
    todo: list[Todo], catalogue: Catalogue, cache: EmbeddingCache
) -> tuple[list[Todo], list[Todo], list[Todo], list[Todo]]:
    """Gone; in the store but moved; not in the store but embedded before; never embedded."""
    there = catalogue.stored([one.id for one in todo])
    gone = [one for one in todo if one.chunk is None]
    moved = [one for one in todo if one.chunk and one.id in there]
    new = [one for one in todo if one.chunk and one.id not in there]
    has_embedding = cache.has([embedded_text(one.chunk) for one in new if one.chunk])
    known = [one for one, has in zip(new, has_embedding, strict=True) if has]
    return gone, moved, known, [one for one, has in zip(new, has_embedding, strict=True) if not has]


def _next_to_embed(unknown: list[Todo], most: int) -> list[Todo]:
    """One round's worth: with a long backlog, chunks of like length together, which wastes no padding."""
    if len(unknown) < _TODO_A_ROUND // 2:
        return unknown[:most]
    newest = unknown[0]
    by_length = sorted(unknown, key=lambda one: len(one.chunk.text) if one.chunk else 0)
    start = max(0, min(by_length.index(newest) - most // 2, len(by_length) - most))
    return by_length[start : start + most]


def _drop(gone: list[Todo], catalogue: Catalogue, store: Store) -> None:
    if gone:
        store.drop([one.id for one in gone])
        catalogue.note_stored([], [one.id for one in gone])
        catalogue.set_fact("dead", str(int(catalogue.fact("dead") or 0) + len(gone)))
        catalogue.done(gone)


def _move(moved: list[Todo], catalogue: Catalogue, store: Store) -> None:
    if moved:
        store.move([one.chunk for one in moved if one.chunk])
        catalogue.done(moved)


def _put(new: list[Todo], catalogue: Catalogue, cache: EmbeddingCache, store: Store) -> None:
    chunks = [one.chunk for one in new if one.chunk]
    vectors = cache.get([embedded_text(chunk) for chunk in chunks])
    ready = [(chunk, vector) for chunk, vector in zip(chunks, vectors, strict=True) if vector is not None]
    if ready:
        store.put([chunk for chunk, _ in ready], np.stack([vector for _, vector in ready]))
        catalogue.note_stored([chunk.id for chunk, _ in ready], [])
        ids = {chunk.id for chunk, _ in ready}
        catalogue.done([one for one in new if one.id in ids])


def embed_chunks(chunks: Sequence[Chunk], cache: EmbeddingCache, embedder: Embedder) -> float:
    """Embed these and keep the embeddings; the seconds that it took."""
    texts = list(dict.fromkeys(embedded_text(chunk) for chunk in chunks))
    started = time.perf_counter()
    cache.put(texts, embedder.embed(texts))
    seconds = time.perf_counter() - started
    log.debug("embedded %d chunks in %.2f s", len(texts), seconds)
    return seconds


def embedded_text(chunk: Chunk) -> str:
    """What the embedder reads of a chunk: its header (path and names), then its text."""
    return chunk.header + chunk.text
