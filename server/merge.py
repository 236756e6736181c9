"""Merging an adapter into its base model, in a process of its own: `python -m server.merge BASE ADAPTER OUT`.

On a CPU the engine serves the merged folder: vLLM's LoRA there gathers the adapter per token, and at rank 512 a
prefill of 256 tokens took 38 s where the merged layer took 0.4 s.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from server.adapter import MANIFEST
from server.adapter_files import check_files, digests
from server.model_folder import copy_tokenizer, made_whole

# Written into the folder last: a folder without it is not whole.
DONE = "merged.json"


class MergeError(Exception):
    """The adapter could not be merged; the message says why."""


def merge(base: Path, adapter: Path, out: Path) -> Path:
    """The folder `out`, holding the base model with the adapter merged in (bf16 safetensors, tokenizer).

    Does nothing when it is there already; a reader sees it whole or not at all. Raises `MergeError` when the adapter
    does not fit, `OSError` when the disk is full.
    """
    if (out / DONE).is_file():
        return out
    if fault := check_files(adapter) or _what_changed(adapter):
        raise MergeError(f"{adapter}: {fault}")
    with made_whole(out, DONE, base) as staging:
        _merge_into(base, adapter, staging)
    return out


def _what_changed(adapter: Path) -> str:
    """The files that are not those that were made, as the manifest has them: a damaged byte is no shorter file."""
    try:
        made = json.loads((adapter / MANIFEST).read_text("utf-8"))["files"]
    except FileNotFoundError:  # not of a registry
        return ""
    changed = [name for name, digest in digests(adapter).items() if made.get(name) != digest]
    return f"changed since it was made: {', '.join(changed)}" if changed else ""


def _merge_into(base: Path, adapter: Path, staging: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    # Added in float32 and rounded once at the end: adding in bf16 loses what is below 1/256 of a weight.
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    try:
        merged = PeftModel.from_pretrained(model, adapter, local_files_only=True).merge_and_unload()
    except (RuntimeError, ValueError) as error:
        raise MergeError(f"{adapter.name} does not fit {base.name}: {str(error).splitlines()[0]}") from error
    merged.to(torch.bfloat16).save_pretrained(staging)
    copy_tokenizer(base, staging)


def main(arguments: list[str]) -> int:
    if len(arguments) != 3:
        sys.stderr.write("usage: python -m server.merge BASE_FOLDER ADAPTER_FOLDER OUT\n")
        return 2
    try:
        merge(*map(Path, arguments))
    except (MergeError, OSError) as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
