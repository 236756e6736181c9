"""The registry of adapters: folders that never change, and one pointer. A contract: the trainer writes, the server
reads.

`<adapters>/<version>/` holds adapter_model.safetensors, adapter_config.json, manifest.json and reports;
`current.json` says which version is in service. Nothing here opens a pickle or imports a framework.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel as Model
from pydantic import ConfigDict, Field, ValidationError

from indexer.workspace import write_atomically
from server.adapter_files import check_files, digests
from server.base_model import BaseModel

log = logging.getLogger(__name__)

VERSION_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
POINTER = "current.json"
MANIFEST = "manifest.json"


class AdapterError(Exception):
    """An adapter cannot be had or served; the message says why."""


class UnknownAdapter(AdapterError):
    """There is no adapter of that version; the message lists those there are."""


class BrokenAdapter(AdapterError):
    """An adapter folder is not one we serve; the message says what is wrong with it."""


class _Strict(Model):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainedOn(_Strict):
    """The base model an adapter fits: it is served on these weights and on no others."""

    name: str
    revision: str
    sha256: str


class DataCounts(_Strict):
    """What was in the training data: examples and tokens by kind, files, and what was held out."""

    files: int = 0
    raw_examples: int = 0
    chat_examples: int = 0
    raw_tokens: int = 0
    chat_tokens: int = 0
    held_out_files: int = 0
    held_out_examples: int = 0
    corpus: str = ""
    corpus_sha256: str = ""


class Losses(_Strict):
    """Cross entropy in nats a token; None where it was not measured. `held_out_*` on files never trained on."""

    train_first: float | None = None
    train: float | None = None
    held_out_before: float | None = None
    held_out_after: float | None = None


class Manifest(_Strict):
    """What is in an adapter folder and where it came from (`manifest.json`)."""

    version: str = Field(pattern=VERSION_PATTERN)
    created_at: datetime
    commit: str = ""
    base_model: TrainedOn
    prompt_version: int
    data: DataCounts = DataCounts()
    hyper_parameters: dict[str, str | int | float | bool | None] = {}
    losses: Losses = Losses()
    steps: int = 0
    seconds: float = 0
    tokens: int = 0
    notices: tuple[str, ...] = ()
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA weights and config that fit one base model, with what is known of them."""

    version: str
    folder: Path
    manifest: Manifest

    def misfit(self, base: BaseModel, prompt_version: int) -> str:
        """Why it cannot be served on `base` with prompts of `prompt_version`; empty when it can."""
        made_for, version = self.manifest.base_model, self.manifest.prompt_version
        if made_for.sha256 != base.sha256:
            wanted, here = f"{made_for.name} ({made_for.sha256[:12]})", f"{base.name} ({base.sha256[:12]})"
            return f"adapter {self.version} was trained on {wanted}, not on {here}"
        if version != prompt_version:
            return f"adapter {self.version} was trained with prompt version {version}, now it is {prompt_version}"
        return ""


def new_version(adapters: Path, commit: str, now: datetime) -> str:
    """A version that no folder of `adapters` has yet: time (UTC), commit."""
    stem = "-".join(filter(None, (now.astimezone(UTC).strftime("%Y-%m-%d-%H%M"), re.sub(r"[^a-z0-9]", "", commit)[:7])))
    taken = {folder.name for folder in adapters.iterdir()} if adapters.is_dir() else set()
    return next(name for name in (stem, *(f"{stem}-{count}" for count in range(2, 10_000))) if name not in taken)


def finish_adapter(staging: Path, adapters: Path, manifest: Mapping[str, Any]) -> Adapter:
    """Make the folder `staging` (on the same disk) an adapter of the registry: manifest last, then one rename.

    `manifest` is all of `Manifest` but `files`. Raises `BrokenAdapter` when there is something in the folder that
    does not belong.
    """
    whole = Manifest.model_validate({**manifest, "files": digests(staging)})
    write_atomically(staging / MANIFEST, whole.model_dump_json(indent=2))
    folder = adapters / whole.version
    _check(staging)
    staging.chmod(0o755)
    staging.rename(folder)
    return Adapter(whole.version, folder, whole)


def find_adapter(adapters: Path, version: str, *, digest: bool = False) -> Adapter:
    """One adapter, checked against the schema (with `digest`: each file's sha256 too).

    Raises `UnknownAdapter`, and `BrokenAdapter` for a folder that holds anything but safetensors, JSON and reports, or
    whose weights are cut off or changed.
    """
    if not re.fullmatch(VERSION_PATTERN, version) or not (adapters / version).is_dir():
        known = ", ".join(adapter.version for adapter in list_adapters(adapters)) or "there are none yet"
        raise UnknownAdapter(f"no adapter {version!r}; known: {known}")
    folder = adapters / version
    manifest = _check(folder)
    if manifest.version != version:
        raise BrokenAdapter(f"{folder}: its manifest is of {manifest.version}")
    if digest and (changed := [name for name, value in digests(folder).items() if manifest.files.get(name) != value]):
        raise BrokenAdapter(f"{folder}: changed since it was made: {', '.join(changed)}")
    return Adapter(version, folder, manifest)


