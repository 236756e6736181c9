"""`nightschool fleet night`. What is heavy is imported where it is needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.child import end_with_parent
from indexer.workspace import Workspace, find_workspace
from trainer.front import Front, JsonOption, WorkspaceOption
from trainer.night_command import run_one

if TYPE_CHECKING:
    from trainer.fleet_night import Ended, Outcome, Waiting

HEAD = ["repository", "outcome", "lines", "minutes", "reason"]


class NoSuchRepository(Exception):
    """The fleet has none of this name, or none at all; the message says what to do."""


def add_fleet_night(app: typer.Typer, front: Front) -> None:
    """Register the command with those of the fleet."""

    @app.command()
    def night(
        workspace: WorkspaceOption = None,
        hours: Annotated[float, typer.Option(min=0.1, help="HOURS of this machine for all nights together.")] = 6.0,
        only: Annotated[str, typer.Option(help="The night of this repository alone, here and now.")] = "",
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print the order and its cost, and do nothing.")
        ] = False,
        as_json: JsonOption = False,
        for_queue: Annotated[bool, typer.Option("--for-queue", hidden=True)] = False,
    ) -> None:
        """Nights of the fleet's repositories, one after another, the most changed first, until the hours are used.

        One that fails does not stop the others. Interrupted or killed, the next call goes on with the hours that were
        left. The exit code is 0 when no night failed, and 1 when one did.

        Examples: `nightschool fleet night --dry-run`, `nightschool fleet night --hours 8 --json`
        """
        fleet = find_workspace(workspace)
        if only:
            if for_queue:
                end_with_parent()
            run_one(front, place_of(fleet, only), force=False, as_json=as_json)
            return
        outcomes = _planned(fleet, hours) if dry_run else _run(fleet, hours)
        if as_json:
            print(json.dumps({"hours": hours, "planned": dry_run, "outcomes": [asdict(one) for one in outcomes]}))
        else:
            front.print_table("what would be done" if dry_run else "nights", HEAD, [_row(one) for one in outcomes])
        raise typer.Exit(any(one.outcome == "failed" for one in outcomes))


def places(fleet: Workspace) -> dict[str, Workspace]:
    """Where each repository of the fleet is, by name; the fleet's settings count for all. Raises `NoSuchRepository`."""
    from indexer.fleet_settings import FleetSettings

    found = FleetSettings.read(fleet).repositories
    if not found:
        raise NoSuchRepository(f"{fleet.settings_file} has no repositories in [fleet]: nightschool fleet add")
    # A repository's own nightschool.toml is not obeyed: it could name addresses that code would be sent to.
    return {one.name: replace(one.place(fleet), settings_folder=fleet.root) for one in found}


def place_of(fleet: Workspace, name: str) -> Workspace:
    """Where the repository called `name` is. Raises `NoSuchRepository`."""
    known = places(fleet)
    if name not in known:
        raise NoSuchRepository(f"the fleet has no repository {name}; it has {', '.join(sorted(known))}")
    return known[name]


def _waiting(fleet: Workspace) -> tuple[list[Waiting], int]:
    from trainer.fleet_repository import waiting_of
    from trainer.settings import TrainerSettings

    settings = TrainerSettings.read(fleet)
    return [waiting_of(name, place, settings) for name, place in places(fleet).items()], settings.min_changed_lines


def _planned(fleet: Workspace, hours: float) -> Sequence[Outcome]:
    from trainer.fleet_night import plan

    waiting, min_lines = _waiting(fleet)
    return plan(waiting, hours, min_lines)


def _run(fleet: Workspace, hours: float) -> Sequence[Outcome]:
    from trainer.fleet_night import Queue, run_queue
    from trainer.fleet_repository import night_process

    known = places(fleet)
    waiting, min_lines = _waiting(fleet)

    def run_night(name: str, minutes: float) -> Ended:
        command = [sys.executable, "-P", "-m", "nightschool", "fleet", "night", "--only", name, "--for-queue"]
        command += ["--workspace", str(fleet.root)]
        return night_process(command, known[name], fleet.logs / f"night-{name}.log", minutes)

    return run_queue(Queue(fleet, run_night, _say), waiting, hours, min_lines).outcomes


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _row(one: Outcome) -> list[str]:
    return [one.name, one.outcome, str(one.lines), f"{one.minutes:.1f}", one.reason]
