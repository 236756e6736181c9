"""`nightschool night`. What is heavy is imported where it is needed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer

from indexer.workspace import Workspace, find_workspace
from trainer.front import Front, JsonOption, WorkspaceOption


def add_night(app: typer.Typer, front: Front) -> None:
    """Register the command."""

    @app.command()
    def night(
        workspace: WorkspaceOption = None,
        budget: Annotated[float | None, typer.Option(min=0.1, help="MINUTES of training; default: [trainer].")] = None,
        force: Annotated[bool, typer.Option("--force", help="Also when too little has changed.")] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print the plan and its cost, and do nothing.")
        ] = False,
        as_json: JsonOption = False,
    ) -> None:
        """One night: collect, train, prove on newer code, then promote or refuse. Killed, it goes on where it stopped.

        Examples: `nightschool night --dry-run`; in cron `30 2 * * * nightschool night --workspace REPO --budget 30`
        """
        if budget is not None:
            os.environ["NIGHTSCHOOL_TRAINER__BUDGET_MINUTES"] = str(budget)
        place = find_workspace(workspace)
        if dry_run:
            _print_plan(front, place, as_json)
            return
        _run(front, place, force, as_json)


def _print_plan(front: Front, place: Workspace, as_json: bool) -> None:
    from trainer.night import plan_night
    from trainer.settings import TrainerSettings

    plan = asdict(plan_night(place, TrainerSettings.read(place), front.base_model(place)))
    lines = (f"{name.replace('_', ' ')}: {value}" for name, value in plan.items())
    print(json.dumps(plan) if as_json else "\n".join(lines))


def _run(front: Front, place: Workspace, force: bool, as_json: bool) -> None:
    from trainer.night import Workshop, run_night
    from trainer.promote import table
    from trainer.settings import TrainerSettings

    base = front.base_model(place)
    with front.watch("night") as tell:
        report = run_night(
            Workshop(place, TrainerSettings.read(place), base, tell),
            force=force,
            check_engine=lambda adapter: front.check_engine(place, base, adapter),
        )
    if as_json:
        print(report.to_json())
        return
    print(f"{report.outcome}: {report.reason or report.version}")
    if report.verdict:
        front.print_table("verdict", ["rule", "measured", ""], table(report.verdict))
        print(f"report: {place.adapters / report.version / 'report.html'}")
