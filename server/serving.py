"""Which engine answers: the adapter in service always, another version on demand, none dropped while they change.

On a CPU the adapter is merged into the weights and a second engine comes up beside the first; traffic moves when it
has written its first token, and the first goes down when its last answer is done. (vLLM's LoRA on CPU writes 7 tokens
a second where merged weights write 30.)
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from indexer.workspace import Workspace
from server.adapter import Adapter, AdapterError, find_adapter, read_current
from server.backoff import OPENS_AFTER, READY, EngineState, down, wait_s
from server.base_model import BaseModel
from server.engine import EngineError, EngineProcess, Weights, start_engine
from server.generation import Engine, GenerationError
from server.prompt import PROMPT_VERSION
from server.settings import ServerSettings

log = logging.getLogger(__name__)

POLL_S = 0.5
DRAIN_S = 120.0
# An engine that ends sooner than this after it was ready has failed to start, in truth: the next try waits longer.
STABLE_S = 60.0
PROBE_S = 30.0
SPARE_IDLE_S = 600.0

StartEngine = Callable[[Weights, ServerSettings, Path, Path], EngineProcess]


class Serving:
    """Keeps an engine up for the adapter in service. `run` is its life; `borrow` lends an engine for one answer."""

    def __init__(
        self,
        workspace: Workspace,
        settings: ServerSettings,
        base_model: BaseModel,
        start: StartEngine = start_engine,
        wait: Callable[[int], float] = wait_s,
    ) -> None:
        self.base_model = base_model
        self.state = EngineState("starting", "the engine is starting")
        self._workspace = workspace
        self._settings = settings
        self._start_engine = start
        self._wait = wait
        self._ready_at = 0.0
        self._current: EngineProcess | None = None
        self._spare: EngineProcess | None = None
        self._spare_used_at = 0.0
        self._spare_lock = asyncio.Lock()
        self._refused: set[str] = set()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def adapter(self) -> str | None:
        """The version whose engine answers now; None for the bare base model (or while there is no engine)."""
        return self._current.weights.adapter if self._current else None

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
        """The engine of the adapter in service, or of `version` ("none": the bare base model), started if need be.

        Raises `EngineError` while there is none, `UnknownAdapter` for a version that is not kept.
        """
        if version is None or (self._current and version == (self.adapter or "none")):
            if self._current is None:
                raise EngineError(self.state.reason)
            process = self._current
        else:
            process = await self._spare_for(version)
        process.borrowed += 1
        try:
            yield process.engine
        finally:
            process.borrowed -= 1
            self._spare_used_at = time.monotonic()

    def _note(self, process: EngineProcess, error: GenerationError | None) -> None:
        """How an answer of `process` ended."""
        process.failures = process.failures + 1 if error else 0
        if process is self._current and error and self.state.name == "ready":
            self.state = EngineState("degraded", f"the last question failed: {error}")
        elif process is self._current and not error and self.state.name == "degraded":
            self.state = READY

    async def _step(self) -> None:
        if self._current and self._current.has_ended:
            ended, self._current = self._current, None
            reason = ended.why_it_ended()
            await ended.stop()
            raise EngineError(f"the engine ended by itself: {reason}")
        if self._current and self._current.failures >= OPENS_AFTER:
            await self._look_after(self._current)
        wanted = self._wanted()
        if self._current is None or self._current.weights.adapter != (wanted.version if wanted else None):
            await self._swap(wanted)
        if self._spare and time.monotonic() - self._spare_used_at > SPARE_IDLE_S and not self._spare.borrowed:
            spare, self._spare = self._spare, None
            await spare.stop()

    async def _look_after(self, process: EngineProcess) -> None:
        """An engine that lives and fails every question is ended, unless it can still write one token."""
        try:
            async with asyncio.timeout(PROBE_S):
                await process.engine.probe()
        except (GenerationError, TimeoutError) as error:
            self._current = None
            await process.stop()
            raise EngineError(f"the engine answered no more and was ended: {error or 'it hangs'}") from error

    def _wanted(self) -> Adapter | None:
        try:
            adapter = read_current(self._workspace.adapters)
        except AdapterError as error:
            if str(error) not in self._refused:
                self._refused.add(str(error))
                log.error("serving the base model: %s", error)
            return None
        return None if adapter is None or adapter.version in self._refused else adapter

    async def _swap(self, wanted: Adapter | None) -> None:
        name = f"adapter {wanted.version}" if wanted else f"base model {self.base_model.name}"
        self.state = EngineState("swapping" if self._current else "starting", f"an engine for the {name} is starting")
        old = self._current
        try:
            new = await self._start(wanted)
        except EngineError as error:
            if wanted is None:
                raise
            # A bad adapter must not take the base model down with it.
            self._refused.add(wanted.version)
            log.error("adapter %s is not served: %s", wanted.version, error)
            if old:
                self.state = EngineState("ready", f"adapter {wanted.version} could not be started: {error}")
            return
        self._current = new
        self._ready_at = time.monotonic()
        self.state = READY
        log.info("in service: %s", name)
        if old:
            self._retire(old)

    async def _start(self, adapter: Adapter | None) -> EngineProcess:
        weights = Weights(await self._folder(adapter), self.base_model, adapter.version if adapter else None)
        process = self._start_engine(weights, self._settings, self._workspace.state, self._workspace.logs)
        process.engine.note = partial(self._note, process)
        try:
            await process.wait_until_ready(self._settings.engine_start_timeout_s)
        except BaseException:  # cancelled too: no engine may be left behind
            await process.stop()
            raise
        return process

    async def _folder(self, adapter: Adapter | None) -> Path:
        if adapter is None:
            return self.base_model.folder
        if misfit := adapter.misfit(self.base_model, PROMPT_VERSION):
            raise EngineError(f"{misfit}: set [server] model to what it fits, or train again")
        merged = self._workspace.state / "merged" / adapter.version
        if not merged.exists():
            await _merge(self.base_model.folder, adapter.folder, merged)
        for other in merged.parent.iterdir():
            if other != merged and other.name != self.adapter:
                shutil.rmtree(other, ignore_errors=True)
        return merged

    async def _spare_for(self, version: str) -> EngineProcess:
        adapter = None if version == "none" else find_adapter(self._workspace.adapters, version)
        async with self._spare_lock:
            if self._spare and not self._spare.has_ended and (self._spare.weights.adapter or "none") == version:
                return self._spare
            if self._spare:
                await self._spare.drain(DRAIN_S)
                await self._spare.stop()
                self._spare = None
            self._spare_used_at = time.monotonic()
            self._spare = await self._start(adapter)
            return self._spare

    def _retire(self, old: EngineProcess) -> None:
        async def end() -> None:
            await old.drain(DRAIN_S)
            await old.stop()

        task = asyncio.create_task(end())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def stop(self) -> None:
        """End every engine."""
        for task in list(self._retiring):
            task.cancel()
        running = [process for process in (self._current, self._spare) if process]
        self._current = self._spare = None
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*(process.stop() for process in running))


async def _merge(base: Path, adapter: Path, out: Path) -> None:
    """Merged weights in `out`, by a process of its own: torch would stay in the backend's memory."""
    out.parent.mkdir(parents=True, exist_ok=True)
    arguments = ("-P", "-m", "server.merge", str(base), str(adapter), str(out))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise EngineError(f"the adapter could not be merged: {last[-1]}")
