"""The workspace: the root folder whose code is indexed, and the folder in it that is ours."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

STATE_FOLDER = ".nightschool"
SETTINGS_FILE = "nightschool.toml"
NIGHT_LOCK = "night.lock"


class NotAWorkspace(Exception):
    """There is no folder to work on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A resolved root, and where nightschool keeps its own files below it (git ignores them).

    A repository of a fleet is only read: its files of ours are in `state_folder`, elsewhere; `settings_folder` is the
    fleet's. Its own nightschool.toml is not obeyed: it could name addresses that code would be sent to.
    """

    root: Path
    state_folder: Path | None = None
    settings_folder: Path | None = None

    @property
    def state(self) -> Path:
        return self.state_folder or self.root / STATE_FOLDER

    @property
    def adapters(self) -> Path:
        return self.state / "adapters"

    @property
    def corpus(self) -> Path:
        return self.state / "corpus"

    @property
    def pulls(self) -> Path:
        """Pull requests as they were fetched, one file each."""
        return self.state / "sources" / "pulls"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def night_lock(self) -> Path:
        """Held by a night, a sweep or a restore while it works here."""
        return self.state / NIGHT_LOCK

    @property
    def settings_file(self) -> Path:
        return (self.settings_folder or self.root) / SETTINGS_FILE

    def make_state_folder(self) -> Path:
        """`.nightschool/`, readable by its owner only, with a `.gitignore` that keeps all of it out of git."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = self.state / ".gitignore"
        if not ignore.exists():
            write_atomically(ignore, "*\n")
        return self.state


def find_workspace(path: Path | None = None) -> Workspace:
    """The workspace at `path`, or without one the nearest folder upwards with `nightschool.toml` or `.git`.

    Raises `NotAWorkspace` when `path` is no directory. Where nothing is found upwards, the current folder it is.
    """
    if path is not None:
        if not path.is_dir():
            kind = "is not a directory" if path.exists() else "does not exist"
            raise NotAWorkspace(f"{path} {kind}: give the folder of a repository")
        return Workspace(path.resolve())
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / SETTINGS_FILE).is_file() or (folder / ".git").exists():
            return Workspace(folder)
    return Workspace(here)


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace `path` by `text` (UTF-8): a reader sees the old file or the new one, also after a power cut."""
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
