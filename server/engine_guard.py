"""The parent process of an engine: no engine outlives the backend, however the backend ends.

Run as `python -m server.engine_guard GRACE_S COMMAND ...` at the head of a process group of its own, with a pipe from
the backend as standard input. When the pipe closes (the backend ended or was killed) or SIGTERM comes, the whole group
is asked to end and after GRACE_S seconds killed. vLLM's own children survive a SIGKILL of vLLM (vllm issue 55510),
not one of the group.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1


def main(grace_s: float, command: list[str]) -> int:
    """Run `command` until it ends (its exit code is ours) or until the backend is gone (then 0)."""
    asked_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked_to_end.append(number))
    # Should this guard be killed, the kernel tells vLLM, which then ends its own children.
    libc = ctypes.CDLL(None)
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    )
    while child.poll() is None and not asked_to_end:
        readable, _, _ = select.select([0], [], [], 0.2)
        if readable and not os.read(0, 1):
            break
    if (code := child.poll()) is None:
        _end_group(child, grace_s)
        return 0
    _kill_group_but_us()
    return code


def _end_group(child: subprocess.Popen[bytes], grace_s: float) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    _kill_group_but_us()


def _kill_group_but_us() -> None:
    """SIGKILL for everybody else in the group: EngineCore and its workers, when vLLM itself is gone already."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - standard library only, and this is no path work
        if name.isdigit() and int(name) != os.getpid():
            try:
                if os.getpgid(int(name)) == os.getpgrp():
                    os.kill(int(name), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
