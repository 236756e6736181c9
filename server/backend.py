"""The backend of one workspace, opened at the edge: the index with its watcher, the engine, and the doors to both."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from indexer.index import IndexUnavailable, Progress, UpdateReport
from indexer.opened import AnyIndex, open_any_index
from indexer.search import Passage
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from server.adapter import UnknownAdapter
from server.asker import Asker
from server.backoff import EngineState
from server.base_model import BaseModel, resolve_base_model
from server.doors import Doors
from server.engine import end_stale_engines
from server.generation import Model
from server.places import group_of_each
from server.remote import NO_ADAPTER, RemoteServing
from server.routing import AdapterChoice, adapters_for, shown_url
from server.serving import Serving
from server.settings import ServerSettings
from server.several import SeveralServing

log = logging.getLogger(__name__)
T = TypeVar("T")
BEING_READ = "the index is being read"
# Below it a model's words are more often wrong than the quoted code, measured up to 1.5 billion: benchmarks/answers.md.
TRUSTED_FROM = 3_000_000_000  # parameters

AnyServing = Serving | RemoteServing | SeveralServing


@dataclass(slots=True)
class IndexKeeper:
    """The index of a backend: open, brought up to date, then watched. `reason` says what is missing, or is ""."""

    index: AnyIndex
    reason: str = BEING_READ
    progress: Progress | None = None
    _updating: threading.Lock = field(default_factory=threading.Lock)

    def update(self) -> UpdateReport:
        """Bring the index up to the working tree; one update at a time. Raises `IndexUnavailable`."""
        with self._updating:
            report = self.index.update(self._note)
            self.progress = None
            self.reason = ""
            return report

    def _note(self, progress: Progress) -> None:
        self.progress = progress
        self.reason = f"{progress.stage}: {progress.done} of {progress.total}"


@dataclass(frozen=True, slots=True)
class Backend:
    """What the HTTP edge needs: `doors` to answer with, the index and the engines to report on."""

    workspace: Workspace
    settings: ServerSettings
    keeper: IndexKeeper
    serving: AnyServing
    doors: Doors

    def index_for(self, asker: Asker) -> AnyIndex:
        """The index as `asker` may read it. Raises `NotReadable`."""
        index = self.keeper.index
        return index if asker.repositories is None else index.view(asker.repositories)

    def doors_for(self, asker: Asker) -> Doors:
        """The doors for what `asker` may read: what is not in them does not exist. Raises `NotReadable`."""
        if asker.repositories is None:
            return self.doors
        choice = _choice(self.keeper.index, self.workspace, self.settings, asker.repositories)
        doors = _doors(self.index_for(asker), self.serving, self.settings, choice)
        # How many files there are is not for who may not read all of them.
        return replace(doors, not_read=lambda: BEING_READ if self.keeper.reason else "")

    def missing(self) -> list[str]:
        """What keeps the backend from being ready; empty when it is."""
        state = self.serving.state
        engine = "" if state.is_answering else state.reason
        return [reason for reason in (self.keeper.reason, engine) if reason]

    def engines(self) -> dict[str, EngineState]:
        """Address -> state, of several engines that others run; empty where there is one."""
        return self.serving.states() if isinstance(self.serving, SeveralServing) else {}


@asynccontextmanager
async def open_backend(workspace: Workspace, tell: Callable[[str], None]) -> AsyncIterator[Backend]:
    """The running backend of `workspace`, until left. Returns before the engine is ready: `missing` says what is not.

    Raises `IndexUnavailable` when another process owns the workspace, `BaseModelUnavailable`, `BadSettings`.
    """
    settings, indexer_settings = ServerSettings.read(workspace), IndexerSettings.read(workspace)
    with ExitStack() as stack:
        index = await asyncio.to_thread(stack.enter_context, open_any_index(workspace, indexer_settings))
        if ended := end_stale_engines(workspace.state):
            tell(f"ended {ended} engine(s) that a killed backend had left")
        keeper, serving = IndexKeeper(index), await _serving(workspace, settings, tell)
        tasks = [asyncio.create_task(_keep_index(keeper)), asyncio.create_task(serving.run())]
        try:
            doors = _doors(index, serving, settings, _choice(index, workspace, settings, None))
            doors = replace(doors, not_read=lambda: keeper.reason)
            yield Backend(workspace, settings, keeper, serving, doors)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


async def _serving(workspace: Workspace, settings: ServerSettings, tell: Callable[[str], None]) -> AnyServing:
    if settings.engine_url:
        tell(f"questions and the code found for them go to {settings.engine_url}, as [server] engine_url says")
        return RemoteServing(settings)
    if settings.engine_urls:
        tell(f"questions and the code found for them go to {', '.join(map(shown_url, settings.engine_urls))}")
        return SeveralServing(settings)
    cache = settings.models_cache.expanduser()
    base_model = await asyncio.to_thread(resolve_base_model, settings.model, cache, tell)
    tell(f"base model {base_model.name}: {base_model.why}")
    return Serving(workspace, settings, base_model)


async def _keep_index(keeper: IndexKeeper) -> None:
    """Bring the index up to date and keep it there."""
    with ExitStack() as stack:
        try:
            # Watching first: what is saved while the tree is read must not be missed.
            await asyncio.to_thread(stack.enter_context, keeper.index.watch())
            report = await asyncio.to_thread(keeper.update)
            log.info("index: %d files, %d chunks, %.1f s", report.files, report.chunks, report.seconds)
        except IndexUnavailable as error:
            keeper.reason = str(error)
            log.error("%s", error)
        await asyncio.Event().wait()


def _choice(
    index: AnyIndex, workspace: Workspace, settings: ServerSettings, may_read: frozenset[str] | None
) -> Callable[[], AdapterChoice]:
    """Which adapter answers who may read `may_read`, by the repositories that there are when it is asked for."""
    return lambda: adapters_for(settings.engine_adapters, group_of_each(index, workspace), may_read)


def _doors(
    index: AnyIndex, serving: AnyServing, settings: ServerSettings, choice: Callable[[], AdapterChoice]
) -> Doors:
    def adapter_for(passages: Sequence[Passage]) -> str | None:
        return choice().of(passages)

    def borrow(version: str | None) -> AbstractAsyncContextManager[Model]:
        if version in settings.engine_adapters.values() and version not in choice().adapters.values():
            raise UnknownAdapter(NO_ADAPTER.format(version))  # as if there were none: its name too tells something
        return serving.borrow(version)

    async def search(query: str, k: int, overlays: Mapping[str, str]) -> Sequence[Passage]:
        return await asyncio.to_thread(index.search, query, k, overlays)

    def still_there(passage: Passage) -> bool:
        return index.is_current(passage.path, passage.start_line, passage.end_line, passage.sha256)

    async def find_named(text: str, overlays: Mapping[str, str]) -> Sequence[Passage]:
        return await asyncio.to_thread(index.find_named, text, overlays)

    async def last_changed(path: str) -> str:
        return await asyncio.to_thread(index.last_changed, path)

    async def commit_of(repository: str) -> str:
        return await asyncio.to_thread(index.commit_of, repository)

    return Doors(
        search, still_there, shared(index.state), borrow, find_named, index.knows, last_changed, commit_of,
        index.missing, index.words_only, adapter_for,
        code_first=is_code_first(settings, serving.base_model), min_groundedness=settings.min_groundedness,
        words_alone=not is_small(serving.base_model),
    )  # fmt: skip


def shared(look: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    """`look` in a thread, once for all who ask before it begins; while one runs, who asks gets the next.

    Answers of one batch end together, and each wants to know what git says: a process of some 10 ms.
    """
    one_at_a_time = asyncio.Lock()
    next_look: asyncio.Task[T] | None = None

    async def run() -> T:
        nonlocal next_look
        async with one_at_a_time:
            next_look = None
            return await asyncio.to_thread(look)

    async def asked() -> T:
        nonlocal next_look
        if next_look is None:
            next_look = asyncio.create_task(run())
        return await asyncio.shield(next_look)  # who leaves does not take it from the others

    return asked


def is_code_first(settings: ServerSettings, base_model: BaseModel) -> bool:
    """Whether the quoted code comes before the model's words: as set, or for models too small to be trusted."""
    return settings.code_first == "always" or (settings.code_first == "auto" and is_small(base_model))


def is_small(base_model: BaseModel) -> bool:
    """Whether it is too small to be trusted. Shown alone where they stand on the code found and cite it, the words of
    one of 0.5 billion parameters held the answer to 87 of 100 questions, those of an adapter on 1.5 billion to 90; the
    code alone, to 95.

    A model behind an endpoint has 0 parameters that we know of: whoever set it chose it.
    """
    return 0 < base_model.parameters < TRUSTED_FROM
