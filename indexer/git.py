"""What git says about a workspace as a whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

_TIMEOUT_S = 20
# A repository's own configuration could name a program for git to run (fsmonitor); another user's may be indexed.
_SAFE = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "safe.directory=*"]


def run_git(root: Path, *arguments: str) -> str | None:
    """What git prints; None when it fails, or there is no git."""
    try:
        run = subprocess.run([*_SAFE, *arguments], cwd=root, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return run.stdout.decode("utf-8", "replace") if run.returncode == 0 else None


def head_commit(root: Path) -> str | None:
    """The full hash of HEAD; None without git or before the first commit."""
    return (run_git(root, "rev-parse", "HEAD") or "").strip() or None


def commit_and_dirty(root: Path) -> tuple[str | None, int]:
    """The full hash of HEAD (None without git or before the first commit), and how many files differ from it or are
    neither tracked nor ignored. One process: asked after every answer, two took twice as long."""
    options = ("--porcelain=v2", "--branch", "--no-ahead-behind", "-z", "--no-renames", "--untracked-files=all")
    head, dirty = "", 0
    for entry in (run_git(root, "status", *options, "--", ".") or "").split("\0"):
        if entry.startswith("# branch.oid "):
            head = entry.removeprefix("# branch.oid ")
        dirty += bool(entry) and not entry.startswith("# ")
    return (None, 0) if head in ("", "(initial)") else (head, dirty)


def ignored_by(root: Path, path: str) -> str | None:
    """`file:line:pattern` of the rule by which git ignores `path`; None when it does not."""
    said = run_git(root, "check-ignore", "-v", "--", path)
    return said.split("\t")[0] if said else None


def day_of_last_change(root: Path, path: str) -> str:
    """The day (ISO) of the last commit that changed `path`; "" without git or before its first commit."""
    return (run_git(root, "log", "-1", "--format=%cs", "--", path) or "").strip()
