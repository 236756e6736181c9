"""Opening an index: what is damaged or of another version is set aside and built anew from what is sound."""

from __future__ import annotations

import errno
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from indexer.catalogue import Catalogue, Target
from indexer.check import store_fault
from indexer.chunking import CHUNKER_VERSION
from indexer.embedding import Embedder, EmbedderUnavailable
from indexer.embedding_cache import EmbeddingCache
from indexer.lexical import LexicalDamaged, LexicalIndex
from indexer.lock import IndexUnavailable
from indexer.parts import Commons, Parts
from indexer.quarantine import BadQuarantine
from indexer.settings import IndexerSettings
from indexer.store import Store, StoreDamaged, collection_name, forget_client, open_client
from indexer.workspace import Workspace

log = logging.getLogger(__name__)
_VERSION = f"1.{CHUNKER_VERSION}"  # of the catalogue's tables, and of the chunks in them
_COLLECTION = "collection"
_Database = TypeVar("_Database", Catalogue, EmbeddingCache)


def index_folder(workspace: Workspace) -> Path:
    """`.nightschool/index`, made when it is not there. Raises `IndexUnavailable` when it cannot be."""
    folder = workspace.state / "index"
    try:
        workspace.make_state_folder()
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise IndexUnavailable(f"the index cannot be kept in {folder}: {error.strerror}") from error
    return folder


def open_parts(
    workspace: Workspace, settings: IndexerSettings, embedder: Embedder, commons: Commons | None = None
) -> Parts:
    """Everything but the store, which is heavy and opened when it is needed."""
    folder = index_folder(workspace)
    catalogue = _open_catalogue(folder)
    cache = commons.cache if commons else open_cache(folder, embedder)
    return Parts(workspace, settings, catalogue, cache, _open_lexical(folder, catalogue), embedder, commons=commons)


def open_cache(folder: Path, embedder: Embedder) -> EmbeddingCache:
    """The embeddings kept in `folder`; a damaged file is set aside and begun anew."""
    return _open_sound(folder / "embeddings.sqlite", lambda file: EmbeddingCache(file, embedder.name))


def chroma_folder(parts: Parts) -> Path:
    """Where the embedded Chroma is that has this index's collection."""
    return parts.commons.chroma if parts.commons else index_folder(parts.workspace) / "chroma"


def close_parts(parts: Parts) -> None:
    parts.lexical.close()
    parts.catalogue.close()
    if parts.commons is not None:
        return  # they are the fleet's to close
    parts.cache.close()
    if parts.store is not None and not parts.settings.chroma:
        forget_client(chroma_folder(parts))


def _open_catalogue(folder: Path) -> Catalogue:
    catalogue = _open_sound(folder / "catalogue.sqlite", Catalogue)
    if catalogue.fact("version") not in (None, _VERSION):
        log.info("the index is of another version: read anew, embeddings kept")
        catalogue.close()
        for file in folder.glob("catalogue.sqlite*"):
            file.unlink()
        shutil.rmtree(folder / "lexical", ignore_errors=True)
        catalogue = Catalogue(folder / "catalogue.sqlite")
    if catalogue.fact("version") is None:
        # Nothing is known of what the projections hold: they are built anew.
        for name in ("lexical", "chroma"):
            if (folder / name).exists():
                set_aside(folder / name)
        catalogue.set_fact("version", _VERSION)
    return catalogue


def _open_sound(file: Path, opened: Callable[[Path], _Database]) -> _Database:
    """The database in `file`; one that SQLite finds damaged is set aside and begun anew."""
    database: _Database | None = None
    try:
        database = opened(file)
        if database.check():
            return database
        fault = "its pages are not in order"
    except sqlite3.DatabaseError as error:
        if _is_of_the_disk(error):
            raise
        fault = str(error)
    if database is not None:
        database.close()
    log.warning("%s is damaged (%s): set aside and built anew", file.name, fault)
    for part in sorted(file.parent.glob(f"{file.name}*")):
        set_aside(part)
    return opened(file)


def _open_lexical(folder: Path, catalogue: Catalogue) -> LexicalIndex:
    """The lexical index; a damaged or missing one is built anew by the next update."""
    try:
        lexical = LexicalIndex(folder / "lexical")
        if lexical.count() or not catalogue.count()[1]:
            return lexical
        lexical.close()
    except LexicalDamaged as error:
        log.warning("%s: set aside and built anew", error)
        set_aside(folder / "lexical")
    catalogue.queue_all(Target.LEXICAL)
    return LexicalIndex(folder / "lexical")


def renew_lexical(parts: Parts) -> None:
    """Set the damaged lexical index aside; the next update fills the new one."""
    folder = index_folder(parts.workspace)
    set_aside(folder / "lexical")
    parts.catalogue.queue_all(Target.LEXICAL)
    parts.lexical = LexicalIndex(folder / "lexical")


