"""Unpacked base models and what we know of each, in the cache folder: made once, atomically, by one process at a
time.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

from indexer.workspace import write_atomically

FACTS_FILE = "nightschool.json"
# Goes into the name of an unpacked folder: a change of how we unpack makes a new one instead of serving the old.
UNPACKER = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What a base model's folder says of itself; `fim` is (prefix, suffix, middle) or None."""

    sha256: str
    parameters: int
    context_length: int
    end_of_turn: str
    fim: tuple[str, str, str] | None

    @classmethod
    def from_json(cls, text: str) -> Facts:
        values = json.loads(text)
        return cls(**{**values, "fim": tuple(values["fim"]) if values["fim"] else None})


def unpacked_gguf(path: Path, cache: Path, tell: Callable[[str], None], end_of_turn: str) -> tuple[Path, Facts]:
    """The folder that `path` (a GGUF file) is unpacked to, bf16 safetensors with a mended tokenizer, and its facts.

    Raises `ValueError` when it cannot be read, `OSError` when the disk is full.
    """
    digest = _digest_once(path, cache)
    folder = cache / f"{path.stem}-{digest[:12]}-v{UNPACKER}"
    with _one_at_a_time(cache):
        if not (folder / FACTS_FILE).is_file():
            tell(f"unpacking {path.name} once into {folder} (half a minute)")
            _unpack(path, folder, digest, end_of_turn)
    return folder, Facts.from_json((folder / FACTS_FILE).read_text())


def facts_of_folder(folder: Path, cache: Path) -> Facts:
    """What `folder` (safetensors and tokenizer) says of itself; read once, then from `cache` until a file changes.

    Raises `ValueError` when it is no usable base model, naming what is missing.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ValueError("no *.safetensors in it (other weight files can run code when opened and are not read)")
    for needed in ("config.json", "tokenizer_config.json"):
        if not (folder / needed).is_file():
            raise ValueError(f"no {needed} in it")
    known = cache / "facts" / f"{_stamp(folder)}.json"
    if not known.is_file():
        digest = sha256("".join(f"{file.name} {digest_file(file)}\n" for file in weights).encode()).hexdigest()
        text = _read_in_its_own_process(["facts", str(folder), digest])
        known.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(known, text)
    return Facts.from_json(known.read_text())


def digest_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _digest_once(path: Path, cache: Path) -> str:
    known = cache / "facts" / f"{_stamp(path)}.sha256"
    if not known.is_file():
        known.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(known, digest_file(path))
    return known.read_text()


def _stamp(path: Path) -> str:
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    parts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _unpack(path: Path, folder: Path, digest: str, end_of_turn: str) -> None:
    staging = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))
    try:
        facts = _read_in_its_own_process(["unpack", str(path), str(staging), digest, end_of_turn])
        write_atomically(staging / FACTS_FILE, facts)
        if folder.exists():  # left without its facts by a hand or a broken disk
            shutil.rmtree(folder)
        staging.chmod(0o755)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _read_in_its_own_process(arguments: list[str]) -> str:
    # A gigabyte of framework and weights that the caller must not keep.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    command = [sys.executable, "-P", "-m", "server.base_model_read", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise ValueError(last[0] if last else f"reading it ended with status {done.returncode}")
    return done.stdout.splitlines()[-1]


@contextmanager
def _one_at_a_time(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
