"""One owner of an index at a time: two processes on one embedded Chroma leave it unusable (tried, chromadb 1.5.9)."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class IndexUnavailable(Exception):
    """The index cannot be opened or used; the message says why and is fit to show."""


class NotReadable(IndexUnavailable):
    """Who asks may read nothing of this index."""


# A POSIX lock belongs to the process: a second opener in the same one would get it too, and lose it for both.
_owned_here: set[Path] = set()
_guard = threading.Lock()


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Own `folder` until left. Raises `IndexUnavailable`, at once, when another process (or this one) owns it."""
    folder = folder.resolve()
    with _guard:
        if folder in _owned_here:
            raise IndexUnavailable(f"this process (pid {os.getpid()}) has the index in {folder} open already")
        _owned_here.add(folder)
    try:
        with (folder / "lock").open("a+") as file:
            _take(file.fileno(), folder)
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
            yield
    finally:
        with _guard:
            _owned_here.discard(folder)


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise IndexUnavailable(
            f"process {pid} is using the index of this workspace: ask through it (nightschool serve), or end it first"
        ) from error
