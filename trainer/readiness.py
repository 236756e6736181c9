"""Whether a night is worth its cost and possible now: enough new code, and the memory, disk and GPU it needs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import psutil

from indexer.gpu import free_gpu_bytes, has_gpu
from indexer.workspace import Workspace
from server.base_model import BaseModel
from trainer.presets import Preset
from trainer.settings import TrainerSettings
from trainer.sources.history import History, NoHistory

_MIN_FREE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """What is free now, in bytes; `gpu` is None where there is no GPU."""

    disk: int
    memory: int
    gpu: int | None


def look_at_machine(workspace: Workspace) -> Machine:
    """What a night could use now."""
    disk = shutil.disk_usage(workspace.state if workspace.state.exists() else workspace.root).free
    return Machine(disk, psutil.virtual_memory().available, free_gpu_bytes() if has_gpu() else None)


def what_is_missing(machine: Machine, settings: TrainerSettings, base: BaseModel) -> str:
    """Why `machine` cannot hold a night, and what to do; "" when it can."""
    preset = settings.hyper_parameters(machine.gpu is not None)
    if settings.require_gpu and machine.gpu is None:
        return "there is no GPU, and [trainer] require_gpu asks for one"
    if machine.disk < (wanted := disk_needed(base, preset)):
        return (
            f"a night needs {_gb(wanted)} of disk and {_gb(machine.disk)} are free: free some, or lower [trainer] rank"
        )
    if machine.gpu is not None and machine.gpu < (wanted := gpu_needed(base, preset, settings.four_bit)):
        return f"training needs about {_gb(wanted)} of GPU memory and {_gb(machine.gpu)} are free: end what uses it"
    if machine.gpu is None and machine.memory < (wanted := memory_needed(base.parameters, preset)):
        return (
            f"training needs about {_gb(wanted)} of memory and {_gb(machine.memory)} are free: close something, "
            "lower [trainer] row_tokens, or take a smaller base model"
        )
    return ""


def too_little_changed(workspace: Workspace, older: str, newer: str, min_lines: int) -> str:
    """Why the commits since `older` are not worth a night; "" when they are, or when it cannot be told."""
    try:
        added = sum(lines.end - lines.start + 1 for lines in History(workspace.root).added_lines(older, newer))
    except NoHistory:  # rewritten since: then much has changed
        return ""
    if added >= min_lines:
        return ""
    return f"{added} lines were added since the last night: [trainer] min_changed_lines asks for {min_lines}"


def memory_needed(parameters: int, preset: Preset) -> int:
    """Bytes that training on a CPU takes: float32 weights, the file's pages while they are read, and 1.4 MB of
    activations and logits a token of a row (SmolLM2, 30 layers of 576, a row of 1,024: measured)."""
    return parameters * 6 + preset.row_tokens * 1_400_000


def gpu_needed(base: BaseModel, preset: Preset, four_bit: bool) -> int:
    """Bytes of GPU memory: weights in 16 bits or 4, the LoRA's with gradients and optimizer, and room for a row's
    activations (recomputed in the backward pass). By arithmetic, not measured."""
    weights = base.parameters * 6 // 10 if four_bit else base.parameters * 2
    return weights + lora_parameters(base, preset) * 16 + (3 << 30)


def disk_needed(base: BaseModel, preset: Preset) -> int:
    """Bytes of disk: an adapter, checkpoints of three times its size (two at once), merged weights on a CPU."""
    return _MIN_FREE_BYTES + lora_parameters(base, preset) * 4 * 7 + base.parameters * 2


def lora_parameters(base: BaseModel, preset: Preset) -> int:
    """About how many parameters the LoRA has: on seven modules 0.036% of the model's for each unit of rank (Mistral 7B:
    2.62 million)."""
    return int(base.parameters * 0.00036 * preset.rank)


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
