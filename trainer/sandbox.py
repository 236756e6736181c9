"""The repository's own tests, run on a copy that is thrown away: in a time limit, without the user's environment, and
without a network where the system has that to give.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from indexer.child import end_group
from trainer.sources.history import History

# A network of its own that has nobody in it but the machine itself, and a process tree that ends as one.
_ALONE = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
_WITH_LOOPBACK = ("sh", "-c", 'ip link set lo up 2>/dev/null; exec "$@"', "sh")
_KEPT = ("PATH", "LANG", "LC_ALL")

Outcome = Literal["passed", "failed", "too long"]


@dataclass(frozen=True, slots=True)
class Ran:
    """How one run of the tests ended, how long it took, and the last line that it printed."""

    outcome: Outcome
    seconds: float
    last_line: str


@dataclass(frozen=True, slots=True)
class Checkout:
    """The repository at one commit, in a folder of ours. `inside` is where the workspace lies in it. Tests run in a
    copy of it, a new one each time: what they, or a body that a model wrote, leave behind meets nobody."""

    folder: Path
    inside: str

    def read(self, path: str) -> bytes:
        """The file at `path`, relative to the workspace. Raises `OSError`."""
        return (self.folder / self.inside / path).read_bytes()

    def run(self, command: str, limit_s: float, changed: tuple[str, str] | None = None) -> Ran:
        """Run `command` in a copy in which the file `changed[0]` says `changed[1]`."""
        with TemporaryDirectory(prefix="nightschool-test-", ignore_cleanup_errors=True) as scratch:
            copy = Path(shutil.copytree(self.folder, Path(scratch) / self.folder.name, symlinks=True))
            if changed is not None:
                (copy / self.inside / changed[0]).write_bytes(changed[1].encode())
            return _run(command, copy / self.inside, Path(scratch), limit_s)


@contextmanager
def checked_out(root: Path, commit: str) -> Iterator[Checkout]:
    """The repository of the workspace at `root` as it is at `commit`; the user's own is only read.

    Raises `NoHistory`.
    """
    with TemporaryDirectory(prefix="nightschool-checkout-", ignore_cleanup_errors=True) as folder:
        place = Path(folder) / root.name
        yield Checkout(place, History(root).clone(commit, place))


@cache
def keeps_from_network() -> bool:
    """Can the tests be kept from the network here? (Linux, where user namespaces are allowed.)"""
    try:
        return subprocess.run([*_ALONE, "true"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _run(command: str, folder: Path, scratch: Path, limit_s: float) -> Ran:
    alone = (*_ALONE, *_WITH_LOOPBACK) if keeps_from_network() else ()
    began = time.monotonic()
    with (scratch / "output").open("w+b") as output:
        try:
            process = subprocess.Popen(
                [*alone, *shlex.split(command)], cwd=folder, env=_environment(scratch), stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Ran("failed", 0.0, f"{error.strerror}: {error.filename}")
        try:
            outcome: Outcome = "passed" if process.wait(limit_s) == 0 else "failed"
        except subprocess.TimeoutExpired:
            outcome = "too long"
        finally:
            end_group(process, 2)
        seconds = time.monotonic() - began
        output.seek(max(0, output.seek(0, 2) - 2_000))
        lines = [line for line in output.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return Ran(outcome, seconds, lines[-1].strip()[:200] if lines else "it said nothing")


def _environment(scratch: Path) -> dict[str, str]:
    """No secret of the user's is in it, and no setting: a home and a temporary folder of its own."""
    for name in ("home", "tmp"):
        (scratch / name).mkdir()
    return {
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        # A body of the same length written in the same second would be taken for the compiled one.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
