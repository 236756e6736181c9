"""`nightschool sweep`. What is heavy is imported where it is needed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.workspace import find_workspace
from trainer.front import Front, JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from trainer.sweep import SweepReport, Tried


def add_sweep(app: typer.Typer, front: Front) -> None:
    """Register the command."""

    @app.command()
    def sweep(
        workspace: WorkspaceOption = None,
        trials: Annotated[int, typer.Option(min=2, max=1000, help="How many to try, those of earlier runs too.")] = 12,
        minutes: Annotated[float, typer.Option(min=0.1, help="MINUTES of training for each.")] = 3.0,
        final: Annotated[bool, typer.Option(help="At the end train once on all data with the best.")] = True,
        as_json: JsonOption = False,
    ) -> None:
        """Look for the learning rate, rank, alpha and batch that suit this repository, by held-out loss.

        Ended early, it goes on where it stopped. What it trains at the end is kept, not put in service.

        Examples: `nightschool sweep`, `nightschool sweep --trials 20 --minutes 5 --no-final`
        """
        from trainer.settings import TrainerSettings
        from trainer.stages import Workshop
        from trainer.sweep import sweep as run_sweep

        place = find_workspace(workspace)
        base = front.base_model(place)
        with front.watch("sweep") as tell:
            workshop = Workshop(place, TrainerSettings.read(place), base, tell, rest=front.rest(place))
            report = run_sweep(workshop, trials, minutes, final=final)
        if as_json:
            print(json.dumps(_facts(report)))
            return
        head = ["", "loss", "learning rate", "rank", "alpha ratio", "rows a step", "", "seconds"]
        front.print_table("trials, the best first", head, [_row(trial, report.best) for trial in _by_loss(report)])
        print(f"picture: {report.folder / 'parallel.svg'}\n\nIn nightschool.toml:\n{to_settings(report.best)}")
        if report.adapter:
            print(f"trained on all data, not in service: {report.adapter.version}")


def to_settings(best: Tried) -> str:
    """The chosen values as they stand in `nightschool.toml`."""
    choice = best.choice
    return (
        f"[trainer]\nlearning_rate = {choice.learning_rate:.3g}\nrank = {choice.rank}\nalpha = {choice.alpha}\n"
        f"rows_per_step = {choice.rows_per_step}\n"
    )


def _by_loss(report: SweepReport) -> list[Tried]:
    order = {"whole": 0, "pruned": 1, "failed": 2}
    return sorted(report.trials, key=lambda trial: (order[trial.state], trial.loss or 0.0))


def _row(trial: Tried, best: Tried) -> list[str]:
    choice = trial.choice
    loss = "-" if trial.loss is None else f"{trial.loss:.4f}"
    mark = f"{trial.number}{' *' if trial.number == best.number else ''}"
    values = [f"{choice.learning_rate:.2e}", str(choice.rank), f"{choice.alpha_ratio:g}", str(choice.rows_per_step)]
    return [mark, loss, *values, trial.state, f"{trial.seconds:.0f}"]


def _facts(report: SweepReport) -> dict[str, object]:
    return {
        "folder": str(report.folder),
        "best": asdict(report.best),
        "trials": [asdict(trial) for trial in report.trials],
        "adapter": report.adapter.version if report.adapter else None,
    }
