"""Which model answers: the adapter in service always, another version on demand, none dropped while they change.

`served.py` says how each comes up. What answers changes when the new one has written its first tokens; the old one is
let go when its last answer is done. Where there is no memory for two engines there is a short pause, which is
announced.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial

from indexer.workspace import Workspace
from server.adapter import Adapter, AdapterError, find_adapter, pointer_stamp, read_current
from server.backoff import OPENS_AFTER, EngineState, down, wait_s
from server.base_model import BaseModel
from server.engine import EngineError, EngineProcess, NoMemory, start_engine
from server.generation import Engine, GenerationError
from server.loading import difference, unload
from server.nap import ASLEEP, NAP_FILE, Nap
from server.nights import is_night
from server.served import Engines, Served, StartEngine
from server.settings import ServerSettings

log = logging.getLogger(__name__)

POLL_S = 0.5
DRAIN_S = 120.0
# An engine that ends sooner than this after it was ready has failed to start, in truth: the next try waits longer.
STABLE_S = 60.0
PROBE_S = 30.0
SPARE_IDLE_S = 600.0
_STARTING = EngineState("starting", "the engine is starting")


class Serving:
    """Keeps an engine up for the adapter in service. `run` is its life; `borrow` lends an engine for one answer.

    `swap_s` is how long the last change of what answers took; seconds, None before the first.
    """

    def __init__(
        self,
        workspace: Workspace,
        settings: ServerSettings,
        base_model: BaseModel,
        start: StartEngine = start_engine,
        wait: Callable[[int], float] = wait_s,
    ) -> None:
        self.base_model = base_model
        self.state = _STARTING
        self.swap_s: float | None = None
        self.nap = Nap(workspace.state / NAP_FILE, partial(is_night, workspace))
        self._workspace = workspace
        self._engines = Engines(workspace, settings, base_model, start)
        self._wait = wait
        self._ready_at = 0.0
        self._current: Served | None = None
        self._spare: Served | None = None
        self._spare_used_at = 0.0
        self._spare_lock = asyncio.Lock()
        self._leaving: dict[asyncio.Task[None], Served] = {}
        self._refused: set[str] = set()
        self._refused_at = 0
        self._before: Adapter | None = None

    @property
    def adapter(self) -> str | None:
        """The version that answers now; None for the bare base model (or while there is no engine)."""
        return self._current.adapter if self._current else None

    @property
    def how(self) -> str:
        """How that is served: bare, merged or loaded; "" while there is no engine."""
        return self._current.how if self._current else ""

    @property
    def loaded(self) -> list[str]:
        """The adapters that the engine holds beside its weights."""
        return sorted(self._current.process.loaded) if self._current else []

    async def difference(self) -> float | None:
        """By how much the loaded adapter in service moves a token of a short text, measured now; nats.

        None where none is loaded. Raises `GenerationError`.
        """
        served = self._current
        return await difference(served.process.engine, served.engine) if served and served.how == "loaded" else None

    async def run(self) -> None:
        """Keep an engine up until cancelled: start it, follow the pointer, start it again when it ends."""
        failures = 0
        try:
            while True:
                try:
                    await self._step()
                    if time.monotonic() - self._ready_at > STABLE_S:
                        failures = 0
                except EngineError as error:
                    wait = self._wait(failures)
                    failures += 1
                    self.state = down(failures, str(error))
                    log.error("%s (next try in %.0f s)", error, wait)
                    await asyncio.sleep(wait)
                await asyncio.sleep(POLL_S)
        finally:
            await self.stop()

    @asynccontextmanager
    async def borrow(self, version: str | None = None) -> AsyncIterator[Engine]:
        """The engine of the adapter in service, or of `version` ("none": the bare base model), brought up if need be.

        Raises `EngineError` while there is none, `UnknownAdapter` for a version that is not kept.
        """
        if self.state.name == ASLEEP:
            raise EngineError(self.state.reason)
        if version is None or (self._current and version == (self.adapter or "none")):
            if self._current is None:
                raise EngineError(self.state.reason)
            served = self._current
        else:
            served = await self._spare_for(version)
        served.borrowed += 1
        try:
            yield served.engine
        finally:
            served.borrowed -= 1
            self._spare_used_at = time.monotonic()

    def _note(self, served: Served, error: GenerationError | None) -> None:
        """How an answer of `served` ended."""
        served.failures = served.failures + 1 if error else 0
        if served is self._current and error and self.state.name == "ready":
            self.state = EngineState("degraded", f"the last question failed: {error}")
        elif served is self._current and not error and self.state.name == "degraded":
            self.state = EngineState("ready", served.notice)

    async def sleep(self, until: datetime) -> bool:
        """Free the engines' memory for the night that runs, until about `until`; False when none runs (any more)."""
        self.nap.ask(until)
        while self.nap.state() is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.nap.has_room.wait(), POLL_S)
                return True
        return False

    async def _naps(self) -> bool:
        """Whether the engine is to sleep now: puts it to sleep, and wakes it when the night is over."""
        wanted = self.nap.state()
        if wanted is not None and self.state != wanted:
            self.state = wanted
            for served in self._every():
                await served.drain(DRAIN_S)
            # An engine that has no sleep mode is ended: what counts is the memory.
            await self._tell_all("/sleep?level=1")
            self.nap.has_room.set()
            log.info("%s", wanted.reason)
        elif wanted is None and self.state.name == ASLEEP:
            self.nap.has_room.clear()
            # One that does not wake up is ended, and this step starts another.
            await self._tell_all("/wake_up")
            self._ready_at = time.monotonic()
            self.state = EngineState("ready", self._current.notice) if self._current else _STARTING
        return wanted is not None

    async def _tell_all(self, path: str) -> None:
        """POST `path` to every engine; one that refuses is ended."""
        for process in {served.process for served in self._every()}:
            try:
                await process.engine.control(path)
            except GenerationError as error:
                log.info("the engine is ended: %s", error)
                await self._end(process)

    def _every(self) -> list[Served]:
        return [served for served in (self._current, self._spare, *self._leaving.values()) if served]

    async def _step(self) -> None:
        if await self._naps():
            return
        if self._current and self._current.process.has_ended:
            process = self._current.process
            reason = process.why_it_ended()
            await self._end(process)
            raise EngineError(f"the engine ended by itself: {reason}")
        if self._current and self._current.failures >= OPENS_AFTER:
            await self._look_after(self._current)
        wanted = self._wanted()
        if self._current is None or self._current.adapter != (wanted.version if wanted else None):
            await self._swap(wanted)
        if self._spare and time.monotonic() - self._spare_used_at > SPARE_IDLE_S and not self._spare.borrowed:
            spare, self._spare = self._spare, None
            self._retire(spare)

    async def _look_after(self, served: Served) -> None:
        """An engine that lives and fails every question is ended, unless it can still write one token."""
        try:
            async with asyncio.timeout(PROBE_S):
                await served.engine.probe()
        except (GenerationError, TimeoutError) as error:
            await self._end(served.process)
            raise EngineError(f"the engine answered no more and was ended: {error or 'it hangs'}") from error

    def _wanted(self) -> Adapter | None:
        """The adapter that the pointer names; where that was refused, what was in service before.

        Refused until something is put in service again, the same one too.
        """
        if (stamp := pointer_stamp(self._workspace.adapters)) != self._refused_at:
            self._refused, self._refused_at = set(), stamp
        try:
            adapter = read_current(self._workspace.adapters)
        except AdapterError as error:
            if str(error) not in self._refused:
                self._refused.add(str(error))
                log.error("serving the base model: %s", error)
            return None
        if adapter is None or adapter.version not in self._refused:
            return adapter
        return None if self._before and self._before.version in self._refused else self._before

    async def _swap(self, wanted: Adapter | None) -> None:
        started, old = time.monotonic(), self._current
        name = f"adapter {wanted.version}" if wanted else f"base model {self.base_model.name}"
        self.state = EngineState("swapping" if old else "starting", f"the {name} is on its way")
        try:
            new = await self._bring(wanted, name)
        except EngineError as error:
            if wanted is None or isinstance(error, NoMemory):
                raise
            # A bad adapter must not take down what answers now.
            self._refused.add(wanted.version)
            stays = (self.adapter or "the base model") if self._current else "what was in service before"
            log.error("adapter %s is not served, %s stays: %s", wanted.version, stays, error)
            if self._current:
                self.state = EngineState("ready", f"adapter {wanted.version} is not served, {stays} stays: {error}")
            return
        self._current, self._before = new, wanted
        new.engine.note = partial(self._note, new)
        self._ready_at = time.monotonic()
        self.swap_s = self._ready_at - started
        self.state = EngineState("ready", new.notice)
        log.info("in service after %.1f s: %s (%s)", self.swap_s, name, new.how)
        if old:
            self._retire(old)
            if self._spare and self._spare.process is old.process is not new.process:
                spare, self._spare = self._spare, None
                self._retire(spare)

    async def _bring(self, wanted: Adapter | None, name: str) -> Served:
        """`wanted`, ready to answer. Where it does not fit beside what answers now, that is let go first."""
        old = self._current
        try:
            return await self._engines.serve(wanted, old.process if old else None)
        except NoMemory as error:
            if old is None:
                raise
            log.warning("a pause: there is no room for two engines, so the %s comes up alone (%s)", name, error)
        self._current = None
        self.state = EngineState("starting", f"a pause: the {name} is on its way, and there is no room for two engines")
        await old.drain(DRAIN_S)
        await self._end(old.process)
        return await self._engines.serve(wanted, None)

    async def _spare_for(self, version: str) -> Served:
        adapter = None if version == "none" else find_adapter(self._workspace.adapters, version)
        async with self._spare_lock:
            spare = self._spare
            if spare and not spare.process.has_ended and (spare.adapter or "none") == version:
                return spare
            running = self._current.process if self._current else None
            self._spare = None
            if spare:
                leaving = self._retire(spare)
                if spare.process is not running:  # its memory first
                    await asyncio.wait({leaving})
            self._spare_used_at = time.monotonic()
            self._spare = served = await self._engines.serve(adapter, running)
            served.engine.note = partial(self._note, served)
            return served

    def _retire(self, old: Served) -> asyncio.Task[None]:
        """Let `old` go when its last answer is done."""

        async def leave() -> None:
            await old.drain(DRAIN_S)
            task = asyncio.current_task()
            assert task is not None
            self._leaving.pop(task, None)
            await self._let_go(old)

        task = asyncio.create_task(leave())
        self._leaving[task] = old
        return task

    async def _let_go(self, old: Served) -> None:
        """End its process, or unload its adapter, unless somebody else needs it."""
        beside = [one for one in self._every() if one.process is old.process]
        if not beside:
            await old.process.stop()
        elif old.how == "loaded":
            await unload(old.process, str(old.adapter))

    async def _end(self, process: EngineProcess) -> None:
        """End `process` now, and with it all that it serves."""
        for task in [task for task, one in self._leaving.items() if one.process is process]:
            task.cancel()
            del self._leaving[task]
        if self._current and self._current.process is process:
            self._current = None
        if self._spare and self._spare.process is process:
            self._spare = None
        await process.stop()

    async def stop(self) -> None:
        """End every engine."""
        for task in self._leaving:
            task.cancel()
        running = {one.process for one in self._every()}
        self._current = self._spare = None
        self._leaving.clear()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*(process.stop() for process in running))
