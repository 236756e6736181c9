"""The sweep, with a model built in the process: it searches, prunes, goes on, and trains once more with the best."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.workspace import Workspace
from server.adapter import find_adapter, read_current
from server.base_model import BaseModel
from trainer.job import HeldOut, Stage, TrainingError, TrainingEvent, TrainingJob
from trainer.ledger import read_ledger
from trainer.presets import find_preset
from trainer.process import Job, Runner
from trainer.settings import TrainerSettings
from trainer.stages import Workshop, collect
from trainer.sweep import PROBES, Choice, search_space, sweep
from trainer.sweep_command import to_settings

SETTINGS = TrainerSettings(
    max_steps=8, row_tokens=128, example_tokens=128, rank=8, alpha=8, learning_rate=1e-2, rows_per_step=2,
    backend="trl", held_out_tokens=300, held_out_share=0.3, chat_share=0.5,
)  # fmt: skip
CODE = "def total_{0}(prices):\n    return sum(prices) + {0}\n\n\n"


@pytest.fixture
def workshop(git_workspace: tuple[Path, Callable[..., str]], tiny_base: BaseModel, in_this_process: Runner) -> Workshop:
    root, commit = git_workspace
    commit(1, {f"shop/prices_{number}.py": CODE.format(number) * 6 for number in range(12)})
    made = Workshop(Workspace(root), SETTINGS, tiny_base, lambda _: None, in_this_process)
    collect(made)
    return made


def test_a_sweep_finds_better_values_than_a_bad_start_and_trains_with_them(workshop: Workshop) -> None:
    asked: list[float | None] = []

    @contextmanager
    def rest(minutes: float) -> Iterator[str]:
        asked.append(minutes)
        yield ""
        asked.append(None)

    slow = replace(workshop, settings=SETTINGS.model_copy(update={"learning_rate": 1e-3}), rest=rest)
    report = sweep(slow, trials=6, trial_minutes=5)
    assert asked == [30, None]
    assert [trial.number for trial in report.trials] == list(range(6))
    first = report.trials[0]
    assert first.choice == Choice(1e-3, 8, 1.0, 2)
    assert report.best.loss is not None
    assert first.loss is not None
    assert report.best.loss < first.loss
    assert report.adapter is not None
    made = find_adapter(slow.workspace.adapters, report.adapter.version).manifest
    assert made.hyper_parameters["learning_rate"] == report.best.choice.learning_rate
    assert made.hyper_parameters["rank"] == report.best.choice.rank
    assert made.hyper_parameters["learn_validation"] is True
    assert read_current(slow.workspace.adapters) is None
    facts = json.loads((report.folder / "trials.json").read_text())
    assert [trial["number"] for trial in facts["trials"]] == list(range(6))
    picture = (report.folder / "parallel.svg").read_text()
    assert "<svg" in picture
    assert "learning_rate" in picture
    assert not list(report.folder.glob("trial-*/adapters"))
    # Asked again, nothing is tried or trained again.
    assert sweep(replace(slow, runner=never), trials=6, trial_minutes=5) == report


def never(job: Job, on_event: Callable[[TrainingEvent], None], module: str) -> None:
    raise AssertionError("nothing was left to do")


def test_a_sweep_that_was_killed_goes_on_and_tries_the_broken_trial_again(workshop: Workshop) -> None:
    class Killed(BaseException):
        pass

    run: list[TrainingJob] = []

    def counting(job: Job, on_event: Callable[[TrainingEvent], None], module: str) -> None:
        assert isinstance(job, TrainingJob)
        run.append(job)
        workshop.runner(job, on_event, module)

    def stop(event: TrainingEvent) -> None:
        if isinstance(event, Stage) and event.text.startswith("trial 3"):
            raise Killed

    counted = replace(workshop, runner=counting)
    with pytest.raises(Killed):
        sweep(replace(counted, tell=stop), trials=4, trial_minutes=5, final=False)
    assert len(run) == 2

    def die(job: Job, on_event: Callable[[TrainingEvent], None], module: str) -> None:
        assert isinstance(job, TrainingJob)
        run.append(job)
        raise Killed

    with pytest.raises(Killed):
        sweep(replace(workshop, runner=die), trials=4, trial_minutes=5, final=False)
    broken = run[-1].preset
    report = sweep(counted, trials=4, trial_minutes=5, final=False)
    assert run[3].preset == broken
    assert len(run) == 5
    assert len(report.trials) == 4
    again = sweep(counted, trials=4, trial_minutes=5, final=False)
    assert again == report
    assert len(run) == 5


def test_a_trial_that_is_clearly_worse_is_ended_early(workshop: Workshop) -> None:
    """The losses are told, not trained: the fourth trial is worse than all before it from its first probe on."""
    ended: list[int] = []

    def told(job: Job, on_event: Callable[[TrainingEvent], None], module: str) -> None:
        number = int(job.run.name.removeprefix("trial-"))
        for probe in range(1, PROBES):
            on_event(HeldOut("during", 9.0 if number == 3 else 1.0 - number / 100, 100, probe / PROBES))
        on_event(HeldOut("after", 0.5 - number / 100, 100))
        ended.append(number)

    report = sweep(replace(workshop, runner=told), trials=5, trial_minutes=5, final=False)
    assert [trial.state for trial in report.trials] == ["whole", "whole", "whole", "pruned", "whole"]
    assert report.trials[3].loss == 9.0
    assert ended == [0, 1, 2, 4]
    assert report.best.number == 4


def test_a_trial_that_diverges_is_one_failed_trial(workshop: Workshop) -> None:
    def fails(job: Job, on_event: Callable[[TrainingEvent], None], module: str) -> None:
        if job.run.name == "trial-1":
            raise TrainingError("the loss is nan at step 3: lower [trainer] learning_rate")
        on_event(HeldOut("after", 1.0, 100))

    report = sweep(replace(workshop, runner=fails), trials=3, trial_minutes=5, final=False)
    assert [(trial.state, trial.loss) for trial in report.trials] == [("whole", 1.0), ("failed", None), ("whole", 1.0)]

    def all_fail(job: Job, on_event: Callable[[TrainingEvent], None], module: str) -> None:
        raise TrainingError("out of memory")

    with pytest.raises(TrainingError, match="out of memory"):
        sweep(replace(workshop, runner=all_fail), trials=3, trial_minutes=6, final=False)


def test_without_held_out_files_there_is_nothing_to_choose_by(
    git_workspace: tuple[Path, Callable[..., str]], tiny_base: BaseModel, in_this_process: Runner
) -> None:
    root, commit = git_workspace
    commit(1, {"one.py": CODE.format(1) * 6})
    made = Workshop(Workspace(root), SETTINGS, tiny_base, lambda _: None, in_this_process)
    with pytest.raises(TrainingError, match="run `nightschool collect` first"):
        sweep(made, trials=2, trial_minutes=5)
    collect(made)
    with pytest.raises(TrainingError, match="nothing is held out to choose by"):
        sweep(made, trials=2, trial_minutes=5)


def test_what_is_held_out_is_not_trained_on_even_at_the_end(workshop: Workshop, tiny_base: BaseModel) -> None:
    from trainer.corpus import read_examples
    from trainer.train import _folded_in

    corpus = next(workshop.workspace.corpus.glob("*/ledger.json")).parent
    examples = read_examples(corpus, read_ledger(corpus))
    held_out = {example.entry.id for example in examples if example.entry.split == "held-out"}
    assert held_out
    folded = [_folded_in(example) for example in examples]
    assert {example.entry.id for example in folded if example.entry.split != "train"} == held_out
    kept = replace(examples[0], entry=replace(examples[0].entry, split="validation"))  # type: ignore[arg-type]
    assert _folded_in(kept).entry.split == "train"


def test_the_search_is_around_the_preset_and_in_ranks_that_are_served() -> None:
    space = search_space(find_preset("default"))
    assert space.learning_rate == (5e-5, 8e-4)
    assert set(space.rank) <= {1, 8, 16, 32, 64, 128, 256, 320, 512}
    assert space.rows_per_step == (4, 8, 16)


def test_the_best_values_are_shown_as_settings(tmp_path: Path) -> None:
    from trainer.sweep import Tried

    text = to_settings(Tried(3, "whole", Choice(1.2345e-3, 32, 0.5, 2), 1.0, 9.0))
    (tmp_path / "nightschool.toml").write_text(text)
    read = TrainerSettings.read(Workspace(tmp_path))
    assert (read.learning_rate, read.rank, read.alpha, read.rows_per_step) == (1.23e-3, 32, 16, 2)
