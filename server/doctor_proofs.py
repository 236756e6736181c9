"""What the doctor proves: a file saved now is found, and forgotten when gone; the adapter is in what is served."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from indexer.workspace import Workspace
from server.adapter import Adapter
from server.adapter_files import WEIGHTS, updates_something
from server.base_model import BaseModel
from server.doctor import Finding
from server.engine import living_engines
from server.quantise import before_rounding

CANARY = "nightschool_canary_{}.py"
CANARY_WITHIN_S = 15.0
# How alike the merged weights' change and the adapter's own must be (cosine). Rounding to bf16 hides small changes;
# another adapter, or none, gives about 0.
MIN_LIKENESS = 0.3

Search = Callable[[str], Awaitable[Sequence[str]]]
Update = Callable[[], Awaitable[None]]


async def prove_freshness(
    workspace: Workspace, search: Search, update: Update, within_s: float = CANARY_WITHIN_S
) -> Finding:
    """Make a file that alone holds an answer, find it, remove it, find it no more.

    `search` gives the paths of the best passages, `update` reads the tree anew where nobody watches it. The file is
    removed in any case; what a killed doctor left goes first.
    """
    for left in workspace.root.glob(CANARY.format("*")):
        left.unlink(missing_ok=True)
    word = secrets.token_hex(6)
    file = workspace.root / CANARY.format(word)
    query = f"what does canary_word_{word} return"
    try:
        file.write_text(
            f'def canary_word_{word}():\n    """Made by nightschool doctor, which removes it."""\n    return 4711\n'
        )
        came = await _until(search, query, file.name, True, update, within_s)
    finally:
        file.unlink(missing_ok=True)
    went = await _until(search, query, file.name, False, update, within_s)
    todo = "run `nightschool index`; then look at [server] watches above and at .nightschool/logs/serve.log"
    if came is None or went is None:
        what = "was not found" if came is None else "was still found after it was removed"
        return Finding("freshness", False, f"a file saved now {what} within {within_s:.0f} s", todo)
    return Finding(
        "freshness", True, f"a file saved now was found after {came:.1f} s, and gone {went:.1f} s after its removal"
    )


async def _until(search: Search, query: str, name: str, there: bool, update: Update, within_s: float) -> float | None:
    """Seconds until a search finds the file `name` (or does not any more); None when it takes too long."""
    started = time.monotonic()
    while time.monotonic() - started < within_s:
        await update()
        if (name in await search(query)) == there:
            return time.monotonic() - started
        await asyncio.sleep(0.05)
    return None


def served_folder(state: Path) -> Path | None:
    """The weights that the newest living engine of this workspace was started on; None without one."""
    for process in reversed(living_engines(state)):
        try:
            command = process.cmdline()
            return Path(command[command.index("--model") + 1])
        except (psutil.Error, ValueError, IndexError):
            continue
    return None


def prove_adapter(adapter: Adapter, base: BaseModel, served: Path | None) -> Finding:
    """Is what the adapter learnt in the weights that the engine reads?"""
    if served is None:
        return Finding("adapter", True, f"{adapter.version} is chosen; no engine runs that could serve it")
    todo = f"delete {served} and restart: `nightschool stop`, `nightschool serve`"
    try:
        # Rounding moves each weight by more than an adapter does: what was rounded is compared.
        likeness = fingerprint(adapter.folder, base.folder, before_rounding(served))
    except (OSError, KeyError, ValueError) as error:
        return Finding("adapter", False, f"the served weights cannot be compared: {error}", todo)
    if likeness is None:
        return Finding("adapter", True, f"{adapter.version} changes nothing: it was not trained")
    said = f"{adapter.version}: the served weights differ from {base.name}'s as it says (likeness {likeness:.2f})"
    if likeness < MIN_LIKENESS:
        return Finding(
            "adapter", False, f"{adapter.version} is not in the served weights (likeness {likeness:.2f})", todo
        )
    return Finding("adapter", True, said)


def prove_loaded(adapter: Adapter, served: Mapping[str, Any]) -> Finding:
    """Does the engine read otherwise with the adapter that it has loaded? `served` is what `/adapters/served` says."""
    todo = "restart the backend: `nightschool stop`, `nightschool serve`; then read .nightschool/logs/"
    if fault := served.get("fault"):
        return Finding("adapter", False, f"the engine cannot be asked what {adapter.version} changes: {fault}", todo)
    if served["adapter"] != adapter.version:
        said = f"{adapter.version} is chosen, {served['adapter'] or 'the base model'} answers"
        return Finding("adapter", False, said, "wait, or read the reason above; `nightschool adapters rollback`")
    if not served["difference"]:
        if not updates_something(adapter.folder / WEIGHTS):
            return Finding("adapter", True, f"{adapter.version} changes nothing: it was not trained")
        return Finding("adapter", False, f"the engine reads with {adapter.version} as it does without", todo)
    moved = f"it moves a token by {served['difference']:.3f} nats"
    return Finding("adapter", True, f"{adapter.version}: loaded into the engine, where {moved}")


def fingerprint(adapter: Path, base: Path, served: Path) -> float | None:
    """How alike (cosine) the change from `base` to `served` and the adapter's own update are, in one layer.

    None when the adapter updates nothing. Raises `OSError`, `KeyError` or `ValueError` for folders that do not fit.
    """
    from safetensors import SafetensorError
    from torch import cosine_similarity

    config = json.loads((adapter / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    try:
        names = [name for name in _names(adapter) if ".lora_A." in name]
        down_name = names[len(names) // 2]
        down = _tensor(adapter, down_name)
        up = _tensor(adapter, down_name.replace(".lora_A.", ".lora_B."))
        weight = down_name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        change = _tensor(served, weight) - _tensor(base, weight)
    except (SafetensorError, IndexError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    update = scale * (up @ down)
    if not update.any():
        return None
    return float(cosine_similarity(change.flatten(), update.flatten(), dim=0))


def _names(folder: Path) -> list[str]:
    from safetensors import safe_open

    names: list[str] = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names += tensors.keys()
    return names


def _tensor(folder: Path, name: str) -> Any:
    """One tensor in float32. Raises `KeyError` when no file of `folder` has it."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118 - no mapping
                return tensors.get_tensor(name).float()
    raise KeyError(f"{folder} has no {name}")
