"""One night, sweep or training at a time in a workspace: a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from indexer.workspace import Workspace


class NightBusy(Exception):
    """Another night, sweep or training is running in this workspace."""


@contextmanager
def only_one(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace for a night, a sweep or a training. Raises `NightBusy`."""
    workspace.make_state_folder()
    with workspace.night_lock.open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NightBusy(
                f"a night is running in {workspace.root}, or a training or sweep: wait for it, or end it"
            ) from None
        yield
