"""`nightschool fleet ...`: many repositories in one workspace. What is heavy is imported where it is needed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer.workspace import Workspace, find_workspace
from server.options import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from server.fleet_sync import Synced

fleet_app = typer.Typer(no_args_is_help=True, help="Many repositories served together: [fleet] in nightschool.toml.")


@fleet_app.command("add")
def fleet_add(
    name: Annotated[str, typer.Argument(help="What it is called here, and what its paths begin with.")],
    source: Annotated[str, typer.Argument(help="A git URL (https, ssh, file), or a folder, which is only read.")],
    group: Annotated[str, typer.Option(help="What belongs together.")] = "",
    workspace: WorkspaceOption = None,
) -> None:
    """Add a repository to nightschool.toml; `nightschool fleet sync` brings it here and indexes it.

    Examples: `nightschool fleet add app ../app`, `nightschool fleet add web https://example.org/acme/web.git`
    """
    from indexer.fleet_file import add_repository
    from indexer.fleet_settings import make_repository

    place = find_workspace(workspace)
    repository = make_repository(name, source, group)
    if not repository.is_cloned:
        repository = make_repository(name, _folder(source, place), group)
    add_repository(place, repository)
    print(f"added {name}: `nightschool fleet sync {name}` indexes it")


@fleet_app.command("list")
def fleet_list(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """The repositories of the fleet, as nightschool.toml has them."""
    from indexer.fleet_settings import FleetSettings
    from server.console import print_table

    repositories = FleetSettings.read(find_workspace(workspace)).repositories
    if as_json:
        print(json.dumps({"repositories": [one.model_dump() for one in repositories]}))
        return
    title = f"{len(repositories)} repositories" if repositories else "none yet: nightschool fleet add NAME SOURCE"
    print_table(title, ["name", "group", "source"], [[one.name, one.group, one.source] for one in repositories])


@fleet_app.command("remove")
def fleet_remove(name: str, workspace: WorkspaceOption = None) -> None:
    """Take a repository out, with its index and its clone; a folder that is served where it lies is left alone.

    Example: `nightschool fleet remove app`
    """
    from indexer.fleet_file import remove_repository

    place = find_workspace(workspace)
    remove_repository(place, name)
    _tidy(place)
    print(f"removed {name}")


@fleet_app.command("rename")
def fleet_rename(old: str, new: str, workspace: WorkspaceOption = None) -> None:
    """Give a repository another name; nothing is read or embedded again.

    Example: `nightschool fleet rename app shop`
    """
    from indexer.fleet_file import rename_repository

    place = find_workspace(workspace)
    rename_repository(place, old, new)
    _tidy(place)
    print(f"{old} is {new} now")


@fleet_app.command("sync")
def fleet_sync(
    names: Annotated[list[str] | None, typer.Argument(help="Only these; default: all.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Clone or fetch every repository and index it. What fails is listed with its reason, and the rest is done.

    Interrupted, it goes on where it stopped. Exit code 1: something failed. git asks nothing: what it cannot do with
    its own credentials fails.

    Examples: `nightschool fleet sync`, `nightschool fleet sync app --json`
    """
    from server.console import progress
    from server.fleet_sync import sync

    with progress("fleet") as advance:
        synced = asyncio.run(sync(find_workspace(workspace), names or [], advance))
    failed = [one for one in synced if one.fault]
    if as_json:
        print(json.dumps({"repositories": [asdict(one) for one in synced], "failed": len(failed)}))
    else:
        _show_synced(synced, failed)
    raise typer.Exit(1 if failed else 0)


@fleet_app.command("status")
def fleet_status(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """How fresh each repository's index is, and what cannot be asked. Exit code 1: something cannot.

    Examples: `nightschool fleet status`, `nightschool fleet status --json`
    """
    from server.console import print_table
    from server.fleet_sync import read_status

    status = asyncio.run(read_status(find_workspace(workspace)))
    if as_json:
        print(json.dumps(status))
    else:
        rows = [_status_row(row) for row in status["repositories"]]
        print_table(f"{len(rows)} repositories", ["name", "group", "commit", "files", "chunks", "waiting", ""], rows)
    raise typer.Exit(1 if status["failed"] else 0)


def _folder(source: str, place: Workspace) -> str:
    """The folder as the settings name it: relative to the fleet's where it lies in it."""
    folder = Path(source).expanduser().resolve()
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is no folder: give one, or a git URL (https://, ssh://, git@host:path)")
    return folder.relative_to(place.root).as_posix() if folder.is_relative_to(place.root) else str(folder)


def _status_row(row: dict[str, Any]) -> list[str]:
    if row["fault"]:
        return [row["name"], row["group"], "", "", "", "", row["fault"]]
    waiting = row["waiting_files"] + row["waiting_chunks"]
    numbers = [str(row["files"]), str(row["chunks"]), str(waiting)]
    dirty = f"{row['dirty_files']} changed file(s)" if row["dirty_files"] else ""
    return [row["name"], row["group"], (row["commit"] or "")[:12], *numbers, dirty]


def _show_synced(synced: Sequence[Synced], failed: Sequence[Synced]) -> None:
    from server.console import print_table

    good = [one for one in synced if not one.fault]
    rows = [[o.name, o.commit[:12], str(o.files), str(o.chunks), str(o.embedded), f"{o.seconds:.1f}"] for o in good]
    if good:
        print_table(f"{len(good)} synced", ["name", "commit", "files", "chunks", "embedded now", "seconds"], rows)
    if failed:
        print_table(f"{len(failed)} failed", ["name", "why"], [[one.name, one.fault] for one in failed])


def _tidy(place: Workspace) -> None:
    """Let the fleet see its new settings: through the running backend, or here."""
    from server.fleet_sync import reload

    asyncio.run(reload(place))
