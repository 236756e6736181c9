"""Where the files of a workspace lie: in a fleet the first part of a path is a repository, which may be anywhere."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from indexer.workspace import Workspace


def file_of(workspace: Workspace, path: str) -> Path:
    """The file that `path` of the index names."""
    name, _, rest = path.partition("/")
    root = dict(repository_roots(workspace)).get(name)
    return root / rest if root is not None else workspace.root / path


def path_of(workspace: Workspace, file: Path) -> str | None:
    """What the index of `workspace` calls `file` (a real path); None when it does not lie in it."""
    roots = repository_roots(workspace)
    holding = [(len(root.parts), name, root) for name, root in roots if file.is_relative_to(root)]
    if holding:
        _, name, root = max(holding)
        return f"{name}/{file.relative_to(root).as_posix()}"
    return file.relative_to(workspace.root).as_posix() if file.is_relative_to(workspace.root) else None


def repository_roots(workspace: Workspace) -> tuple[tuple[str, Path], ...]:
    """Name and folder of each repository of a fleet; () elsewhere, and where the settings cannot be read."""
    try:
        status = workspace.settings_file.stat()
        if b"fleet" not in workspace.settings_file.read_bytes():
            return ()
    except OSError:
        return ()
    return _read_roots(workspace, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _read_roots(workspace: Workspace, mtime_ns: int, size: int) -> tuple[tuple[str, Path], ...]:
    # Here, because an editor waits for the language server to start, and settings are a second's import.
    from indexer.fleet_settings import FleetSettings
    from indexer.settings import BadSettings

    try:
        repositories = FleetSettings.read(workspace).repositories
    except BadSettings:
        return ()
    return tuple((one.name, one.place(workspace).root) for one in repositories)
