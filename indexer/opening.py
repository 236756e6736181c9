"""Opening an index: what is damaged or of another version is set aside and built anew from what is sound."""

from __future__ import annotations

import errno
import logging
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from indexer.catalogue import Catalogue, Target
from indexer.check import store_fault
from indexer.chroma_server import ChromaServer, NoKey, server_of
from indexer.chunking import CHUNKER_VERSION
from indexer.cluster import ClusterUnavailable
from indexer.embedding import Embedder, EmbedderUnavailable
from indexer.embedding_cache import EmbeddingCache
from indexer.lexical import LexicalDamaged, LexicalIndex
from indexer.lock import IndexUnavailable
from indexer.parts import Commons, Parts
from indexer.quarantine import BadQuarantine
from indexer.settings import IndexerSettings
from indexer.store import Store, StoreDamaged, collection_name, forget_client, open_collection
from indexer.workspace import Workspace

log = logging.getLogger(__name__)
_VERSION = f"1.{CHUNKER_VERSION}"  # of the catalogue's tables, and of the chunks in them
_COLLECTION = "collection"
_ID = "id"  # of this index: on a Chroma server its collections are named after it
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
    parts = Parts(workspace, settings, catalogue, cache, _open_lexical(folder, catalogue), embedder, commons=commons)
    collection = catalogue.fact(_COLLECTION)
    if collection and not _is_of_now(collection, parts):  # so that an update knows that there is something to do
        catalogue.queue_all(Target.STORE)
    return parts


def open_cache(folder: Path, embedder: Embedder) -> EmbeddingCache:
    """The embeddings kept in `folder`; a damaged file is set aside and begun anew."""
    return _open_sound(folder / "embeddings.sqlite", lambda file: EmbeddingCache(file, embedder.name))


def chroma_folder(parts: Parts) -> Path:
    """Where the embedded Chroma is that has this index's collection."""
    return parts.commons.chroma if parts.commons else index_folder(parts.workspace) / "chroma"


def close_parts(parts: Parts) -> None:
    parts.lexical.close()
    parts.catalogue.close()
    store, parts.store = parts.store, None
    if store is not None:
        store.close()
    if parts.commons is not None:
        return  # they are the fleet's to close
    parts.cache.close()
    if store is not None and not parts.settings.chroma:
        forget_client(chroma_folder(parts))


def _open_catalogue(folder: Path) -> Catalogue:
    _refuse_newer(folder)
    catalogue = _open_sound(folder / "catalogue.sqlite", Catalogue)
    if catalogue.fact("version") not in (None, _VERSION):
        log.info("the index is of an older version: read anew, embeddings kept")
        kept = {name: value for name in (_ID, _COLLECTION) if (value := catalogue.fact(name)) is not None}
        catalogue.close()
        for file in folder.glob("catalogue.sqlite*"):
            file.unlink()
        shutil.rmtree(folder / "lexical", ignore_errors=True)
        catalogue = Catalogue(folder / "catalogue.sqlite")
        for name, value in kept.items():
            catalogue.set_fact(name, value)
    if catalogue.fact("version") is None:
        # Nothing is known of what the projections hold: they are built anew.
        for name in ("lexical", "chroma"):
            if (folder / name).exists():
                set_aside(folder / name)
        catalogue.set_fact("version", _VERSION)
    return catalogue


def _refuse_newer(folder: Path) -> None:
    """An older program must not throw away what a newer one made: it may run beside it, or be a step back by mistake.

    Raises `IndexUnavailable`; nothing is touched.
    """
    found = _version_of(folder / "catalogue.sqlite")
    if _as_numbers(found) > _as_numbers(_VERSION):
        raise IndexUnavailable(
            f"the index in {folder} was made by a newer nightschool (version {found}, this one knows {_VERSION}): "
            "update this one, or move that folder away to read the tree anew"
        )


