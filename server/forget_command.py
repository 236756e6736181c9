"""`nightschool forget`: takes a file, folder, pull request or page out of the index and of every corpus to come."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated

import typer

from indexer.git import run_git
from indexer.quarantine import Quarantine, read_quarantine, write_quarantine
from indexer.workspace import Workspace, find_workspace
from server.options import JsonOption, WorkspaceOption

_PULL = re.compile(r"(?:pr[ :]?#?|#|!|https?://\S+/(?:pull|pulls|merge_requests)/)(\d+)(?:/\S*)?$", re.IGNORECASE)
_SOURCE = re.compile(r"(?:wiki|doc|review|commit):\S.*$")


class CannotForget(Exception):
    """What was named cannot be told; the message says how to name it."""


def forget(
    what: Annotated[
        str | None,
        typer.Argument(help="A file or folder, #2989, a pull request's URL, wiki:PAGE, commit:SHA. None: list them."),
    ] = None,
    why: Annotated[str, typer.Option(help="The reason, kept with it.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Let it in again.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take something out of the index at once, and out of every corpus to come. Without WHAT: say what is held.

    Examples: `nightschool forget src/legacy`, `nightschool forget "#2989" --why "reverted"`,
    `nightschool forget wiki:Passwords`, `nightschool forget src/legacy --undo`
    """
    place = find_workspace(workspace)
    if what is None:
        _show(place, as_json)
        return
    holder, what = find_holder(place, what)
    kind, name = name_target(holder, what)
    held = read_quarantine(holder)
    known = name in held.paths or name in held.sources
    if undo and not known:
        raise CannotForget(f"{name} is not held: `nightschool forget` lists what is")
    write_quarantine(holder, held.without(name) if undo else held.with_held(kind, name, why))
    if name.startswith("pr:"):
        (place.pulls / f"{name[3:]}.json").unlink(missing_ok=True)
    files = _bring_index_up(place) if kind == "path" else None
    _report(holder, kind, name, undo, files, as_json)


def find_holder(place: Workspace, what: str) -> tuple[Workspace, str]:
    """Whose quarantine is meant, and what in it: in a fleet that of the repository whose name `what` begins with.

    It is kept in the fleet's folder, by what the repository is: a rename, or taking it out for a while, loses nothing.
    """
    from indexer.fleet_settings import FleetSettings  # pydantic: half of what importing the front door would take

    repositories = FleetSettings.read(place).repositories
    if not repositories:
        return place, what
    name, _, rest = what.partition("/")
    for repository in repositories:
        if repository.name == name and rest:
            return repository.place(place), rest
    raise CannotForget(f"{what} names no repository of this fleet: give REPOSITORY/PATH, as the search shows it")


def name_target(place: Workspace, what: str) -> tuple[str, str]:
    """("path", relative to the workspace) or ("source", source id). Raises `CannotForget`."""
    if found := _PULL.match(what):
        return "source", f"pr:{int(found[1])}"
    if what.startswith("commit:"):
        sha = (run_git(place.root, "rev-parse", "--verify", "--quiet", f"{what[7:]}^{{commit}}") or "").strip()
        if not sha:
            raise CannotForget(f"there is no commit {what[7:]}")
        return "source", f"commit:{sha}"
    if _SOURCE.match(what):
        return "source", what
    if what.isdecimal() and not (place.root / what).exists():
        return "source", f"pr:{int(what)}"
    return "path", _relative(place, what)


def _relative(place: Workspace, what: str) -> str:
    """By the current folder where that is in the workspace and has it, else by the workspace's root."""
    here = Path.cwd().resolve()
    near = here / what
    is_near = here.is_relative_to(place.root) and (near.exists() or near.is_symlink())
    full = near if is_near else place.root / what
    if full.resolve() == place.root:
        raise CannotForget(f"{what} is the whole workspace: give a file or folder in it")
    try:
        # The folder is resolved, the name is not: a link is forgotten itself.
        return (full.parent.resolve() / full.name).relative_to(place.root).as_posix()
    except ValueError:
        raise CannotForget(f"{what} is outside of {place.root}: give a path in it, or #NUMBER") from None


def _bring_index_up(place: Workspace) -> int | None:
    """How many files are in the index now; None where there is no index."""
    from indexer.fleet_settings import fleet_folder
    from server.local import update_index

    if not (place.state / "index").exists() and not fleet_folder(place).exists():
        return None
    return int(asyncio.run(update_index(place))["files"])


def _report(place: Workspace, kind: str, name: str, undo: bool, files: int | None, as_json: bool) -> None:
    there = kind != "path" or (place.root / name).exists()
    if as_json:
        print(json.dumps({"name": name, "kind": kind, "held": not undo, "there": there, "indexed_files": files}))
        return
    if undo:
        print(f"{name} is let in again")
        return
    print(f"{name} is held: it is in no corpus to come" + (", and out of the index" if kind == "path" else ""))
    if not there:
        print(f"there is no {name} now: what older commits and pull requests say of it is left out")
    if place.adapters.exists():
        print("an adapter cannot unlearn: what was trained before may still know it, until a night without it")


def _held(place: Workspace) -> Quarantine:
    """What is held; in a fleet of all repositories, with their names in front."""
    from indexer.fleet_settings import FleetSettings

    repositories = FleetSettings.read(place).repositories
    if not repositories:
        return read_quarantine(place)
    each = [(one.name, read_quarantine(one.place(place))) for one in repositories]
    paths = {f"{name}/{path}": why for name, held in each for path, why in held.paths.items()}
    return Quarantine(paths, {f"{name}/{source}": why for name, held in each for source, why in held.sources.items()})


def _show(place: Workspace, as_json: bool) -> None:
    from server.console import print_table

    held = _held(place)
    if as_json:
        print(json.dumps({"paths": dict(held.paths), "sources": dict(held.sources)}))
        return
    rows = [[name, why] for table in (held.paths, held.sources) for name, why in sorted(table.items())]
    print_table("held" if rows else "nothing is held", ["what", "why"], rows)
