"""The quarantine: paths and sources that a person took out of the index and of every corpus to come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from indexer.workspace import STATE_FOLDER, Workspace, write_atomically

QUARANTINE_FILE = "quarantine.json"
_VERSION = 1


class BadQuarantine(Exception):
    """The quarantine cannot be read, so nothing may be: what it holds must not come back."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What is held, each with the reason that was given ("" without one).

    `paths` are files or folders relative to the workspace, "/"; `sources` are source ids (`pr:2989`, `wiki:Home`).
    """

    paths: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def holds_path(self, path: str) -> bool:
        """Is `path`, or a folder above it, held?"""
        if not self.paths:
            return False
        parts = path.split("/")
        return any("/".join(parts[:count]) in self.paths for count in range(1, len(parts) + 1))

    def holds_source(self, source_id: str) -> bool:
        """Is the source held: it itself, the pull request that a review belongs to, the path of a page or file?"""
        if source_id in self.sources:
            return True
        kind, _, name = source_id.partition(":")
        if kind == "review":
            return f"pr:{name.partition('#')[0]}" in self.sources
        return kind in ("doc", "file") and self.holds_path(name)

    def with_held(self, kind: str, name: str, why: str = "") -> Quarantine:
        """This and `name` (kind "path" or "source")."""
        added = {name: why}
        if kind == "path":
            return Quarantine({**self.paths, **added}, self.sources)
        return Quarantine(self.paths, {**self.sources, **added})

    def without(self, name: str) -> Quarantine:
        """This without the path or source `name`."""
        paths = {path: why for path, why in self.paths.items() if path != name}
        return Quarantine(paths, {source: why for source, why in self.sources.items() if source != name})


def read_quarantine(workspace: Workspace) -> Quarantine:
    """What is held now; read anew when its file changed, else a look at its time. Raises `BadQuarantine`.

    In a repository of a fleet also what is held where it lies.
    """
    held = _read(workspace.state / QUARANTINE_FILE)
    if workspace.state_folder is None:
        return held
    there = _read(workspace.root / STATE_FOLDER / QUARANTINE_FILE)
    return Quarantine({**there.paths, **held.paths}, {**there.sources, **held.sources})


def _read(file: Path) -> Quarantine:
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return Quarantine()
    return _parse(file, status.st_mtime_ns, status.st_ino, status.st_size)


def write_quarantine(workspace: Workspace, quarantine: Quarantine) -> None:
    """Replace what is held."""
    held = {"paths": dict(sorted(quarantine.paths.items())), "sources": dict(sorted(quarantine.sources.items()))}
    text = json.dumps({"version": _VERSION, **held}, ensure_ascii=False, indent=1)
    write_atomically(workspace.make_state_folder() / QUARANTINE_FILE, f"{text}\n", mode=0o600)


@lru_cache(maxsize=512)
def _parse(file: Path, mtime_ns: int, inode: int, size: int) -> Quarantine:
    try:
        values = json.loads(file.read_text("utf-8"))
        if values["version"] != _VERSION:
            raise ValueError(f"version {values['version']}")
        return Quarantine(_strings(values["paths"]), _strings(values["sources"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadQuarantine(f"{file} cannot be read ({error}): mend it or delete it") from error


def _strings(table: object) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(item, str) for pair in table.items() for item in pair):
        raise ValueError("not a table of names and reasons")
    return table