def open_store(parts: Parts) -> Store:
    """The collection of this embedder and chunker, checked in a child process first; a damaged Chroma is set aside."""
    # One at a time: two threads that make a client of the same folder get one that has no database (chromadb 1.5.9).
    with parts.commons.lock if parts.commons else nullcontext():
        return _open_store(parts)


def _open_store(parts: Parts) -> Store:
    folder = chroma_folder(parts)
    name = parts.catalogue.fact(_COLLECTION) or ""
    is_new = not _is_ours(name, parts)
    if is_new:
        name = _name(parts, 1)
        parts.catalogue.queue_all(Target.STORE)
        parts.catalogue.set_fact(_COLLECTION, name)
    if not parts.settings.chroma and folder.exists() and (fault := _fault(parts, folder, name)):
        renew_store_folder(parts, fault)
    try:
        parts.opened_renewal = parts.commons.renewals if parts.commons else 0
        store = Store(open_client(folder, parts.settings.chroma), name)
        expected, waiting = parts.catalogue.count_stored(), parts.catalogue.waiting(Target.STORE)
        # What an older catalogue has left under a new one's name is nothing that we know of.
        if abs(store.count() - expected) <= (0 if is_new else waiting):
            return store
        log.warning("Chroma has %d chunks, not %d: filled anew", store.count(), expected)
        store.delete()
    except StoreDamaged as error:
        if parts.settings.chroma:
            raise
        renew_store_folder(parts, str(error))
    parts.catalogue.queue_all(Target.STORE)
    return Store(open_client(folder, parts.settings.chroma), name)


def _fault(parts: Parts, folder: Path, name: str) -> str:
    """What is wrong with the Chroma; a fleet's is looked at once, with all its collections."""
    commons = parts.commons
    if commons is None:
        return store_fault(folder, name)
    with commons.lock:
        fault = "" if commons.is_checked else store_fault(folder)
        commons.is_checked = True
        return fault


def renew_store_folder(parts: Parts, fault: str) -> None:
    """Set a damaged embedded Chroma aside and queue all chunks for a new one; no embedding is computed again.

    In a fleet the first who finds the damage sets it aside; the others only fill the new one.
    """
    log.warning("the Chroma of the index is damaged (%s): set aside and built anew", fault)
    if parts.commons is None:
        _set_store_aside(chroma_folder(parts))
    else:
        with parts.commons.lock:
            if parts.opened_renewal == parts.commons.renewals:
                _set_store_aside(parts.commons.chroma)
                parts.commons.renewals += 1
    parts.catalogue.queue_all(Target.STORE)


def _set_store_aside(folder: Path) -> None:
    forget_client(folder)
    set_aside(folder)


def next_generation(parts: Parts, store: Store) -> Store:
    """An empty collection beside `store`."""
    generation = int(store.name.rsplit("g", 1)[-1]) + 1
    return Store(open_client(chroma_folder(parts), parts.settings.chroma), _name(parts, generation))


def put_in_service(parts: Parts, store: Store) -> None:
    """From now on, also after a restart, `store` is the collection of this index."""
    parts.catalogue.set_fact(_COLLECTION, store.name)
    parts.store = store


def _name(parts: Parts, generation: int) -> str:
    return collection_name(parts.embedder.name, generation, _owner(parts))


def _owner(parts: Parts) -> str:
    """What tells this index's collection from others: in a fleet all are in one Chroma, on a server many fleets'."""
    folder = parts.workspace.state if parts.commons else parts.workspace.root
    if parts.settings.chroma:
        return f"{folder.name}-{sha256(str(folder).encode()).hexdigest()[:8]}"
    return folder.name if parts.commons else ""


def _is_ours(name: str, parts: Parts) -> bool:
    return bool(name) and name.rsplit("g", 1)[0] == _name(parts, 1).rsplit("g", 1)[0]


def set_aside(path: Path) -> None:
    """Move a damaged file or folder to `quarantine/`, where the last one of its name is kept."""
    quarantine = path.parent / "quarantine"
    quarantine.mkdir(exist_ok=True)
    target = quarantine / path.name
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    if path.exists():
        path.replace(target)


def _is_of_the_disk(error: sqlite3.DatabaseError) -> bool:
    """Full, read-only, busy: not damage."""
    return isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error)


@contextmanager
def translated_errors(workspace: Workspace) -> Iterator[None]:
    """What the doors raise, as `IndexUnavailable` with a message fit to show."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _is_of_the_disk(error):
            raise IndexUnavailable(f"the index in {workspace.state} cannot be written: {error}") from error
        raise IndexUnavailable(
            f"the index in {workspace.state} is damaged ({error}): start again to rebuild it"
        ) from error
    except (LexicalDamaged, StoreDamaged, EmbedderUnavailable, BadQuarantine) as error:
        raise IndexUnavailable(str(error)) from error
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) else str(error)
        raise IndexUnavailable(f"the index in {workspace.state} cannot be used: {reason}") from error
