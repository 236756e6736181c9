"""Units for systemd: the backend as a service, the nights as a timer. Text only; nothing here is run or installed."""

from __future__ import annotations

import getpass
import shlex
import sys
from collections.abc import Sequence
from datetime import time
from pathlib import Path

from indexer.workspace import Workspace

# What the backend needs to write: its own folder, and below the home of its user the caches of models and compilers.
CACHES = ("~/.cache", "~/.triton")
_SERVICE = """\
[Unit]
Description=nightschool for {root}
After=network.target
StartLimitIntervalSec=600
StartLimitBurst=5

[Service]
Type=exec
User={user}
ExecStart={command}
Restart=on-failure
RestartSec=5
# The backend ends its engine itself; what is left after a minute is killed.
KillMode=mixed
TimeoutStopSec=60
# An engine that takes too much memory is ended alone: the backend serves on without it, and starts it again.
OOMPolicy=continue
# A bound for backend, engine and nights together; docs/operate.md says what they take.
#MemoryMax=12G
UMask=0077
NoNewPrivileges=true
ProtectSystem=strict
ReadWritePaths={writable}
PrivateTmp=true
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectControlGroups=true
ProtectClock=true
ProtectHostname=true
RestrictSUIDSGID=true
RestrictNamespaces=true
RestrictRealtime=true
LockPersonality=true
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
CapabilityBoundingSet=

[Install]
WantedBy=multi-user.target
"""


def night_command(workspace: Workspace) -> list[str]:
    """What runs one night of `workspace`, whatever folder it is started in."""
    return [sys.executable, "-P", "-m", "nightschool", "night", "--workspace", str(workspace.root)]


def night_units(workspace: Workspace, at: time) -> tuple[str, str, str]:
    """The name of the units, the service and the timer, as text."""
    root = _escaped(str(workspace.root))
    service = (
        f"[Unit]\nDescription=A night of nightschool in {root}\n\n"
        f"[Service]\nType=oneshot\nExecStart={_command(night_command(workspace))}\n"
        "Nice=10\nIOSchedulingClass=idle\nTimeoutStartSec=12h\n"
    )
    timer = (
        f"[Unit]\nDescription=When the nights of {root} begin\n\n"
        # Persistent: a night missed because the machine was off is made up for.
        f"[Timer]\nOnCalendar=*-*-* {at:%H:%M}:00 UTC\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
    )
    return f"nightschool-{_name(workspace)}", service, timer


def backend_unit(workspace: Workspace, options: Sequence[str] = ()) -> tuple[str, str]:
    """The name and the text of a system service that runs `nightschool serve` with `options`, as the user who asks.

    Only `.nightschool` and the caches can be written by it: a bug cannot change the code that it reads.
    """
    command = [sys.executable, "-P", "-m", "nightschool", "serve", "--workspace", str(workspace.root), *options]
    # A "-" before a path: it need not be there. `.nightschool` must: run `nightschool index` first.
    caches = [f"-{Path(cache).expanduser()}" for cache in CACHES]
    text = _SERVICE.format(
        root=_escaped(str(workspace.root)),
        user=getpass.getuser(),
        command=_command(command),
        writable=" ".join(map(_quoted, [str(workspace.state), *caches])),
    )
    return f"nightschool-serve-{_name(workspace)}", text


def cron_lines(workspace: Workspace, at: time) -> str:
    """Lines for a crontab."""
    # cron ends a command at a bare percent sign.
    command = shlex.join(night_command(workspace)).replace("%", "\\%")
    return f"CRON_TZ=UTC\n{at.minute} {at.hour} * * * {command}\n"


def _name(workspace: Workspace) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in workspace.root.name)


def _command(words: Sequence[str]) -> str:
    """Words of a command, in which alone systemd reads `$`."""
    return " ".join(_quoted(word.replace("$", "$$")) for word in words)


def _escaped(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ")


def _quoted(word: str) -> str:
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"' if any(c in word for c in " \t'\"\\;") else plain
