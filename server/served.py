"""How a model comes up: loaded into an engine that runs, or on an engine of its own, on merged weights.

Where adapters are loaded at run time, one engine serves the base model and its adapters, each under its own name. On a
CPU vLLM is slow at it (benchmarks/serving.md): there the adapter is merged into the weights that an engine starts on.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from indexer.gpu import has_gpu
from indexer.workspace import Workspace
from server.adapter import Adapter, list_adapters
from server.base_model import BaseModel
from server.engine import EngineError, EngineProcess, NoMemory, Weights
from server.generation import Engine
from server.loading import USUAL_RANK, NotLoadable, load, rank_needed
from server.prompt import PROMPT_VERSION
from server.settings import ServerSettings

log = logging.getLogger(__name__)

StartEngine = Callable[[Weights, ServerSettings, Path, Path], EngineProcess]


@dataclass(eq=False, slots=True)
class Served:
    """A model that can answer: the process that writes, and the door that asks it for `adapter` (None: the base model).

    `borrowed` counts its readers, `failures` the answers in a row that broke off; `notice` is what its owner should
    know of how it is served, or "".
    """

    process: EngineProcess
    engine: Engine
    adapter: str | None
    notice: str = ""
    borrowed: int = 0
    failures: int = 0

    @property
    def how(self) -> str:
        """bare, merged or loaded."""
        if self.adapter is None:
            return "bare"
        return "merged" if self.process.weights.adapter else "loaded"

    async def drain(self, timeout_s: float) -> None:
        """Return when the last answer that it writes is done, or after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.borrowed and time.monotonic() < deadline:
            await asyncio.sleep(0.05)


class Engines:
    """Brings models up. `loads`: adapters are loaded at run time, where they can be; `one_at_a_time`: there is room for
    no second engine."""

    def __init__(
        self, workspace: Workspace, settings: ServerSettings, base_model: BaseModel, start: StartEngine
    ) -> None:
        self.loads = settings.adapters == "loaded" or (settings.adapters == "auto" and has_gpu())
        # vLLM takes nine tenths of the GPU that it finds, and would find the same one again.
        self.one_at_a_time = has_gpu()
        self._workspace = workspace
        self._settings = settings
        self._base_model = base_model
        self._start_engine = start

    async def serve(self, adapter: Adapter | None, running: EngineProcess | None) -> Served:
        """`adapter` (None: the base model), ready to answer; on `running` where that can load it, else on another.

        Raises `EngineError` (`NoMemory`: there is no room for another engine); `running` is as it was.
        """
        if adapter and (misfit := adapter.misfit(self._base_model, PROMPT_VERSION)):
            raise EngineError(f"{misfit}: set [server] model to what it fits, or train again")
        rank, notice = self._rank(adapter)
        room = running.weights.lora_rank if running else 0
        if running and room and (adapter is None or 0 < rank <= room):
            return await self._on(running, adapter)
        if running and room and rank:
            notice = f"its rank needs room for {rank} and the engine had room for {room}: another one was started"
        if notice and adapter:
            log.warning("adapter %s: %s", adapter.version, notice)
        if running and self.one_at_a_time:
            raise NoMemory("no memory for another engine: the one that runs has the GPU")
        process = await self._start(adapter, rank, keep=running.weights.adapter if running else None)
        try:
            served = await self._on(process, adapter)
        except BaseException:  # cancelled too: no engine may be left behind
            await process.stop()
            raise
        served.notice = notice
        return served

    async def _on(self, process: EngineProcess, adapter: Adapter | None) -> Served:
        if adapter is None or process.weights.adapter:
            return Served(process, process.engine, process.weights.adapter)
        return Served(process, await load(process, adapter), adapter.version)

    def _rank(self, adapter: Adapter | None) -> tuple[int, str]:
        """The LoRA rank that an engine for `adapter` has room for, and a notice; 0: it is merged into the weights."""
        if not self.loads:
            return 0, ""
        try:
            if adapter is not None:
                return rank_needed(adapter.folder), ""
            kept = list_adapters(self._workspace.adapters)[:1]
            return (rank_needed(kept[0].folder) if kept else USUAL_RANK), ""
        except NotLoadable as why:
            return (0, f"merged into the weights, not loaded: {why}") if adapter else (USUAL_RANK, "")

    async def _start(self, adapter: Adapter | None, rank: int, keep: str | None) -> EngineProcess:
        if adapter is None or rank:
            weights = Weights(self._base_model.folder, self._base_model, None, rank)
        else:
            weights = Weights(await self._merged(adapter, keep), self._base_model, adapter.version)
        process = self._start_engine(weights, self._settings, self._workspace.state, self._workspace.logs)
        try:
            await process.wait_until_ready(self._settings.engine_start_timeout_s)
        except BaseException:
            await process.stop()
            raise
        return process

    async def _merged(self, adapter: Adapter, keep: str | None) -> Path:
        """The folder of the merged weights; those of others but `keep` are deleted."""
        merged = self._workspace.state / "merged" / adapter.version
        if not merged.exists():
            await _merge(self._base_model.folder, adapter.folder, merged)
        for other in merged.parent.iterdir():
            if other != merged and other.name != keep:
                shutil.rmtree(other, ignore_errors=True)
        return merged


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
