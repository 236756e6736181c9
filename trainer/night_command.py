"""`nightschool night`. What is heavy is imported where it is needed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated, Literal

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
        systemd: Annotated[bool, typer.Option("--systemd", help="Print a timer and its service.")] = False,
        cron: Annotated[bool, typer.Option("--cron", help="Print a line for a crontab.")] = False,
        at: Annotated[str, typer.Option(help="With --systemd or --cron: HH:MM in UTC; default: [trainer].")] = "",
        as_json: JsonOption = False,
    ) -> None:
        """One night: collect, train, prove on newer code, then promote or refuse. Killed, it goes on where it stopped.

        The exit code is 0 when the night ended, whatever it decided, and 1 when it failed.

        Examples: `nightschool night --dry-run`, `(crontab -l; nightschool night --cron --at 02:30) | crontab -`
        """
        if budget is not None:
            os.environ["NIGHTSCHOOL_TRAINER__BUDGET_MINUTES"] = str(budget)
        place = find_workspace(workspace)
        if systemd or cron:
            _print_schedule(place, at, "systemd" if systemd else "cron")
            return
        if dry_run:
            _print_plan(front, place, as_json)
            return
        run_one(front, place, force, as_json)


def _print_schedule(place: Workspace, at: str, form: Literal["systemd", "cron"]) -> None:
    from trainer.schedule import read_time
    from trainer.settings import TrainerSettings
    from trainer.units import cron_lines, night_units

    when = read_time(at or TrainerSettings.read(place).nightly or "02:30")
    if form == "cron":
        print(cron_lines(place, when), end="")
        return
    name, service, timer = night_units(place, when)
    folder = "~/.config/systemd/user"
    print(f"# {folder}/{name}.service\n{service}\n# {folder}/{name}.timer\n{timer}")
    print(f"# then: systemctl --user daemon-reload && systemctl --user enable --now {name}.timer")


def _print_plan(front: Front, place: Workspace, as_json: bool) -> None:
    from trainer.night import Workshop, plan_night
    from trainer.settings import TrainerSettings

    workshop = Workshop(
        place, TrainerSettings.read(place), front.base_model(place), lambda _: None, rest=front.rest(place)
    )
    plan = asdict(plan_night(workshop))
    lines = (f"{name.replace('_', ' ')}: {value}" for name, value in plan.items())
    print(json.dumps(plan) if as_json else "\n".join(lines))


def run_one(front: Front, place: Workspace, force: bool, as_json: bool) -> None:
    """Run a night of `place` here and show what became of it."""
    from trainer.night import Workshop, run_and_record
    from trainer.promote import table
    from trainer.settings import TrainerSettings

    base = front.base_model(place)
    with front.watch("night") as tell:
        workshop = Workshop(
            place, TrainerSettings.read(place), base, tell,
            generator=front.generator(place, base), judge=front.judge(place), rest=front.rest(place),
            check_engine=lambda adapter: front.check_engine(place, base, adapter),
        )  # fmt: skip
        report = run_and_record(workshop, force=force)
    if as_json:
        print(report.to_json())
        return
    print(f"{report.outcome}: {report.reason or report.version}")
    if report.verdict:
        front.print_table("verdict", ["rule", "measured", ""], table(report.verdict))
        print(f"report: {place.adapters / report.version / 'report.html'}")
