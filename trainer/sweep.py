"""Door to optuna: which hyper-parameters suit this repository, by the loss on files that were never trained on.

A sweep lives in `.nightschool/sweeps/<mark>/`: `study.sqlite` has every trial, so a sweep that was ended goes on.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from indexer.gpu import has_gpu
from indexer.workspace import write_atomically
from server.adapter import Adapter, UnknownAdapter, find_adapter, new_version
from trainer.job import HeldOut, Stage, Step, TrainingError, TrainingEvent, TrainingJob
from trainer.ledger import read_ledger
from trainer.only_one import only_one
from trainer.presets import Preset
from trainer.settings import TrainerSettings
from trainer.stages import Workshop, make_job, newest_corpus, resting, run_training

PROBES = 4
# Pruned is what is worse than the median of the others at the same share of the run; first a few whole ones.
_WHOLE_TRIALS = 3
_STUDY = "sweep"
_DAY = 24 * 60.0  # minutes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """One point of the search: `alpha_ratio` is alpha / rank, `rows_per_step` the batch."""

    learning_rate: float
    rank: int
    alpha_ratio: float
    rows_per_step: int

    @property
    def alpha(self) -> int:
        return max(1, round(self.rank * self.alpha_ratio))

    def of(self, preset: Preset) -> Preset:
        """`preset` with these values."""
        return replace(
            preset, learning_rate=self.learning_rate, rank=self.rank, alpha=self.alpha,
            rows_per_step=self.rows_per_step,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial. `loss` in nats a held-out token: at its end, or where it was pruned; None when it failed."""

    number: int
    state: Literal["whole", "pruned", "failed"]
    choice: Choice
    loss: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep found. `adapter` was trained with the best on everything but what is held out; it is not in
    service."""

    folder: Path
    trials: tuple[Tried, ...]
    best: Tried
    adapter: Adapter | None


def sweep(workshop: Workshop, trials: int, trial_minutes: float, *, final: bool = True) -> SweepReport:
    """Try until there are `trials` whole or pruned ones, `trial_minutes` each; then train once with the best.

    The first trial is the preset as it is set. Raises `NightBusy`, and `TrainingError` when no trial came to an end.
    """
    with only_one(workshop.workspace), resting(workshop, min(trials * trial_minutes, _DAY)):
        corpus = newest_corpus(workshop.workspace)
        folder = workshop.workspace.state / "sweeps" / _mark(workshop, corpus, trial_minutes)
        folder.mkdir(parents=True, exist_ok=True)
        with _study(folder, workshop.settings.seed) as study:
            _begin(study, workshop.settings.hyper_parameters(has_gpu()))
            while len(done := _done(study)) < trials:
                workshop.tell(Stage(f"trial {len(done) + 1} of {trials}{_best_so_far(done)}"))
                _one_trial(study, workshop, corpus, folder, trial_minutes)
            found = _done(study)
            best = _best(found)
            _write(folder, found, best, study)
        adapter = _final(workshop, corpus, folder, best.choice) if final else None
    return SweepReport(folder, found, best, adapter)


@dataclass(frozen=True, slots=True)
class Space:
    """What is searched: the learning rate between two ends, on a log scale; of the rest one of these."""

    learning_rate: tuple[float, float]
    rank: tuple[int, ...]
    alpha_ratio: tuple[float, ...]
    rows_per_step: tuple[int, ...]


def search_space(preset: Preset) -> Space:
    """What is searched around `preset`."""
    rate, rows = preset.learning_rate, preset.rows_per_step
    return Space(
        # The one that matters most, and the optimum is nearly the same for all ranks (Thinking Machines 2025).
        (rate / 4, rate * 4),
        # Of those that vLLM serves; 64 is enough for 1-10M tokens, so mostly smaller and cheaper ones beside it.
        tuple(sorted({8, 16, 32, 64, 128} | {preset.rank})),
        tuple(sorted({0.5, 1.0, 2.0} | {preset.alpha / preset.rank})),
        tuple(sorted({max(1, rows // 2), rows, rows * 2})),
    )


@contextmanager
def _study(folder: Path, seed: int) -> Iterator[optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would write to stderr over our progress
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.sqlite'}")
    try:
        try:
            tried = len(storage.get_all_trials(storage.get_study_id_from_name(_STUDY)))
        except KeyError:
            tried = 0
        yield optuna.create_study(
            storage=storage, study_name=_STUDY, load_if_exists=True,
            # Its randomness is not stored: a sweep that goes on must not draw the same points again.
            sampler=optuna.samplers.TPESampler(seed=seed + tried, n_startup_trials=4),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_WHOLE_TRIALS),
        )  # fmt: skip
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _begin(study: optuna.Study, preset: Preset) -> None:
    """The preset first; and what a killed process left under way is tried again."""
    if not study.trials:
        start = Choice(preset.learning_rate, preset.rank, preset.alpha / preset.rank, preset.rows_per_step)
        study.enqueue_trial(asdict(start))
    for trial in study.trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)


def _one_trial(study: optuna.Study, workshop: Workshop, corpus: Path, folder: Path, minutes: float) -> None:
    trial = study.ask()
    preset = workshop.settings.hyper_parameters(has_gpu())
    job = _job(workshop, corpus, folder / f"trial-{trial.number}", _suggest(trial, preset), minutes)
    watched = _Watched(trial, workshop)
    began = time.monotonic()
    try:
        workshop.runner(job, watched.listen, "trainer.train")
        state = TrialState.COMPLETE
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except TrainingError as error:
        # One that diverges says something about its learning rate, not about the sweep.
        if len(study.trials) == 1:
            study.tell(trial, state=TrialState.FAIL)
            raise
        workshop.tell(Stage(f"trial {trial.number} failed: {error}"))
        state = TrialState.FAIL
    finally:
        for made in (job.adapters, *job.run.glob("checkpoint-*")):
            shutil.rmtree(made, ignore_errors=True)
    trial.set_user_attr("seconds", round(time.monotonic() - began, 1))
    if watched.loss is None and state != TrialState.FAIL:
        raise TrainingError("nothing is held out to choose by: the corpus needs two files or more")
    study.tell(trial, watched.loss if state == TrialState.COMPLETE else None, state=state)


class _Watched:
    """Hands on the events of a trial, reports its losses, and ends it when the others are clearly better."""

    def __init__(self, trial: Trial, workshop: Workshop) -> None:
        self._trial, self._workshop = trial, workshop
        self.loss: float | None = None

    def listen(self, event: TrainingEvent) -> None:
        if isinstance(event, Step):
            self._workshop.tell(event)
        if isinstance(event, HeldOut) and event.when != "before":
            self.loss = event.loss
            # A probe comes a little after its share of the run is done, and the last one is that of the end.
            probe = min(int(event.done * PROBES), PROBES - 1) if event.when == "during" else PROBES
            self._trial.report(event.loss, probe)
            if event.when == "during" and self._trial.should_prune():
                raise optuna.TrialPruned


def _suggest(trial: Trial, preset: Preset) -> Choice:
    space = search_space(preset)
    return Choice(
        trial.suggest_float("learning_rate", *space.learning_rate, log=True),
        trial.suggest_categorical("rank", space.rank),
        trial.suggest_categorical("alpha_ratio", space.alpha_ratio),
        trial.suggest_categorical("rows_per_step", space.rows_per_step),
    )


def _job(workshop: Workshop, corpus: Path, run: Path, choice: Choice, minutes: float) -> TrainingJob:
    """A trial works in its own folder, its adapter's registry too: nothing of it can come into service."""
    settings = workshop.settings
    preset = settings.hyper_parameters(has_gpu())
    made = make_job(workshop, corpus, minutes, run.name)
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    # As many rows for each batch size, where a number of steps and not the time ends a run.
    steps = -(-settings.max_steps * preset.rows_per_step // choice.rows_per_step)
    changed = {"run": run, "adapters": run / "adapters", "preset": asdict(choice.of(preset)), "probes": PROBES}
    return made.model_copy(update={**changed, "max_steps": steps})


def _final(workshop: Workshop, corpus: Path, folder: Path, choice: Choice) -> Adapter:
    """The adapter of the best values; one that was cut short goes on, one that is there is not trained again."""
    adapters = workshop.workspace.adapters
    kept = folder / "final.json"
    known = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    if known.get("choice") != asdict(choice):
        version = new_version(adapters, read_ledger(corpus).commit, datetime.now(UTC))
        known = {"version": version, "choice": asdict(choice)}
        write_atomically(kept, json.dumps(known))
    with suppress(UnknownAdapter):
        return find_adapter(adapters, known["version"])
    workshop.tell(Stage("training with the best on all data but what is held out"))
    values = {**asdict(choice), "alpha": choice.alpha}
    del values["alpha_ratio"]
    chosen = replace(workshop, settings=workshop.settings.model_copy(update=values))
    return run_training(
        chosen, corpus=corpus, promote_it=False, version=known["version"], learn_validation=True
    ).adapter


def _done(study: optuna.Study) -> tuple[Tried, ...]:
    names = {TrialState.COMPLETE: "whole", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    # A trial without parameters, or one that was begun again, was cut short before it said anything.
    ended = [trial for trial in study.trials if trial.state in names and "seconds" in trial.user_attrs]
    return tuple(_tried(trial, names[trial.state]) for trial in ended)


def _tried(trial: FrozenTrial, state: Any) -> Tried:
    last = trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None
    loss = trial.value if trial.value is not None else last
    return Tried(trial.number, state, Choice(**trial.params), loss, trial.user_attrs["seconds"])


def _best(trials: tuple[Tried, ...]) -> Tried:
    whole = [trial for trial in trials if trial.state == "whole" and trial.loss is not None]
    if not whole:
        raise TrainingError("no trial came to its end: give each more minutes")
    return min(whole, key=lambda trial: trial.loss or 0.0)


def _best_so_far(trials: tuple[Tried, ...]) -> str:
    losses = [trial.loss for trial in trials if trial.state == "whole" and trial.loss is not None]
    return f" (best loss so far {min(losses):.3f})" if losses else ""


def _mark(workshop: Workshop, corpus: Path, minutes: float) -> str:
    """One name for one question: the same data, base model, settings and minutes. Others begin a new study."""
    try:
        data = read_ledger(corpus).sha256
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"the corpus {corpus.name} cannot be read ({error}): collect again") from error
    asked = [data, workshop.base.sha256, minutes, workshop.settings.model_dump(include=_DECIDING)]
    return f"{corpus.name}-{sha256(json.dumps(asked, default=str).encode()).hexdigest()[:8]}"


_DECIDING = set(TrainerSettings.model_fields) & {
    "preset", "backend", "max_steps", "seed", "rank", "alpha", "learning_rate", "epochs", "row_tokens",
    "rows_per_step", "example_tokens", "raw_tokens", "chat_share", "learn_prompts", "held_out_tokens",
}  # fmt: skip


def _write(folder: Path, trials: tuple[Tried, ...], best: Tried, study: optuna.Study) -> None:
    """`trials.json` and the picture of all trials, `parallel.svg`."""
    facts = {"best": asdict(best), "trials": [asdict(trial) for trial in trials]}
    write_atomically(folder / "trials.json", json.dumps(facts, indent=2))
    import matplotlib

    matplotlib.use("svg")  # no display is asked for
    from matplotlib import colormaps, pyplot
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna calls its pictures experimental since 2020
        axes: Any = plot_parallel_coordinate(study, target_name="held-out loss")
    figure = axes.figure
    axes.set_title("Held-out loss of each trial, by what was tried", pad=14)
    # As optuna colours them the worst trials are white on white: what does not work must be seen too.
    dark = LinearSegmentedColormap.from_list("trials", colormaps["Blues_r"]([0.0, 0.35, 0.7]))
    for drawn in axes.findobj(LineCollection):
        drawn.set_cmap(dark)
    figure.set_size_inches(10, 5)
    figure.savefig(folder / "parallel.svg", bbox_inches="tight")
    pyplot.close(figure)
