"""What the doctor says of a fleet: a line for each repository that is not as it should be, and one for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from indexer.fleet_settings import FleetSettings
from indexer.workspace import Workspace
from server.client import Json
from server.doctor import Finding

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")


def look_at_fleet(fleet: Workspace, status: Json, instances: Path = INSTANCES) -> Iterator[Finding]:
    """`status` is what `GET /fleet` and `nightschool fleet status --json` give."""
    rows = status["repositories"]
    bad = [finding for row in rows if (finding := _look_at(row)) is not None]
    yield from bad
    files, chunks = (sum(row.get(number, 0) for row in rows) for number in ("files", "chunks"))
    said = f"{len(rows) - len(bad)} of {len(rows)} repositories are as they should be; {files} files, {chunks} chunks"
    yield Finding("fleet", not bad, said, "look at the lines above; `nightschool fleet sync` brings all up to date")
    folders = sum(not one.is_cloned for one in FleetSettings.read(fleet).repositories)
    yield _watched(folders, instances)


def _look_at(row: Json) -> Finding | None:
    name = f"repository {row['name']}"
    todo = f"nightschool fleet sync {row['name']}"
    if row["fault"]:
        return Finding(name, False, row["fault"], f"then {todo}, or nightschool fleet remove {row['name']}")
    if not row["files"]:
        return Finding(name, False, "nothing is indexed of it", f"{todo}; is this the repository?")
    if waiting := row["waiting_files"] + row["waiting_chunks"]:
        return Finding(name, False, f"{waiting} files and chunks wait to be indexed", todo)
    return None


def _watched(folders: int, instances: Path) -> Finding:
    """Each folder takes one of the system's inotify instances; where there are none left, it is read every minute."""
    try:
        most = int(instances.read_text())
    except (OSError, ValueError):
        return Finding("watched folders", True, f"{folders}; this system has no limit on them that we know of")
    said = f"{folders} folders, {most} allowed for all your programs"
    todo = f"sudo sysctl fs.inotify.max_user_instances={max(1024, 2 * folders)}; until then they are read every minute"
    return Finding("watched folders", folders < most, said, todo)
