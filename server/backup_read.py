"""Reading a backup: every member is checked as it passes, and at the end all of them against the inventory."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from server.backup_format import FILES, FORMAT, HEAD, MOST_RECORD_BYTES, BackupError, Entry, Head, Inventory, belongs

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Contents:
    """What a backup says of itself, and what is in it."""

    head: Head
    inventory: Inventory


Keep = Callable[[str, int, Iterator[bytes]], None]  # a file's name, its mode, its bytes: read all of them


def read_backup(file: Path, keep: Keep) -> Contents:
    """Hand every file of the backup to `keep`, in order; what it holds is only known to be right when this returns.

    Raises `BackupError` for an archive that is no backup, of a newer format, cut off, or changed since it was made.
    """
    head: Head | None = None
    inventory: Inventory | None = None
    found: dict[str, Entry] = {}
    with _opened(file) as tar:
        for member in _members(file, tar):
            if head is None:
                head = _read_head(file, tar, member)
            elif inventory is not None:
                raise BackupError(f"{file}: {member.name!r} stands behind its end")
            elif member.name == FILES:
                inventory = _read_inventory(file, tar, member)
            else:
                _check_member(file, member, found)
                found[member.name] = _pass_on(tar, member, keep, file)
    if head is None or inventory is None:
        raise BackupError(f"{file} is cut off: its last record is missing")
    if wrong := [name for name in {*found, *inventory.files} if found.get(name) != inventory.files.get(name)]:
        raise BackupError(f"{file}: changed since it was made: {', '.join(sorted(wrong)[:3])}")
    return Contents(head, inventory)


def skip(name: str, mode: int, pieces: Iterator[bytes]) -> None:
    """A `Keep` that keeps nothing: for looking only."""
    for _ in pieces:
        pass


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        raw = file.open("rb")
    except OSError as error:
        raise BackupError(f"{file} cannot be read: {error.strerror}") from error
    with raw, _reading(file, "is no backup of nightschool"), tarfile.open(fileobj=raw, mode="r:gz") as tar:
        yield tar


@contextmanager
def _reading(file: Path, fault: str = "is cut off or damaged") -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise BackupError(f"{file} {fault}: {error}") from error


def _members(file: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while True:
        with _reading(file):
            member = tar.next()
        if member is None:
            break
        yield member
    with _reading(file):  # to the end of the stream, where gzip's own sum stands
        while tar.fileobj is not None and tar.fileobj.read(_PIECE_BYTES):
            pass


def _read_head(file: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Head:
    if member.name != HEAD:
        raise BackupError(f"{file} is no backup of nightschool: it begins with {member.name!r}")
    try:
        head = Head.model_validate_json(_record(file, tar, member))
    except ValidationError as error:
        raise BackupError(f"{file}: {HEAD} cannot be read: {error.errors()[0]['msg']}") from error
    if head.format > FORMAT:
        raise BackupError(
            f"{file} has format {head.format} ({head.program}); this nightschool reads up to {FORMAT}: update it first"
        )
    return head


def _read_inventory(file: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Inventory:
    try:
        return Inventory.model_validate_json(_record(file, tar, member))
    except ValidationError as error:
        raise BackupError(f"{file}: {FILES} cannot be read: {error.errors()[0]['msg']}") from error


def _record(file: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isreg() or member.size > MOST_RECORD_BYTES:
        raise BackupError(f"{file}: {member.name} is no record of a backup")
    return b"".join(_pieces(file, tar, member))


def _check_member(file: Path, member: tarfile.TarInfo, found: dict[str, Entry]) -> None:
    # The names that belong have no "..", no leading "/" and nothing that a file system reads otherwise.
    if not member.isreg():
        raise BackupError(f"{file}: {member.name!r} is no plain file")
    if not belongs(member.name):
        raise BackupError(f"{file}: {member.name!r} does not belong in a backup")
    if member.name in found:
        raise BackupError(f"{file}: {member.name!r} is in it twice")


def _pass_on(tar: tarfile.TarFile, member: tarfile.TarInfo, keep: Keep, file: Path) -> Entry:
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for piece in _pieces(file, tar, member):
            digest.update(piece)
            yield piece

    # What the standard library itself would refuse is refused too.
    with _reading(file, f"holds {member.name!r}, which cannot be unpacked"):
        tarfile.data_filter(member, "/nowhere")
    keep(member.name, member.mode, pieces())
    return Entry(sha256=digest.hexdigest(), bytes=member.size)


def _pieces(file: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    stream: IO[bytes] | None = tar.extractfile(member)
    assert stream is not None
    with stream:
        while True:
            with _reading(file):
                piece = stream.read(_PIECE_BYTES)
            if not piece:
                return
            yield piece
