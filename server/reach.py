"""What one asker reaches of a backend: their passages, files, adapters and nights. The rest does not exist for them.

Narrowed before anything is searched or ranked, and in one place: the routes ask here, and never the backend itself.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from indexer.exact import parse_exact
from indexer.fleet import FleetIndex
from indexer.index import IndexState
from indexer.search import Passage
from server.adapter import VERSION_PATTERN, Adapter, UnknownAdapter, list_adapters
from server.asker import Asker
from server.audit import note_read
from server.backend import BEING_READ, Backend
from server.doors import Doors
from server.engine import EngineError
from server.generation import Engine
from server.places import places_in
from server.serving import Serving
from server.several import Routed
from server.shapes import Json
from server.team import OWNER_NAME

Lent = TypeVar("Lent")
Borrow = Callable[[str | None], AbstractAsyncContextManager[Lent]]


class Readable(Protocol):
    """Of an index, what is read by path."""

    def read(self, path: str) -> str | None: ...
    def explain(self, path: str) -> str: ...


class Nothing:
    """The index of who may read nothing: every file and name is as one that does not exist."""

    def read(self, path: str) -> str | None:
        return None

    def explain(self, path: str) -> str:
        return f"{path}: not in the index: there is no such file"


async def _search_nothing(query: str, k: int, overlays: Mapping[str, str]) -> Sequence[Passage]:
    parse_exact(query)  # a wrong expression is refused, as anywhere
    return ()


async def _find_nothing(text: str, overlays: Mapping[str, str]) -> Sequence[Passage]:
    return ()


async def _behind_nothing() -> IndexState:
    return IndexState(None, 0, 0, 0, 0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class Reach:
    """See the module. `adapters_too`: whether the asker may have what was learnt from the workspace."""

    backend: Backend
    asker: Asker
    index: Readable
    doors: Doors
    adapters_too: bool

    @property
    def adapter(self) -> str | None:
        """The adapter that answers this asker; None: the base model."""
        return self.backend.serving.adapter if self.adapters_too else None

    def adapters(self) -> list[Adapter]:
        """The kept adapters, newest first. Reads files."""
        return list_adapters(self.backend.workspace.adapters) if self.adapters_too else []

    @property
    def borrow(self) -> Borrow[Engine | Routed]:
        """Lends an engine, as `Serving.borrow` does."""
        borrow: Borrow[Engine | Routed] = self.backend.serving.borrow
        return borrow if self.adapters_too else _without_adapters(borrow, self.backend.workspace.adapters)

    def read(self, path: str) -> str | None:
        """An indexed file as it is now, secrets masked; None for one that is not there, for this asker."""
        text = self.index.read(path)
        if text is not None:
            note_read({path.partition("/")[0] if _is_fleet(self.backend) else self.backend.workspace.root.name})
        return text

    def explain(self, path: str) -> str:
        """Why a file is or is not in the index. A user is not told where on this machine the repository lies."""
        if self.asker.name != OWNER_NAME and (path.startswith("/") or ".." in path.split("/")):
            return f"{path}: not in the index: it is outside of what you may read"
        return self.index.explain(path)

    def readiness(self) -> Json:
        """What `/readyz` says. Reasons may name folders, files, adapters: a user hears only that there is one."""
        backend, serving = self.backend, self.backend.serving
        body: Json = {"ready": not backend.missing(), "reasons": backend.missing(), "engine": asdict(serving.state)}
        body |= {"workspace": str(backend.workspace.root)}
        body["index"] = {"reason": backend.keeper.reason, "words_only": self.doors.words_only()}
        if self.asker.name == OWNER_NAME:
            body["served"] = serving.how if isinstance(serving, Serving) else ""
            body["engines"] = {url: asdict(state) for url, state in backend.engines().items()}
        else:
            waits = BEING_READ if backend.keeper.reason else ""
            engine = "" if serving.state.is_answering else f"the engine: {serving.state.name}"
            body["reasons"] = [reason for reason in (waits, engine) if reason]
            body["engine"]["reason"] = ""
            body |= {"workspace": self._name(), "index": {"reason": waits, "words_only": self.doors.words_only()}}
        body |= {"adapter": self.adapter, "base_model": serving.base_model.name, "accepts": ["overlays"]}
        body |= {"feedback": backend.settings.feedback, "fim": serving.base_model.fim is not None}
        return body

    def _name(self) -> str:
        """The workspace's folder, not where it lies; "" where that is the name of a repository they may not read."""
        name = self.backend.workspace.root.name
        is_hidden = name in places_in(self.backend.keeper.index, self.backend.workspace).repositories and not may_read(
            self.asker, name
        )
        return "" if is_hidden else name


