"""Opening an index: what is damaged or of another version is set aside and built anew from what is sound."""

from __future__ import annotations

import errno
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from indexer.parts import Parts
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


def open_parts(workspace: Workspace, settings: IndexerSettings, embedder: Embedder) -> Parts:
    """Everything but the store, which is heavy and opened when it is needed."""
    folder = index_folder(workspace)
    catalogue = _open_catalogue(folder)
    cache = _open_sound(folder / "embeddings.sqlite", lambda file: EmbeddingCache(file, embedder.name))
    return Parts(workspace, settings, catalogue, cache, _open_lexical(folder, catalogue), embedder)


def close_parts(parts: Parts) -> None:
    parts.lexical.close()
    parts.catalogue.close()
    parts.cache.close()
    if parts.store is not None and not parts.settings.chroma:
        forget_client(index_folder(parts.workspace) / "chroma")


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
    folder = index_folder(parts.workspace) / "chroma"
    name = parts.catalogue.fact(_COLLECTION) or ""
    if not _is_ours(name, parts):
        name = _name(parts, 1)
        parts.catalogue.queue_all(Target.STORE)
        parts.catalogue.set_fact(_COLLECTION, name)
    if not parts.settings.chroma and folder.exists() and (fault := store_fault(folder, name)):
        renew_store_folder(parts, fault)
    try:
        store = Store(open_client(folder, parts.settings.chroma), name)
        expected, waiting = parts.catalogue.count_stored(), parts.catalogue.waiting(Target.STORE)
        if abs(store.count() - expected) <= waiting:
            return store
        log.warning("Chroma has %d chunks, not %d: filled anew", store.count(), expected)
        store.delete()
    except StoreDamaged as error:
        if parts.settings.chroma:
            raise
        renew_store_folder(parts, str(error))
    parts.catalogue.queue_all(Target.STORE)
    return Store(open_client(folder, parts.settings.chroma), name)


def renew_store_folder(parts: Parts, fault: str) -> None:
    """Set a damaged embedded Chroma aside and queue all chunks for a new one; no embedding is computed again."""
    folder = index_folder(parts.workspace) / "chroma"
    log.warning("the Chroma of the index is damaged (%s): set aside and built anew", fault)
    forget_client(folder)
    set_aside(folder)
    parts.catalogue.queue_all(Target.STORE)


def next_generation(parts: Parts, store: Store) -> Store:
    """An empty collection beside `store`."""
    generation = int(store.name.rsplit("g", 1)[-1]) + 1
    folder = index_folder(parts.workspace) / "chroma"
    return Store(open_client(folder, parts.settings.chroma), _name(parts, generation))


def put_in_service(parts: Parts, store: Store) -> None:
    """From now on, also after a restart, `store` is the collection of this index."""
    parts.catalogue.set_fact(_COLLECTION, store.name)
    parts.store = store


def _name(parts: Parts, generation: int) -> str:
    root = parts.workspace.root
    # On a server many workspaces share one Chroma.
    owner = f"{root.name}-{sha256(str(root).encode()).hexdigest()[:8]}" if parts.settings.chroma else ""
    return collection_name(parts.embedder.name, generation, owner)


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
