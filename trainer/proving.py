"""The proof of a candidate: what it is measured on, the measuring, and the four-way table that comes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from indexer.secrets import mask_secrets
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from server.adapter import Adapter
from trainer.answers import Checked, Known, Marked, mark, paired, sum_up
from trainer.asking import Asking, make_asking
from trainer.comparison import Change, Difference, Score, bits_per_byte, change, difference
from trainer.evaluate import BASE_ARM, EvaluationJob, Measured, read_measured
from trainer.filling import Filled, Filling, OwnTests, candidates_in, choose_holes, run_fills
from trainer.holes import Hole
from trainer.job import Stage
from trainer.judge import Contest
from trainer.ledger import read_ledger
from trainer.names import Existing
from trainer.promote import Evidence, Guards
from trainer.proof import Item, choose_snapshot, elsewhere_items, held_out_items, next_day_items
from trainer.sandbox import Checkout
from trainer.settings import TrainerSettings
from trainer.sources.history import AddedLines, History, NoHistory
from trainer.sources.snapshot import Snapshot, take_snapshot
from trainer.stages import CorpusReport, OnProgress, Workshop
from trainer.stale import gone_names

CANDIDATE, IN_SERVICE = "candidate", "in service"


@dataclass(frozen=True, slots=True)
class Proof:
    """The snapshot to train on, and what came after it: `added` lines of the files in `texts`, as `newer` has them.

    Without a history that is long enough `newer` is "" and the proof is on held-out files.
    """

    snapshot: Snapshot
    newer: str
    added: tuple[AddedLines, ...]
    texts: dict[str, str]

    @property
    def is_next_day(self) -> bool:
        return bool(self.newer)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the four-way table: an arm with or without retrieval. Bits per byte; None where it was not measured;
    `tokens_per_s` as the evaluation wrote its answers, several at a time; `holes`: functions whose tests pass, of how
    many."""

    arm: str
    retrieval: bool
    newer_code: float | None
    elsewhere: float | None
    answers: Checked | None
    tokens_per_s: float = 0.0
    holes: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """One question with the answer of each arm, with retrieval."""

    question: str
    answers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Proved:
    """What a proof found. `tests` says on how many functions the repository's own tests were run, "" where they were
    not asked for."""

    rows: tuple[Row, ...]
    evidence: Evidence
    shown: tuple[Shown, ...]
    contests: tuple[Contest, ...] = ()
    tests: str = ""


def make_proof(workspace: Workspace, settings: TrainerSettings, on_progress: OnProgress) -> Proof:
    """Keep the newest commits from training, as many as `proof_bytes` of added source need."""
    on_progress(Stage("looking for newer code to prove it on"))
    history, indexer_settings = History(workspace.root), IndexerSettings.read(workspace)
    now = take_snapshot(workspace, indexer_settings)
    texts = {file.path: file.text for file in now.files}
    try:
        older = choose_snapshot(history, texts, settings.proof_bytes, settings.min_files * 2)
        added = history.added_lines(older, now.commit)
    except NoHistory:
        return Proof(now, "", (), texts)
    return Proof(take_snapshot(workspace, indexer_settings, older), now.commit, tuple(added), texts)


def prove(
    workshop: Workshop, proof: Proof, corpus: CorpusReport, candidate: Adapter, in_service: Adapter | None
) -> Proved:
    """Measure base model, candidate and the adapter in service on the same items. Raises `TrainingError`."""
    settings, base = workshop.settings, workshop.base
    items = _items(proof, corpus, settings)
    asking = make_asking(workshop, proof.snapshot, corpus.folder)
    arms = {BASE_ARM: "", CANDIDATE: str(candidate.folder)}
    if in_service is not None and in_service.version != candidate.version:
        arms[IN_SERVICE] = str(in_service.folder)
    run = workshop.workspace.state / "runs" / candidate.version
    tests = _tests(workshop, proof, run)
    filling = _filling(tests, workshop, proof, corpus) if tests is not None else Filling()
    job = EvaluationJob(
        run=run,
        base_folder=base.folder,
        arms=arms,
        items=tuple(asdict(item) for item in items),
        batches=asking.batches,
        holes=filling.prompts,
        answer_s=settings.answer_minutes * 60,
        end_of_turn=base.end_of_turn,
    )
    workshop.runner(job, workshop.tell, "trainer.evaluate")
    known = Known(Existing(proof.snapshot), gone_names(workshop.workspace.root, proof.texts.values()), asking.secrets)
    measured = read_measured(job.run)
    filled = Filled()
    if tests is not None:
        filled = run_fills(tests, filling, {arm: found.fills for arm, found in measured.items()}, workshop.tell)
    return _proved(measured, proof, asking, known, filled)


def _tests(workshop: Workshop, proof: Proof, run: Path) -> OwnTests | None:
    """The repository's own tests, at the newest commit; None where no command is set."""
    settings = workshop.settings
    if not settings.test_command:
        return None
    run.mkdir(parents=True, exist_ok=True)
    commit = proof.newer or proof.snapshot.commit
    return OwnTests(workshop.workspace.root, commit, settings.test_command, settings.test_minutes, run / "tests.json")