def may_read(asker: Asker, repository: str) -> bool:
    return asker.repositories is None or repository in asker.repositories


def _is_fleet(backend: Backend) -> bool:
    return isinstance(backend.keeper.index, FleetIndex)


def reach(backend: Backend, asker: Asker) -> Reach:
    """What `asker` reaches of `backend`, now."""
    everything = places_in(backend.keeper.index, backend.workspace).repositories
    # An adapter that is kept here has learnt from all of the workspace; in a fleet perhaps from what has left it since.
    is_all = not _is_fleet(backend) and everything <= (asker.repositories or frozenset())
    adapters_too = asker.repositories is None or is_all
    index, doors = _narrowed(backend, asker, everything)
    if not adapters_too:
        doors = replace(doors, borrow=_without_adapters(doors.borrow, backend.workspace.adapters))
    return Reach(backend, asker, index, _audited(doors, backend), adapters_too)


def _narrowed(backend: Backend, asker: Asker, everything: frozenset[str]) -> tuple[Readable, Doors]:
    """The index and the doors to what the asker may read."""
    if not any(may_read(asker, name) for name in everything):
        # Made anew, so that what a door says by itself is nothing too.
        nothing = Doors(
            _search_nothing,
            lambda passage: False,
            _behind_nothing,
            backend.doors.borrow,
            _find_nothing,
            lambda name: False,
            code_first=backend.doors.code_first,
            min_groundedness=backend.doors.min_groundedness,
            words_alone=backend.doors.words_alone,
        )
        return Nothing(), nothing
    if asker.name == OWNER_NAME:
        return backend.keeper.index, backend.doors
    # In a workspace with one repository they may read all there is.
    is_part = _is_fleet(backend) and asker.repositories is not None
    doors = backend.doors_for(asker) if is_part else backend.doors
    return (backend.index_for(asker) if is_part else backend.keeper.index), _without_reasons(doors)


def _without_reasons(doors: Doors) -> Doors:
    """`doors`, which say of what cannot be asked only that: the reason may name our folders and addresses."""

    def names(lines: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{line.partition(':')[0]}: it cannot be asked now" for line in lines)

    async def freshness() -> IndexState:
        state = await doors.freshness()
        return replace(state, missing=names(state.missing))

    def words_only() -> str:
        return "what finds by meaning does not answer now" if doors.words_only() else ""

    return replace(doors, freshness=freshness, missing=lambda: names(doors.missing()), words_only=words_only)


def _without_adapters(borrow: Borrow[Lent], adapters: Path) -> Borrow[Lent]:
    """Lends none of the registry `adapters`. What fails is not explained: the reason may name them, and folders."""

    @asynccontextmanager
    async def borrow_others(version: str | None) -> AsyncIterator[Lent]:
        unknown = UnknownAdapter(f"no adapter {version!r}; known: there are none yet")
        if version is not None and re.fullmatch(VERSION_PATTERN, version) and (adapters / version).exists():
            raise unknown
        try:
            async with borrow(version or "none") as model:
                yield model
        except UnknownAdapter as error:
            raise unknown from error
        except EngineError as error:
            raise EngineError("the engine does not answer now") from error

    return borrow_others


def _audited(doors: Doors, backend: Backend) -> Doors:
    """`doors`, each passage's repository noted for the audit log."""

    def note(passages: Sequence[Passage]) -> Sequence[Passage]:
        note_read({passage.repository or backend.workspace.root.name for passage in passages})
        return passages

    async def search(query: str, k: int, overlays: Mapping[str, str]) -> Sequence[Passage]:
        return note(await doors.search(query, k, overlays))

    async def find_named(text: str, overlays: Mapping[str, str]) -> Sequence[Passage]:
        return note(await doors.find_named(text, overlays))

    return replace(doors, search=search, find_named=find_named)
