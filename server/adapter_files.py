"""The files of an adapter folder: which belong there, and whether they are whole. Reads bytes, opens no pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.base_model_cache import digest_file

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_SUFFIXES = {".safetensors", ".json", ".jsonl", ".md", ".html"}
_HEADER_BYTES = 100_000_000  # the safetensors format's own limit
# What vLLM refuses to load as an adapter, and what would need code of the model's own (vllm 0.33, lora/peft_helper.py).
_REFUSED: dict[str, tuple[Any, ...]] = {
    "use_dora": (True,),
    "modules_to_save": (),
    "auto_mapping": (),
    "layer_replication": (),
}


def check_files(folder: Path) -> str:
    """What is wrong with the files of `folder`; empty when nothing is."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            return f"{path.name} is not a plain file"
        if path.suffix not in _SUFFIXES:
            return f"{path.name} does not belong there: only safetensors, JSON and reports do"
    return check_config(folder / CONFIG) or check_safetensors(folder / WEIGHTS)


def check_config(path: Path) -> str:
    """What is wrong with a peft `adapter_config.json`; empty when nothing is."""
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return f"no {path.name}"
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return f"{path.name} is not JSON: {error}"
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        return f"{path.name} is not that of a LoRA adapter"
    if not isinstance(config.get("r"), int) or not 1 <= config["r"] <= 4096:
        return f"{path.name}: r is {config.get('r')!r}, not a rank"
    for field, allowed in _REFUSED.items():
        if config.get(field) and (not allowed or config[field] in allowed):
            return f"{path.name}: {field} is set, which cannot be served"
    return ""


def check_safetensors(path: Path) -> str:
    """What is wrong with a safetensors file, from its header and length; empty when nothing is."""
    try:
        ends = [entry.end for entry in read_header(path).values()]
    except FileNotFoundError:
        return f"no {path.name}"
    except ValueError as error:
        return str(error)
    if not ends:
        return f"{path.name} holds no weights"
    if path.stat().st_size != max(ends):
        return f"{path.name} is cut off or damaged: {path.stat().st_size} bytes, not {max(ends)}"
    return ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor's bytes lie in its file."""

    start: int
    end: int


def read_header(path: Path) -> dict[str, Place]:
    """The tensors of a safetensors file, by name. Raises `ValueError` where it is none, `OSError`.

    Format: u64 little-endian length of a JSON header, the header, then the data its offsets cover exactly.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _HEADER_BYTES:
                raise ValueError("no header")
            header = json.loads(file.read(length))
        offsets = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
        return {name: Place(8 + length + int(start), 8 + length + int(end)) for name, (start, end) in offsets.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path.name} is no safetensors file") from error


def updates_something(path: Path) -> bool:
    """Is anything but zeros in the adapter's second matrices? Training starts with zeros there: no update."""
    with path.open("rb") as file:
        for name, place in read_header(path).items():
            if ".lora_B." in name:
                file.seek(place.start)
                if any(file.read(place.end - place.start)):
                    return True
    return False


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that are served, by name; reports may be added later and are not covered."""
    return {name: digest_file(folder / name) for name in (CONFIG, WEIGHTS) if (folder / name).is_file()}
