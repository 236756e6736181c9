"""`nightschool backup`: what cannot be made again, in one file. A backend and a night may go on meanwhile."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

import psutil

from indexer.fleet_settings import fleet_folder
from indexer.quarantine import QUARANTINE_FILE
from indexer.workspace import STATE_FOLDER, Workspace
from server.adapter import POINTER, AdapterError, find_adapter, find_broken, list_adapters, read_current
from server.backup_format import (
    AUDIT_FILES,
    FILES,
    FLEET,
    FORMAT,
    GENERATED_FILE,
    HEAD,
    NIGHT_RECORD,
    REPOSITORY_ID,
    SINGLE_FILES,
    BackupError,
    Entry,
    Head,
    Inventory,
    is_inside,
    mode_of,
)
from server.feedback import FEEDBACK_FILE, Feedback

# Weights hardly shrink (bfloat16: by a fifth), and level 1 takes a quarter of the time of level 6.
_LEVEL = 1
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What was written: `bytes` of the archive, how many `files`; `notices`: what is not in it, and why.

    `adapters`: versions; of a fleet's repository with its id and "/" in front.
    """

    file: Path
    bytes: int
    files: int
    adapters: tuple[str, ...]
    notices: tuple[str, ...]


def make_backup(
    workspace: Workspace, file: Path, with_generated: bool = False, tell: Callable[[str], None] = lambda _: None
) -> BackupReport:
    """Write the backup of `workspace` to `file`, whole or not at all, readable by its owner only.

    An adapter that is broken is left out, with a notice. Raises `BackupError`, and `FeedbackError` for a database that
    cannot be read.
    """
    _refuse_bad_place(workspace, file)
    with (
        _replacing(file) as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_LEVEL, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        archive = _Archive(tar)
        notices = _write(workspace, archive, with_generated, tell)
    kept = Inventory(files=archive.entries)
    adapters = [f"{state}/{version}" for state in kept.states() for version in kept.adapters(state)]
    adapters = [name.removeprefix(f"{FLEET}/").removeprefix(f"{STATE_FOLDER}/") for name in adapters]
    return BackupReport(file, file.stat().st_size, len(kept.files), tuple(adapters), tuple(notices))


def _refuse_bad_place(workspace: Workspace, file: Path) -> None:
    if not file.parent.is_dir():
        raise BackupError(f"{file.parent} is no directory: make it first")
    if is_inside(file, workspace.state):
        raise BackupError(f"{file} lies in {workspace.state}, which it is a backup of: write it elsewhere")
    if file.is_dir() or (file.exists() and not _begins_like_ours(file)):
        raise BackupError(f"{file} is there and is no backup: give another name, or remove it")


def _begins_like_ours(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(2) == _GZIP


def _write(workspace: Workspace, archive: _Archive, with_generated: bool, tell: Callable[[str], None]) -> list[str]:
    """All of it, in order; returns what was left out and why."""
    program = f"nightschool {metadata.version('nightschool')}"
    made = datetime.now(UTC).replace(microsecond=0)
    archive.put(HEAD, Head(format=FORMAT, made_at=made, workspace=workspace.root.name, program=program))
    notices = _write_state(workspace, STATE_FOLDER, archive, with_generated, tell)
    for id in _repositories(workspace):
        tell(f"repository {id}")
        kept = Workspace(workspace.root, fleet_folder(workspace) / id)
        notices += [f"{id}: {said}" for said in _write_state(kept, f"{FLEET}/{id}", archive, with_generated, tell)]
    tell("settings, the team")
    for name in SINGLE_FILES:
        _write_file(workspace.root / name, name, archive)
    _write_audit(workspace, archive)
    archive.put(FILES, Inventory(files=archive.entries))
    return notices


def _repositories(workspace: Workspace) -> list[str]:
    """The ids of all that something is kept of, those that left the fleet too: what they hold must not come back."""
    folder = fleet_folder(workspace)
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and REPOSITORY_ID.fullmatch(path.name))


def _write_state(
    place: Workspace, state: str, archive: _Archive, with_generated: bool, tell: Callable[[str], None]
) -> list[str]:
    """What `place.state` keeps, as `state` in the archive; returns what was left out and why."""
    # Before the adapters: the one in service now is in the list that is made next.
    pointer, notices = _read_pointer(place)
    notices += _write_adapters(place, state, archive, tell)
    if pointer is not None:
        archive.add(f"{state}/adapters/{POINTER}", pointer)
    if (feedback := Feedback(place).copy()) is not None:
        archive.add(f"{state}/{FEEDBACK_FILE}", feedback, 0o600)
    _write_file(place.state / QUARANTINE_FILE, f"{state}/{QUARANTINE_FILE}", archive)
    kinds = [("nights", NIGHT_RECORD), *([("generated", GENERATED_FILE)] if with_generated else [])]
    for folder, kind in kinds:
        for name in _names(place.state / folder, kind):
            _write_file(place.state / folder / name, f"{state}/{folder}/{name}", archive)
    return notices


def _write_file(file: Path, name: str, archive: _Archive) -> None:
    if file.is_file():
        with file.open("rb") as opened:
            archive.add_open(name, opened)


def _write_audit(workspace: Workspace, archive: _Archive) -> None:
    """The audit log and those before it, to the last whole line: one may be written meanwhile."""
    with ExitStack() as stack:
        # All opened first: they change names when the newest is full.
        files = [(name, workspace.root / name) for name in AUDIT_FILES]
        opened = [(name, stack.enter_context(file.open("rb"))) for name, file in files if file.is_file()]
        for name, each in opened:
            raw = each.read()
            archive.add(name, raw[: raw.rfind(b"\n") + 1], 0o600)


def _read_pointer(place: Workspace) -> tuple[bytes | None, list[str]]:
    """`current.json` as it stands, if what it names can be served."""
    try:
        raw = (place.adapters / POINTER).read_bytes()
        if (current := read_current(place.adapters)) is not None:
            find_adapter(place.adapters, current.version, digest=True)
    except FileNotFoundError:
        return None, []
    except AdapterError as error:
        return None, [f"which adapter is in service is left out: {error}"]
    return raw, []


def _write_adapters(place: Workspace, state: str, archive: _Archive, tell: Callable[[str], None]) -> list[str]:
    left_out = dict(find_broken(place.adapters))
    for adapter in list_adapters(place.adapters):
        tell(f"adapter {adapter.version}")
        try:
            find_adapter(place.adapters, adapter.version, digest=True)
            with ExitStack() as stack:
                # All opened first: one that is pruned meanwhile is still whole.
                names = sorted(path.name for path in adapter.folder.iterdir() if not path.name.startswith("."))
                opened = {name: stack.enter_context((adapter.folder / name).open("rb")) for name in names}
                for name, each in opened.items():
                    archive.add_open(f"{state}/adapters/{adapter.version}/{name}", each)
        except (AdapterError, FileNotFoundError) as error:
            left_out[adapter.version] = str(error)
    return [f"adapter {version} is left out: {fault}" for version, fault in left_out.items()]


def _names(folder: Path, kind: re.Pattern[str]) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if kind.fullmatch(path.name))
    except FileNotFoundError:
        return []


