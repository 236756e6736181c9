"""One night: collect, train, prove, decide, promote, report. The front door calls what is here.

Each stage leaves its result on disk and is not done again when it is there: a night that was killed goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal, TypeVar

from indexer.gpu import has_gpu
from indexer.workspace import Workspace
from server.adapter import Adapter, AdapterError, find_adapter, new_version, promote, prune, read_current
from server.base_model import BaseModel
from server.prompt import PROMPT_VERSION
from trainer.generated import GeneratorError
from trainer.job import Note, Stage
from trainer.judge import Judged, compare_answers
from trainer.learnt import learnt_since
from trainer.ledger import read_ledger
from trainer.night_record import NightRecord, keep_record, new_record, send_to_webhook
from trainer.night_state import NightState, last_finished, load_state, save_state, settings_mark
from trainer.only_one import NightBusy, only_one
from trainer.promote import Verdict, decide
from trainer.proving import Proof, Proved, make_proof, prove
from trainer.readiness import disk_needed, look_at_machine, too_little_changed, what_is_missing
from trainer.report import NightReport, write_reports
from trainer.settings import TrainerSettings
from trainer.sources.history import History, NoHistory
from trainer.stages import (
    CorpusReport,
    TrainingReport,
    Workshop,
    collect,
    newest_corpus,
    resting,
    run_training,
)

__all__ = [
    "CorpusReport",
    "NightBusy",
    "NightPlan",
    "NightReport",
    "TrainingReport",
    "Workshop",
    "collect",
    "newest_corpus",
    "plan_night",
    "run_and_record",
    "run_night",
    "run_training",
]

log = logging.getLogger(__name__)

T = TypeVar("T")
_ROOM = 1 << 62  # bytes


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that a night has found, for its report."""

    proof: Proof
    corpus: CorpusReport
    adapter: Adapter
    in_service: Adapter | None
    proved: Proved
    verdict: Verdict
    judged: Judged | None = None


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


def run_night(workshop: Workshop, *, force: bool = False) -> NightReport:
    """From yesterday's code to a better adapter in service, or to the reason there is none.

    Raises `NightBusy`, `TrainingError`, `EmptyCorpus`; what is in service is then as it was.
    """
    workspace, settings, base, tell = workshop.workspace, workshop.settings, workshop.base, workshop.tell
    with only_one(workspace):
        state = _begin(workspace, settings, base)
        if reason := _why_skip(workshop, state, force):
            return NightReport.skipped(state.night, reason)
        proof = _timed(state, "prepare", lambda: make_proof(workspace, settings, tell))
        corpus = _timed(state, "collect", lambda: collect(workshop, snapshot=proof.snapshot))
        in_service = _in_service(workspace, base)
        with resting(workshop, _minutes(settings, in_service)):
            if reason := what_is_missing(look_at_machine(workspace), settings, base):
                return NightReport.skipped(state.night, reason)
            adapter = _timed(state, "train", lambda: _trained(workshop, corpus, state))
            proved = _timed(state, "evaluate", lambda: prove(workshop, proof, corpus, adapter, in_service))
            if workshop.check_engine is not None:
                tell(Stage("asking the engine"))
                proved = replace(proved, evidence=replace(proved.evidence, served=workshop.check_engine(adapter)))
        judged = _judged(workshop, proved)
        verdict = decide(proved.evidence, settings.margins())
        if verdict.promote:
            promote(workspace.adapters, adapter.version)
        report = _report(workspace, state, Findings(proof, corpus, adapter, in_service, proved, verdict, judged))
        write_reports(workspace, adapter, report)
        save_state(workspace, replace(state, finished=True, promoted=verdict.promote))
        prune(workspace.adapters, settings.keep_adapters)
    return report


def _judged(workshop: Workshop, proved: Proved) -> Judged | None:
    """What the judge says; None without one, without answers, or when it fails: a night does not hang on it."""
    if workshop.judge is None or not proved.contests:
        return None
    workshop.tell(Stage(f"asking the judge about {len(proved.contests)} answers"))
    try:
        return asyncio.run(compare_answers(proved.contests, workshop.judge))
    except GeneratorError as error:
        workshop.tell(Note(str(error)))
        return None


def run_and_record(workshop: Workshop, *, force: bool = False) -> NightReport:
    """`run_night`, and whatever becomes of it is on disk (`trainer/night_record.py`) and told to the webhook."""
    began = datetime.now(UTC)

    def told(record: NightRecord) -> None:
        keep_record(workshop.workspace, record)
        url = workshop.settings.webhook
        if url and (fault := send_to_webhook(url, workshop.workspace, record)):
            workshop.tell(Note(fault))

    try:
        report = run_night(workshop, force=force)
    except NightBusy:  # the other one will tell
        raise
    except BaseException as error:  # the edge of a night: Ctrl-C too must not look like a night that went well
        told(new_record("failed", str(error) or type(error).__name__, began))
        raise
    told(new_record(report.outcome, report.reason, began, report.night, report.version))
    return report


