"""Door to git for what is not here yet: a shallow clone of a repository, and its newest commit. Never asks anybody."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from indexer.child import end_group

# No prompt on the terminal, by a window, or by ssh; no protocol that runs a program or sends code in the clear.
_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "SSH_ASKPASS": "true",
    "SSH_ASKPASS_REQUIRE": "never",
    "GCM_INTERACTIVE": "never",
    "GIT_ALLOW_PROTOCOL": "https:ssh:file",
    "GIT_LFS_SKIP_SMUDGE": "1",
}
_SAFE = ["-c", "core.hooksPath=/dev/null", "-c", "submodule.recurse=false"]
_ENDS_WITHIN_S = 2.0
_FRESH = ["--depth=1", "--no-tags", "--no-recurse-submodules"]


class CannotFetch(Exception):
    """A repository cannot be cloned or fetched; the message says why, in one line."""


def bring_clone(url: str, folder: Path, timeout_s: float) -> str:
    """Make `folder` the newest commit of the default branch of `url`; that commit's hash. Raises `CannotFetch`.

    A clone is made beside `folder` and put there when it is whole: what is killed is begun anew.
    """
    if (folder / ".git").is_dir():
        _git(["fetch", *_FRESH, "--quiet", "origin", "HEAD"], folder, timeout_s)
        _git(["reset", "--hard", "--quiet", "FETCH_HEAD"], folder, timeout_s)
        _git(["clean", "-ffdxq"], folder, timeout_s)
    else:
        _clone(url, folder, timeout_s)
    return _git(["rev-parse", "HEAD"], folder, timeout_s).strip()


def _clone(url: str, folder: Path, timeout_s: float) -> None:
    staging = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _git(["clone", *_FRESH, "--quiet", "--", url, str(staging)], folder.parent, timeout_s)
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)


def _git(arguments: list[str], folder: Path, timeout_s: float) -> str:
    # ssh: only what the agent or the key files answer by themselves.
    ssh = os.environ.get("GIT_SSH_COMMAND", "ssh") + " -oBatchMode=yes"
    environment = {**os.environ, **_QUIET, "GIT_SSH_COMMAND": ssh}
    command = ["git", *_SAFE, *arguments]
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise CannotFetch(f"git cannot be started: {error.strerror}") from error
    with process:  # closes its pipes
        try:
            out, said = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise CannotFetch(f"git {arguments[0]} took longer than [fleet] git_timeout_s = {timeout_s:g}") from error
        finally:
            if process.poll() is None:  # its helpers (git-remote-https, ssh) too
                end_group(process, _ENDS_WITHIN_S)
    if process.returncode != 0:
        raise CannotFetch(f"git {arguments[0]} failed: {_reason(said)}")
    return out.decode("utf-8", "replace")


def _reason(said: bytes) -> str:
    """git's own last word on it, on one line."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    first = next(
        (line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "no message"
    )
    return first.removeprefix("fatal: ").removeprefix("error: ")[:300]
