"""Rounding a model's weights for the engine, in a process of its own: `python -m server.quantise MODEL SCHEME OUT`.

Rounded to nearest, without calibration: it takes seconds, needs no text, and a night's adapter is merged before it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

from server.model_folder import copy_tokenizer, made_whole

# Schemes of compressed-tensors for which vLLM has kernels on a CPU: int8 weights (a scale a row) with activations
# rounded as they come, and int4 weights with a scale for `GROUP` of them.
Scheme = Literal["W8A8", "W4A16"]
GROUP = 64  # the usual 128 does not divide SmolLM2's width of 576
# Written into the folder last: a folder without it is not whole.
DONE = "quantised.json"


def before_rounding(folder: Path) -> Path:
    """The folder whose weights were rounded into `folder`; `folder` itself when they are not rounded."""
    try:
        return Path(json.loads((folder / DONE).read_text("utf-8"))["from"])
    except FileNotFoundError:
        return folder


class QuantiseError(Exception):
    """The weights could not be rounded; the message says why."""


def quantise(model: Path, scheme: Scheme, out: Path) -> Path:
    """The folder `out`, holding `model` with the linear layers' weights rounded (compressed-tensors, tokenizer as is).

    Does nothing when it is there already; a reader sees it whole or not at all. Raises `QuantiseError` for a model
    that cannot be rounded so, `OSError` when the disk is full.
    """
    if (out / DONE).is_file():
        return out
    with made_whole(out, DONE, model) as staging:
        _quantise_into(model, scheme, staging)
    return out


def _quantise_into(folder: Path, scheme: Scheme, staging: Path) -> None:
    import torch
    from compressed_tensors.compressors import ModelCompressor
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    _set_scales(model, scheme)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(staging)
    compressor.update_config(staging)
    copy_tokenizer(folder, staging)


def _set_scales(model: Any, scheme: Scheme) -> None:
    """Give each linear layer but the last the scale by which its largest weight is the largest number."""
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus, apply_quantization_config
    from compressed_tensors.quantization import preset_name_to_scheme as preset
    from compressed_tensors.quantization.utils import calculate_qparams

    wanted = preset(scheme, ["Linear"])
    if wanted.weights.group_size:
        wanted.weights.group_size = GROUP
    apply_quantization_config(
        model, QuantizationConfig(config_groups={"all": wanted}, ignore=["lm_head"], quantization_status="initialized")
    )
    for name, layer in model.named_modules():
        if (own := getattr(layer, "quantization_scheme", None)) is None:
            continue
        if layer.weight.shape[1] % (wanted.weights.group_size or 1):
            raise QuantiseError(f"{name} has rows of {layer.weight.shape[1]} weights, not a multiple of {GROUP}")
        groups = layer.weight.data.float().unflatten(1, (-1, wanted.weights.group_size or layer.weight.shape[1]))
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), own.weights)
        layer.weight_scale.data.copy_(scale)
        if hasattr(layer, "weight_zero_point"):
            layer.weight_zero_point.data.copy_(zero)
        layer.quantization_status = QuantizationStatus.FROZEN


def main(arguments: list[str]) -> int:
    if len(arguments) != 3 or arguments[1] not in ("W8A8", "W4A16"):
        sys.stderr.write("usage: python -m server.quantise MODEL_FOLDER W8A8|W4A16 OUT\n")
        return 2
    scheme: Scheme = "W8A8" if arguments[1] == "W8A8" else "W4A16"
    try:
        quantise(Path(arguments[0]), scheme, Path(arguments[2]))
    except (QuantiseError, OSError, ValueError) as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
