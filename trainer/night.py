"""One night: collect, train, prove, decide, promote, report. The front door calls what is here.

Each stage leaves its result on disk and is not done again when it is there: a night that was killed goes on.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal, TypeVar

from indexer.workspace import Workspace
from server.adapter import Adapter, AdapterError, find_adapter, new_version, promote, prune, read_current
from server.base_model import BaseModel
from trainer.generated import Generator
from trainer.job import Stage
from trainer.night_state import NightState, last_finished, load_state, save_state, settings_mark
from trainer.process import Runner, run_job
from trainer.promote import Margins, Verdict, decide
from trainer.proving import Proof, Proved, make_proof, prove
from trainer.report import NightReport, write_reports
from trainer.settings import TrainerSettings
from trainer.sources.history import History, NoHistory
from trainer.stages import CorpusReport, OnProgress, TrainingReport, collect, newest_corpus, run_training

__all__ = [
    "CorpusReport",
    "NightBusy",
    "NightPlan",
    "NightReport",
    "TrainingReport",
    "collect",
    "newest_corpus",
    "plan_night",
    "run_night",
    "run_training",
]

log = logging.getLogger(__name__)

T = TypeVar("T")


class NightBusy(Exception):
    """Another night is running in this workspace."""


@dataclass(frozen=True, slots=True)
class NightPlan:
    """What a night would do and cost. `skip` is the reason for which it would do nothing, "" when it would."""

    skip: str
    snapshot: str
    proved_on: Literal["newer code", "held-out files"]
    files: int
    tokens: int
    minutes: float
    disk_gb: float


def run_night(
    workspace: Workspace,
    settings: TrainerSettings,
    base: BaseModel,
    on_progress: OnProgress,
    *,
    force: bool = False,
    check_engine: Callable[[Adapter], str] | None = None,
    runner: Runner = run_job,
    generator: Generator | None = None,
) -> NightReport:
    """From yesterday's code to a better adapter in service, or to the reason there is none.

    `check_engine` says why the engine cannot serve an adapter, "" when it can; without one the gate has no such line.
    Raises `NightBusy`, `TrainingError`, `EmptyCorpus`; what is in service is then as it was.
    """
    with _only_one(workspace):
        state = _begin(workspace, settings, base)
        if not force and (reason := _why_skip(workspace, state)):
            return NightReport.skipped(state.night, reason)
        proof = _timed(state, "prepare", lambda: make_proof(workspace, settings, on_progress))
        corpus = _timed(
            state,
            "collect",
            lambda: collect(workspace, settings, base, on_progress, snapshot=proof.snapshot, generator=generator),
        )
        adapter = _timed(
            state, "train", lambda: _trained(workspace, settings, base, corpus, state, on_progress, runner)
        )
        in_service = _in_service(workspace, base)
        proved = _timed(
            state,
            "evaluate",
            lambda: prove(workspace, settings, base, proof, corpus, adapter, in_service, on_progress, runner),
        )
        evidence = proved.evidence
        if check_engine is not None:
            on_progress(Stage("asking the engine"))
            evidence = replace(evidence, engine_fault=check_engine(adapter))
        verdict = decide(evidence, Margins(settings.min_gain, settings.max_forgetting, settings.min_files))
        if verdict.promote:
            promote(workspace.adapters, adapter.version)
        report = _report(state, proof, corpus, adapter, in_service, proved, verdict)
        write_reports(workspace, adapter, report)
        save_state(workspace, replace(state, finished=True, promoted=verdict.promote))
        prune(workspace.adapters, settings.keep_adapters)
    return report


def plan_night(workspace: Workspace, settings: TrainerSettings, base: BaseModel) -> NightPlan:
    """What `run_night` would do now, without doing it."""
    state = _begin(workspace, settings, base, keep=False)
    proof = make_proof(workspace, settings, lambda _: None)
    text = sum(len(file.text) for file in proof.snapshot.files)
    arms = 2 if _in_service(workspace, base) is None else 3
    # 0.3 ms a byte of proof and arm with both prompts, measured with the embedded model on two cores: trainer/LOG.md.
    minutes = settings.budget_minutes + arms * (settings.proof_bytes * 0.025 + settings.questions * 12) / 60
    disk = (base.parameters * 0.6 + text * 2) / 1e9
    return NightPlan(
        _why_skip(workspace, state), proof.snapshot.commit, "newer code" if proof.is_next_day else "held-out files",
        len(proof.snapshot.files), text // 3, round(minutes, 1), round(disk, 2),
    )  # fmt: skip


@contextmanager
def _only_one(workspace: Workspace) -> Iterator[None]:
    workspace.make_state_folder()
    with (workspace.state / "night.lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NightBusy(f"a night is running in {workspace.root}: wait for it, or end it") from None
        yield


def _begin(workspace: Workspace, settings: TrainerSettings, base: BaseModel, keep: bool = True) -> NightState:
    """The state of tonight: that of a night that was cut short on the same commit and settings, or a new one."""
    try:
        head = History(workspace.root).head().sha
    except NoHistory:
        head = ""
    mark = settings_mark(settings, base)
    broken = load_state(workspace)
    if broken is not None and not broken.finished and (broken.head, broken.mark) == (head, mark):
        return broken
    now = datetime.now(UTC)
    state = NightState(f"{now:%Y-%m-%d-%H%M%S}", head, mark, new_version(workspace.adapters, head, now))
    if keep:
        save_state(workspace, state)
    return state


def _why_skip(workspace: Workspace, state: NightState) -> str:
    last = last_finished(workspace)
    if (
        last is not None
        and last.night != state.night
        and state.head
        and (last.head, last.mark) == (state.head, state.mark)
    ):
        return f"nothing was committed since the night of {last.night}"
    return ""


def _timed(state: NightState, stage: str, work: Callable[[], T]) -> T:
    began = time.monotonic()
    result = work()
    state.seconds[stage] = round(time.monotonic() - began, 1)
    return result


def _trained(
    workspace: Workspace, settings: TrainerSettings, base: BaseModel, corpus: CorpusReport, state: NightState,
    on_progress: OnProgress, runner: Runner,
) -> Adapter:  # fmt: skip
    try:
        return find_adapter(workspace.adapters, state.version, digest=True)
    except AdapterError:
        log.info("no adapter %s yet: training it", state.version)
    return run_training(
        workspace,
        settings,
        base,
        on_progress,
        corpus=corpus.folder,
        promote_it=False,
        version=state.version,
        runner=runner,
    ).adapter


def _in_service(workspace: Workspace, base: BaseModel) -> Adapter | None:
    """The adapter to be compared with; None for the base model, and for one that was made for another base model."""
    try:
        current = read_current(workspace.adapters)
    except AdapterError as error:
        log.warning("compared with the base model alone: %s", error)
        return None
    return current if current is not None and current.manifest.base_model.sha256 == base.sha256 else None


def _report(
    state: NightState, proof: Proof, corpus: CorpusReport, adapter: Adapter, in_service: Adapter | None, proved: Proved,
    verdict: Verdict,
) -> NightReport:  # fmt: skip
    return NightReport(
        night=state.night,
        outcome="promoted" if verdict.promote else "refused",
        reason="; ".join(verdict.reasons),
        version=adapter.version,
        in_service=in_service.version if in_service else None,
        base_model=adapter.manifest.base_model.name,
        commit=proof.snapshot.commit,
        newer_commit=proof.newer,
        is_next_day=proof.is_next_day,
        rows=proved.rows,
        verdict=verdict.lines,
        corpus={name: value for name, value in asdict(corpus).items() if isinstance(value, int | float)},
        manifest=adapter.manifest.model_dump(mode="json"),
        seconds=dict(state.seconds),
        answers=proved.shown,
    )