@dataclass(slots=True)
class _Archive:
    """The tar that is being written, and what is in it."""

    tar: tarfile.TarFile
    entries: dict[str, Entry] = field(default_factory=dict)

    def put(self, name: str, record: Head | Inventory) -> None:
        """A record of the archive itself."""
        raw = record.model_dump_json(indent=1).encode()
        self.tar.addfile(_member(name, len(raw), 0o644), io.BytesIO(raw))

    def add(self, name: str, raw: bytes, mode: int = 0o644) -> None:
        self._add(name, io.BytesIO(raw), len(raw), mode)

    def add_open(self, name: str, opened: BinaryIO) -> None:
        """A file as it was when it was opened: whoever writes one of ours puts a new one in its place."""
        about = os.fstat(opened.fileno())
        self._add(name, opened, about.st_size, mode_of(name, about.st_mode))

    def _add(self, name: str, source: BinaryIO, length: int, mode: int) -> None:
        hashed = _Hashed(source)
        self.tar.addfile(_member(name, length, mode), hashed)  # type: ignore[arg-type]
        self.entries[name] = Entry(sha256=hashed.digest.hexdigest(), bytes=length)


def _member(name: str, length: int, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = length, mode
    return member


class _Hashed:
    """Reads, and hashes what is read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, most: int) -> bytes:
        piece = self._source.read(most)
        self.digest.update(piece)
        return piece


@contextmanager
def _replacing(file: Path) -> Iterator[BinaryIO]:
    """A new file, its owner's alone, that takes the place of `file` when all of it is on the disk."""
    _sweep(file)
    staging = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
            yield raw
            raw.flush()
            os.fsync(raw.fileno())
        staging.replace(file)
    except OSError as error:
        why = (
            f"cannot be written: {error.strerror}"
            if error.filename in (None, str(staging))
            else f"is not made: {error}"
        )
        raise BackupError(f"{file} {why}; what was there is untouched") from error
    finally:
        staging.unlink(missing_ok=True)


def _sweep(file: Path) -> None:
    """Remove what a killed backup to the same file left."""
    for left in file.parent.glob(f".{file.name}.*.tmp"):
        number = left.name.removesuffix(".tmp").rpartition(".")[2]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            left.unlink(missing_ok=True)