def plan_night(workshop: Workshop) -> NightPlan:
    """What `run_night` would do now, without doing it."""
    workspace, settings, base = workshop.workspace, workshop.settings, workshop.base
    state = _begin(workspace, settings, base, keep=False)
    proof = make_proof(workspace, settings, lambda _: None)
    text = sum(len(file.text) for file in proof.snapshot.files)
    minutes = _minutes(settings, _in_service(workspace, base))
    disk = (disk_needed(base, settings.hyper_parameters(has_gpu())) + text * 2) / 1e9
    return NightPlan(
        _why_skip(workshop, state), proof.snapshot.commit,
        "newer code" if proof.is_next_day else "held-out files",
        len(proof.snapshot.files), text // 3, round(minutes, 1), round(disk, 2),
    )  # fmt: skip


def _minutes(settings: TrainerSettings, in_service: Adapter | None) -> float:
    """What training, proof and tests take."""
    arms = 2 if in_service is None else 3
    # 25 ms a byte of proof and arm with both prompts, measured with the embedded model on two cores: trainer/LOG.md.
    proof_minutes = arms * settings.proof_bytes * 0.025 / 60
    minutes = settings.budget_minutes + proof_minutes + (settings.answer_minutes if settings.questions else 0)
    return minutes + (settings.test_minutes if settings.test_command else 0)


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


def _why_skip(workshop: Workshop, state: NightState, force: bool = False) -> str:
    """What the machine lacks (forced or not), or that too little has changed since the last night; "" for neither."""
    workspace, settings = workshop.workspace, workshop.settings
    machine = look_at_machine(workspace)
    if workshop.rest is not None:  # the engine's memory will be free: looked at again when it is
        machine = replace(machine, memory=_ROOM, gpu=None if machine.gpu is None else _ROOM)
    if missing := what_is_missing(machine, settings, workshop.base):
        return missing
    last = last_finished(workspace)
    if force or last is None or last.night == state.night or not state.head or last.mark != state.mark:
        return ""
    if last.head == state.head:
        return f"nothing was committed since the night of {last.night}"
    return too_little_changed(workspace, last.head, state.head, settings.min_changed_lines)


def _timed(state: NightState, stage: str, work: Callable[[], T]) -> T:
    began = time.monotonic()
    result = work()
    state.seconds[stage] = round(time.monotonic() - began, 1)
    return result


def _trained(workshop: Workshop, corpus: CorpusReport, state: NightState) -> Adapter:
    try:
        return find_adapter(workshop.workspace.adapters, state.version, digest=True)
    except AdapterError:
        log.info("no adapter %s yet: training it", state.version)
    return run_training(workshop, corpus=corpus.folder, promote_it=False, version=state.version).adapter


def _in_service(workspace: Workspace, base: BaseModel) -> Adapter | None:
    """The adapter to be compared with; None for the base model, and for one that is not served on `base`."""
    try:
        current = read_current(workspace.adapters)
        if current is not None:
            current = find_adapter(workspace.adapters, current.version, digest=True)
    except AdapterError as error:
        log.warning("compared with the base model alone: %s", error)
        return None
    if current is None:
        return None
    if misfit := current.misfit(base, PROMPT_VERSION):
        log.warning("compared with the base model alone: %s", misfit)
        return None
    return current


def _report(workspace: Workspace, state: NightState, found: Findings) -> NightReport:
    adapter, proved = found.adapter, found.proved
    return NightReport(
        night=state.night,
        outcome="promoted" if found.verdict.promote else "refused",
        reason="; ".join(found.verdict.reasons),
        version=adapter.version,
        in_service=found.in_service.version if found.in_service else None,
        base_model=adapter.manifest.base_model.name,
        commit=found.proof.snapshot.commit,
        newer_commit=found.proof.newer,
        is_next_day=found.proof.is_next_day,
        rows=proved.rows,
        verdict=found.verdict.lines,
        corpus={name: value for name, value in asdict(found.corpus).items() if isinstance(value, int | float)},
        manifest=adapter.manifest.model_dump(mode="json"),
        seconds=dict(state.seconds),
        answers=proved.shown,
        mix=read_ledger(found.corpus.folder).mix(),
        learnt=learnt_since(workspace, found.proof.snapshot.commit),
        gone=proved.evidence.gone,
        judged=found.judged,
        tests=proved.tests,
    )