def list_adapters(adapters: Path) -> list[Adapter]:
    """The sound adapters, newest first; what is wrong with the others is logged, and told by `find_broken`."""
    found, broken = _read_all(adapters)
    for version, fault in broken.items():
        log.warning("adapter %s is left out: %s", version, fault)
    return sorted(found, key=lambda adapter: (adapter.manifest.created_at, adapter.version), reverse=True)


def find_broken(adapters: Path) -> dict[str, str]:
    """The folders of the registry that are no sound adapter, and why."""
    return _read_all(adapters)[1]


def read_current(adapters: Path) -> Adapter | None:
    """The adapter in service; None: the base model is. Raises `UnknownAdapter` or `BrokenAdapter` when it cannot be
    read.
    """
    version = _read_pointer(adapters)["version"]
    return None if version is None else find_adapter(adapters, version)


def pointer_stamp(adapters: Path) -> int:
    """Another number whenever something was put in service; 0 while nothing was."""
    try:
        return (adapters / POINTER).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def promote(adapters: Path, version: str) -> Adapter:
    """Put `version` in service; where it is already, the engine that refused it tries again.

    Raises `UnknownAdapter`, and `BrokenAdapter` when a file is not the one that was made.
    """
    adapter = find_adapter(adapters, version, digest=True)
    pointer = _read_pointer(adapters)
    before = [pointer["version"], *pointer["previous"]] if pointer["version"] != version else pointer["previous"]
    _write_pointer(adapters, version, before)
    return adapter


def rollback(adapters: Path) -> Adapter | None:
    """Put the version before this one in service again; None: that is the base model.

    Versions that are gone or broken meanwhile are passed over, with a warning in the log.
    """
    previous = list(_read_pointer(adapters)["previous"])
    while previous:
        version = previous.pop(0)
        try:
            adapter = None if version is None else find_adapter(adapters, version, digest=True)
        except (UnknownAdapter, BrokenAdapter) as error:
            log.warning("passed over on the way back: %s", error)
            continue
        _write_pointer(adapters, version, previous)
        return adapter
    _write_pointer(adapters, None, [])
    return None


def prune(adapters: Path, keep: int, *, dry_run: bool = False) -> list[str]:
    """Delete all but the newest `keep` adapters; never the one in service nor the one before it. Says which went, or
    would go."""
    pointer = _read_pointer(adapters)
    kept = {pointer["version"], *pointer["previous"][:1]}
    old = [adapter for adapter in list_adapters(adapters)[keep:] if adapter.version not in kept]
    for adapter in old if not dry_run else ():
        shutil.rmtree(adapter.folder)
    return [adapter.version for adapter in old]


def _read_all(adapters: Path) -> tuple[list[Adapter], dict[str, str]]:
    found: list[Adapter] = []
    broken: dict[str, str] = {}
    for folder in sorted(adapters.iterdir()) if adapters.is_dir() else ():
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        try:
            found.append(Adapter(folder.name, folder, _check(folder)))
        except BrokenAdapter as error:
            broken[folder.name] = str(error)
    return found, broken


def _check(folder: Path) -> Manifest:
    if fault := check_files(folder):
        raise BrokenAdapter(f"{folder}: {fault}")
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise BrokenAdapter(f"{folder}: no {MANIFEST}: it was not finished") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise BrokenAdapter(f"{folder}: {MANIFEST}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _read_pointer(adapters: Path) -> dict[str, Any]:
    try:
        pointer = json.loads((adapters / POINTER).read_text("utf-8"))
        version, previous = pointer["version"], pointer["previous"]
    except FileNotFoundError:
        return {"version": None, "previous": []}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise BrokenAdapter(
            f"{adapters / POINTER} cannot be read ({error}): delete it to serve the base model"
        ) from error
    return {"version": version, "previous": previous}


def _write_pointer(adapters: Path, version: str | None, previous: list[str | None]) -> None:
    pointer = {"version": version, "previous": previous, "changed_at": datetime.now(UTC).isoformat(timespec="seconds")}
    adapters.mkdir(parents=True, exist_ok=True)
    write_atomically(adapters / POINTER, json.dumps(pointer, indent=2))