def _version_of(file: Path) -> str:
    """What a catalogue says its version is, before any table of ours is put into it; "" when it says nothing."""
    if not file.exists():
        return ""
    try:
        with closing(sqlite3.connect(file)) as database:
            found = database.execute("SELECT value FROM facts WHERE name = 'version'").fetchone()
    except sqlite3.DatabaseError:  # damaged, or none of ours: whoever opens it next finds out
        return ""
    return str(found[0]) if found else ""


def _as_numbers(version: str) -> tuple[int, ...]:
    """ "1.6" -> (1, 6); what is no version is older than all."""
    try:
        return tuple(map(int, version.split(".")))
    except ValueError:
        return ()


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
    before = parts.catalogue.fact(_COLLECTION) or ""
    is_new = not _is_of_now(before, parts)
    name = _name(parts, 1) if is_new else before
    if is_new:
        parts.catalogue.queue_all(Target.STORE)
    if not parts.settings.chroma and folder.exists() and (fault := _fault(parts, folder, name)):
        renew_store_folder(parts, fault)
    try:
        parts.opened_renewal = parts.commons.renewals if parts.commons else 0
        store = open_collection(folder, _server(parts), name)
        if is_new:
            _take_over(parts, store, before)
        expected, waiting = parts.catalogue.count_stored(), parts.catalogue.waiting(Target.STORE)
        # What an older catalogue has left under a new one's name is nothing that we know of.
        if abs(store.count() - expected) <= (0 if is_new else waiting):
            return store
        log.warning("Chroma has %d chunks, not %d: filled anew", store.count(), expected)
        store.delete()
        store.close()
    except StoreDamaged as error:
        if parts.settings.chroma:
            raise
        renew_store_folder(parts, str(error))
    parts.catalogue.queue_all(Target.STORE)
    return open_collection(folder, _server(parts), name)


def _server(parts: Parts) -> ChromaServer | None:
    """The Chroma server that the settings name. Raises `StoreDamaged` when its key cannot be had."""
    try:
        return server_of(parts.settings)
    except NoKey as error:
        raise StoreDamaged(f"Chroma at {parts.settings.chroma} is not asked: {error}") from error


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
    return open_collection(chroma_folder(parts), _server(parts), _name(parts, generation))


def put_in_service(parts: Parts, store: Store) -> None:
    """From now on, also after a restart, `store` is the collection of this index."""
    parts.catalogue.set_fact(_COLLECTION, store.name)
    parts.store = store


def _take_over(parts: Parts, store: Store, before: str) -> None:
    """`store` is the collection from now on; the one of another embedder or chunker goes, where it is surely ours."""
    if parts.settings.chroma and before.startswith(f"{_owner(parts)}-"):
        store.delete_other(before)
    parts.catalogue.set_fact(_COLLECTION, store.name)


def _name(parts: Parts, generation: int) -> str:
    return collection_name(parts.embedder.name, generation, _owner(parts))


def _owner(parts: Parts) -> str:
    """What tells this index's collection from others: a fleet has one Chroma for all, and a server many indexes, of
    which no two writers may share one.

    There it is of the folder and of an id of this index: two machines may have the same path; a folder may be copied.
    """
    folder = parts.workspace.state if parts.commons else parts.workspace.root
    if not parts.settings.chroma:
        return folder.name if parts.commons else ""
    index_id = parts.catalogue.fact(_ID)
    if index_id is None:
        parts.catalogue.set_fact(_ID, index_id := uuid4().hex)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.name).strip("._-") or "root"
    return f"{name[:100]}-{sha256(f'{index_id} {folder}'.encode()).hexdigest()[:12]}"


def _is_of_now(name: str, parts: Parts) -> bool:
    """Is this a collection of this embedder, chunker and index, of whatever generation?"""
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
    except (LexicalDamaged, StoreDamaged, EmbedderUnavailable, BadQuarantine, ClusterUnavailable) as error:
        raise IndexUnavailable(str(error)) from error
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) else str(error)
        raise IndexUnavailable(f"the index in {workspace.state} cannot be used: {reason}") from error
