"""What both ends of a child process of ours agree on: stdout is the events' alone, and no child outlives its parent.

The one way to end a group of processes. Engines end theirs from inside (`server/engine_guard.py`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any, TextIO


def event_stream() -> TextIO:
    """The stdout we were given, line by line; from now on what anything else prints goes to stderr."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return events


def end_with_parent() -> None:
    """On Linux: when the parent is killed, so are we (prctl PR_SET_PDEATHSIG). Ctrl-C is the parent's: it ends our
    group.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def end_group(process: subprocess.Popen[Any], grace_s: float = 10.0) -> None:
    """End `process`, the leader of a group of its own, with all that it started: asked first, killed after `grace_s`.

    Both signals go out even where the leader has ended already: what it left behind is to end too.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(grace_s)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def kill_group(group: int) -> None:
    """SIGKILL for all of a process group; one that is gone, or is somebody else's by now, is left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
