"""What both ends of a child process of ours agree on: stdout is the events' alone, and no child outlives its parent."""

from __future__ import annotations

import os
import signal
import sys
from typing import TextIO


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
