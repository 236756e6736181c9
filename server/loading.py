"""An adapter loaded into a vLLM that runs, under its own name: whether it can be, doing it, the proof that it is in.

Always under a new name (its version) and from a folder that never changes: vLLM's prefix cache is keyed by name and
path, so one that is loaded again in place answers from what the old weights left there.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from server.adapter import Adapter
from server.adapter_files import CONFIG, WEIGHTS, read_header, updates_something
from server.engine import EngineError, EngineProcess
from server.generation import Engine, GenerationError, Sampling
from server.prompt import Turn

log = logging.getLogger(__name__)

# vllm 0.32 and 0.33, config/lora.py, MaxLoRARanks: what --max-lora-rank may be. It is memory for each slot, and time.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
USUAL_RANK = 64  # of the trainer's presets: room for the first adapter of a workspace that has none yet
# What LoRA is trained on in models of the Llama kind. vLLM takes more, under names that differ with the architecture.
MODULES = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
# vllm 0.32, lora/peft_helper.py: starts that leave the base model as it is. PiSSA, OLoRA, CorDA and LoftQ change it.
_PLAIN_STARTS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
_REFUSED = ("use_dora", "lora_bias", "alora_invocation_tokens", "use_bdlora", "use_qalora", "modules_to_save")
LOAD_S = 120.0  # the largest, rank 512 on a 7B, is 2.7 GB of file
UNLOAD_S = 10.0
_SMOKE_TOKENS = 8
_SMOKE = [Turn("user", "Say in one sentence what a version control system is good for.")]
# Read, not written: how likely each of its tokens is, with the adapter and without.
PROBE_TEXT = (
    "def verify(self, value):\n    if not isinstance(value, str):\n        raise TypeError('a string is expected')\n"
)


class NotLoadable(Exception):
    """vLLM cannot load this adapter at run time; the message says why, as the rest of a sentence about it."""


def rank_needed(folder: Path) -> int:
    """The `--max-lora-rank` that a vLLM needs to load the adapter in `folder`, of `RANKS`. Raises `NotLoadable`."""
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    rank = max(config["r"], *(config.get("rank_pattern") or {}).values(), 1)
    if rank > RANKS[-1]:
        raise NotLoadable(f"its rank is {rank}, and {RANKS[-1]} is the highest that vLLM loads")
    if set_ := [name for name in _REFUSED if config.get(name)]:
        raise NotLoadable(f"vLLM loads none with {', '.join(set_)}")
    if config.get("bias", "none") != "none":
        raise NotLoadable("vLLM loads none with a bias")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        raise NotLoadable(f"vLLM loads none that was started as {start}")
    names = (name.partition(".lora_")[0].rpartition(".")[2] for name in read_header(folder / WEIGHTS))
    if others := sorted({*names} - MODULES):
        raise NotLoadable(f"it changes {', '.join(others)} too")
    return next(room for room in RANKS if room >= rank)


async def load(process: EngineProcess, adapter: Adapter) -> Engine:
    """The door to `adapter`, loaded into `process` under its version and found to answer and to make a difference.

    Each `load` needs its `unload`. Raises `EngineError` when it cannot be; then `process` serves what it did before.
    """
    engine = process.engine.with_adapter(adapter.version, is_ours=True)
    async with process.loading:
        if not process.loaded[adapter.version]:
            await _load_new(process, adapter, engine)
        process.loaded[adapter.version] += 1
    return engine


async def unload(process: EngineProcess, version: str) -> None:
    """One less needs `version`; the last takes its name from `process`. What is being written goes on to its end."""
    async with process.loading:
        process.loaded[version] -= 1
        if not process.loaded[version]:
            del process.loaded[version]
            await _unload(process, version)


async def _load_new(process: EngineProcess, adapter: Adapter, engine: Engine) -> None:
    named = {"lora_name": adapter.version, "lora_path": str(adapter.folder.resolve())}
    try:
        async with asyncio.timeout(LOAD_S):
            await process.engine.post("/load_lora_adapter", named)
            if adapter.version not in process.proved:  # the way back is short
                await _prove(process.engine, engine, adapter)
                process.proved.add(adapter.version)
    except (GenerationError, TimeoutError) as error:
        await _unload(process, adapter.version)
        raise EngineError(f"the engine could not load it: {error or f'no answer in {LOAD_S:.0f} s'}") from error


async def _prove(base: Engine, adapted: Engine, adapter: Adapter) -> None:
    """Raise `GenerationError` when the adapter does not answer, or makes no difference where it should."""
    await _write(adapted)
    changed = await difference(base, adapted)
    if not changed and updates_something(adapter.folder / WEIGHTS):
        raise GenerationError("it says that it has, and reads as it does without")
    log.info("adapter %s loaded; it moves a token by %.3f nats", adapter.version, changed)


async def _unload(process: EngineProcess, version: str) -> None:
    try:
        async with asyncio.timeout(UNLOAD_S):
            await process.engine.post("/unload_lora_adapter", {"lora_name": version})
    except (GenerationError, TimeoutError) as error:
        log.warning("adapter %s could not be unloaded: %s", version, error or "no answer")


async def difference(base: Engine, adapted: Engine) -> float:
    """By how much `adapted` finds the tokens of a short text more or less likely than `base`; mean, nats a token.

    0 when the engine serves the base model under the adapter's name. Raises `GenerationError`.
    """
    pairs = zip(await read_logprobs(base, PROBE_TEXT), await read_logprobs(adapted, PROBE_TEXT), strict=True)
    differences = [abs(before - after) for before, after in pairs]
    return sum(differences) / len(differences)


async def read_logprobs(engine: Engine, text: str) -> list[float]:
    """The log-probability of each token of `text` but the first; nats. Raises `GenerationError`."""
    asked = {"model": engine.endpoint.model, "prompt": text, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    try:
        tokens: list[Mapping[str, Any]] = json.loads(await engine.post("/completions", asked))["choices"][0][
            "prompt_logprobs"
        ][1:]
        return [float(next(iter(token.values()))["logprob"]) for token in tokens]
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise GenerationError("the engine does not say how likely a text is") from error


async def _write(engine: Engine) -> None:
    """A few tokens. Raises `GenerationError` when none comes."""
    async with aclosing(engine.generate(_SMOKE, Sampling(max_tokens=_SMOKE_TOKENS))) as pieces:
        written = "".join([piece async for piece in pieces if isinstance(piece, str)])
    if not written:
        raise GenerationError("it writes nothing: its first token is the end")
