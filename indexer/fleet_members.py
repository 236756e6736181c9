"""The repositories of a fleet, each with its index: opened when first asked, apart from the others when it fails."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.embedding import Embedder, find_embedder
from indexer.fleet_settings import FleetSettings, RepositorySettings, clones_folder, fleet_folder
from indexer.index import Index
from indexer.lock import IndexUnavailable, own_folder
from indexer.opening import close_parts, open_cache, open_parts, open_store, translated_errors
from indexer.parts import Commons
from indexer.settings import BadSettings, IndexerSettings
from indexer.store import forget_client
from indexer.workspace import Workspace

log = logging.getLogger(__name__)
_POLL_S = 60.0  # for a folder that gets no watch: a hundred of them, each read every 2 s, would be all we do
_INDEX = ("index", "lock", ".gitignore")  # what of a repository's folder is built again; its quarantine is not
Answer = TypeVar("Answer")


class _InTurn:
    """An embedder that works on one batch at a time, however many repositories are indexed; lone queries pass."""

    def __init__(self, embedder: Embedder) -> None:
        self.name = embedder.name
        self._embedder = embedder
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(texts) == 1:
            return self._embedder.embed(texts)
        with self._lock:
            return self._embedder.embed(texts)


class Members:
    """Safe to use from several threads. `faults`: repository -> why it could not be asked last time."""

    def __init__(self, fleet: Workspace, settings: IndexerSettings, embedder: Embedder) -> None:
        self.fleet = fleet
        self.embedder = _InTurn(embedder)
        self.settings = FleetSettings.read(fleet)
        self.faults: dict[str, str] = {}
        self._indexer_settings = settings
        self._lock = threading.RLock()
        self._open: dict[str, tuple[Index, ExitStack]] = {}  # by id: a renamed repository stays open
        self._is_watching = False
        folder = fleet_folder(fleet)
        self._commons = Commons(open_cache(folder, embedder), folder / "chroma")

    @property
    def names(self) -> tuple[str, ...]:
        """Of every repository, in the order of the settings."""
        return tuple(one.name for one in self.settings.repositories)

    @property
    def has_cluster(self) -> bool:
        """Is a Ray cluster set?"""
        return bool(self._indexer_settings.ray)

    def find(self, name: str) -> RepositorySettings | None:
        return self.settings.by_name.get(name)

    def ask(self, name: str, question: Callable[[Index], Answer]) -> Answer:
        """What `question` makes of the index of `name`. Raises `IndexUnavailable`, and remembers it in `faults`."""
        try:
            answer = question(self._index(name))
        except IndexUnavailable as error:
            if isinstance(error, ValueError):  # a pattern that cannot be used: the caller's mistake
                raise
            if self.faults.get(name) != str(error):
                log.warning("%s cannot be asked: %s", name, error)
            self.faults[name] = str(error)
            raise
        self.faults.pop(name, None)
        return answer

    def _index(self, name: str) -> Index:
        repository = self.find(name)
        if repository is None:
            raise IndexUnavailable(f"there is no repository {name}")
        place = self._place(repository)
        if not place.root.is_dir():
            todo = "run `nightschool fleet sync`" if repository.is_cloned else "bring it back, or remove it"
            kind = "it is not cloned yet" if repository.is_cloned else f"its folder {place.root} is gone"
            raise IndexUnavailable(f"{kind}: {todo}")
        with self._lock:
            if repository.id not in self._open:
                self._open[repository.id] = self._opened(repository, place)
            return self._open[repository.id][0]

    def _place(self, repository: RepositorySettings) -> Workspace:
        """Where it is: links on the way there are followed when it is opened, not at every question (half of its time
        with a hundred repositories)."""
        opened = self._open.get(repository.id)
        return opened[0].workspace if opened else repository.place(self.fleet)

    def _opened(self, repository: RepositorySettings, place: Workspace) -> tuple[Index, ExitStack]:
        with translated_errors(place), ExitStack() as stack:
            parts = open_parts(place, self._indexer_settings, self.embedder, self._commons)
            stack.callback(close_parts, parts)
            index = Index(parts)
            if self._is_watching and not repository.is_cloned:  # what we cloned changes only when we fetch
                stack.enter_context(index.watch(_POLL_S))
            return index, stack.pop_all()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow every folder of the fleet until left, those that are added meanwhile too."""
        with self._lock:
            self._close_all()
            self._is_watching = True
        try:
            for name in self.names:
                with suppress(IndexUnavailable):
                    self.ask(name, lambda index: None)
            yield
        finally:
            with self._lock:
                self._is_watching = False
                self._close_all()

    def reload(self, all_may_go: bool = False) -> None:
        """Read the settings anew: what is gone from them is deleted, with its clone. Raises `IndexUnavailable`.

        That all are gone is believed only with `all_may_go`: a file that an editor is writing is empty for a moment.
        """
        try:
            self.settings = FleetSettings.read(self.fleet)
        except BadSettings as error:
            raise IndexUnavailable(str(error)) from error
        self.faults = {name: fault for name, fault in self.faults.items() if name in self.names}
        kept = {one.id for one in self.settings.repositories}
        if not kept and not all_may_go:
            return
        for id in sorted({*_ids_in(fleet_folder(self.fleet)), *_ids_in(clones_folder(self.fleet))} - kept):
            self._delete(id)

    def _delete(self, id: str) -> None:
        """The collection, the index and the clone of a repository; the embeddings stay, others may have them too."""
        state = fleet_folder(self.fleet) / id
        with self._lock, translated_errors(self.fleet):
            if id in self._open:
                self._open.pop(id)[1].close()
            if (state / "index").is_dir():
                parts = open_parts(Workspace(state, state), self._indexer_settings, self.embedder, self._commons)
                try:
                    open_store(parts).delete()
                finally:
                    close_parts(parts)
            shutil.rmtree(state / "index", ignore_errors=True)
            (state / ".gitignore").unlink(missing_ok=True)
            with suppress(OSError):  # its quarantine stays: what it holds must not come back with the repository
                state.rmdir()
            shutil.rmtree(clones_folder(self.fleet) / id, ignore_errors=True)
        log.info("%s is removed", id)

    def close(self) -> None:
        with self._lock:
            self._close_all()
            self._commons.cache.close()
            if not self._indexer_settings.chroma:
                forget_client(self._commons.chroma)

    def _close_all(self) -> None:
        for _, stack in self._open.values():
            stack.close()
        self._open.clear()


def _ids_in(folder: Path) -> list[str]:
    """Folders that are a repository's; Chroma's own and what was set aside are not."""
    if not folder.is_dir():
        return []
    named = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    return [name for name in named if name not in ("chroma", "quarantine") and not name.startswith(".")]


@contextmanager
def open_members(fleet: Workspace, settings: IndexerSettings, embedder: Embedder | None = None) -> Iterator[Members]:
    """The fleet in `fleet`, owned until left. Raises `IndexUnavailable`, at once when it is owned already."""
    folder = fleet_folder(fleet)
    try:
        fleet.make_state_folder()
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise IndexUnavailable(f"the fleet cannot be kept in {folder}: {error.strerror}") from error
    with own_folder(folder):
        with translated_errors(fleet):
            members = Members(fleet, settings, embedder or find_embedder(settings.embedder))
        try:
            yield members
        finally:
            members.close()