def _filling(tests: OwnTests, workshop: Workshop, proof: Proof, corpus: CorpusReport) -> Filling:
    if not tests.commit:
        return Filling(why="there is no git history to take a copy from")
    held_out = _held_out(corpus)

    def candidates(checkout: Checkout) -> Sequence[Hole]:
        return candidates_in(checkout, proof.texts, proof.added, held_out)

    return choose_holes(tests, candidates, workshop.settings.holes, proof.snapshot, workshop.tell)


def _held_out(corpus: CorpusReport) -> set[str]:
    return {entry.source for entry in read_ledger(corpus.folder).entries if entry.split == "held-out"}


def _items(proof: Proof, corpus: CorpusReport, settings: TrainerSettings) -> list[Item]:
    if proof.is_next_day:
        found = next_day_items(proof.added, proof.texts, proof.snapshot, settings.proof_bytes)
    else:
        found = held_out_items(proof.texts, sorted(_held_out(corpus)), settings.proof_bytes)
    return found + elsewhere_items(settings.proof_bytes)


def _proved(measured: dict[str, Measured], proof: Proof, asking: Asking, known: Known, filled: Filled) -> Proved:
    kind = "next-day" if proof.is_next_day else "held-out"
    marks = {arm: _marks(found, asking, known) for arm, found in measured.items()}
    rows: list[Row] = []
    for arm, found in measured.items():
        for retrieval in (False, True):
            scores = found.with_passages if retrieval else found.without
            answers = sum_up(list(marks[arm][retrieval].values())) if asking.asked else None
            bits = _bits(scores.get(kind, [])), _bits(scores.get("elsewhere", []))
            rows.append(Row(arm, retrieval, *bits, answers, found.tokens_per_s, filled.of(arm, retrieval)))
    evidence = _evidence(measured, kind, proof, marks)
    if filled.holes:
        evidence = replace(evidence, guards=replace(evidence.guards, holes=filled.against(CANDIDATE, BASE_ARM)))
    return Proved(tuple(rows), evidence, _shown(marks), _contests(marks), filled.said)


Marks = dict[str, dict[bool, dict[int, Marked]]]


def _marks(found: Measured, asking: Asking, known: Known) -> dict[bool, dict[int, Marked]]:
    """With passages or without -> question -> marks, of what was answered."""
    marked: dict[bool, dict[int, Marked]] = {False: {}, True: {}}
    for (index, passages), answer in zip(asking.order, found.answers, strict=False):
        marked[passages][index] = mark(asking.asked[index], answer, known)
    return marked


def _shown(marks: Marks) -> tuple[Shown, ...]:
    """Some answers of each kind, side by side: with passages where it was asked so."""
    shown: list[Shown] = []
    for kind, most in _SHOWN:
        passages = kind in ("about", "recall", "unreal")
        found = marks[BASE_ARM][passages]
        indexes = [index for index, one in found.items() if one.asked.kind == kind][:most]
        for index in indexes:
            texts = {arm: arms[passages][index].answer.text for arm, arms in marks.items() if index in arms[passages]}
            shown.append(Shown(found[index].asked.question, {arm: mask_secrets(t).text for arm, t in texts.items()}))
    return tuple(shown)


def _contests(marks: Marks) -> tuple[Contest, ...]:
    """Candidate against base model, with passages, on what a judge can tell apart; masked, for it may be elsewhere."""
    mine, its = marks[CANDIDATE][True], marks[BASE_ARM][True]
    both = [(mine[index], its[index]) for index in sorted(mine) if index in its and mine[index].asked.kind == "about"]
    return tuple(
        Contest(a.asked.question, mask_secrets(a.answer.text).text, mask_secrets(b.answer.text).text) for a, b in both
    )


_SHOWN = (("about", 3), ("recall", 2), ("unreal", 1), ("file", 1))


def _evidence(measured: dict[str, Measured], kind: str, proof: Proof, marks: Marks) -> Evidence:
    candidate = measured[CANDIDATE]

    def against(arm: str, kind: str, *, retrieval: bool) -> Change | None:
        if arm not in measured:
            return None
        mine = (candidate.with_passages if retrieval else candidate.without).get(kind, [])
        its = (measured[arm].with_passages if retrieval else measured[arm].without).get(kind, [])
        return change(mine, its) if mine else None

    def guard(kind: str, *, retrieval: bool) -> Difference | None:
        return difference(*paired(marks[CANDIDATE][retrieval], marks[BASE_ARM][retrieval], kind))

    answered = [one for arms in marks[CANDIDATE].values() for one in arms.values()]
    return Evidence(
        against_base=against(BASE_ARM, kind, retrieval=True),
        against_service=against(IN_SERVICE, kind, retrieval=True),
        elsewhere=against(BASE_ARM, "elsewhere", retrieval=False),
        is_next_day=proof.is_next_day,
        guards=Guards(
            names=guard("about", retrieval=True),
            recall=guard("recall", retrieval=True),
            refusals=guard("unreal", retrieval=True),
            ends=guard("end", retrieval=True),
            canaries=guard("canary", retrieval=False),
        ),
        secrets=sum(one.secrets for one in answered),
        gone=tuple(sorted({word for one in answered for word in one.gone})),
    )


def _bits(scores: Sequence[Score]) -> float | None:
    bits = bits_per_byte(scores)
    return None if math.isnan(bits) else round(bits, 4)
