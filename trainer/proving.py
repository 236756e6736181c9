"""The proof of a candidate: what it is measured on, the measuring, and the four-way table that comes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer

from indexer.chunking import Chunk, chunk_text
from indexer.languages import language_of
from indexer.lexical import LexicalIndex
from indexer.search import Passage, make_passage
from indexer.settings import IndexerSettings
from indexer.tokens import query_tokens
from indexer.workspace import Workspace
from server.adapter import Adapter
from server.base_model import BaseModel
from server.prompt import Question, render_prompt
from trainer.answers import Checked, check, known_names, make_questions
from trainer.comparison import Change, Score, bits_per_byte, change
from trainer.evaluate import BASE_ARM, EvaluationJob, Measured, read_measured
from trainer.job import Stage
from trainer.ledger import read_ledger
from trainer.promote import Evidence
from trainer.proof import Item, choose_snapshot, elsewhere_items, held_out_items, next_day_items
from trainer.settings import TrainerSettings
from trainer.sources.history import AddedLines, History, NoHistory
from trainer.sources.snapshot import Snapshot, take_snapshot
from trainer.stages import CorpusReport, OnProgress, Workshop

CANDIDATE, IN_SERVICE = "candidate", "in service"
_PROMPT_TOKENS = 900


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
    """A line of the four-way table: an arm with or without retrieval. Bits per byte; None where it was not measured."""

    arm: str
    retrieval: bool
    newer_code: float | None
    elsewhere: float | None
    answers: Checked | None


@dataclass(frozen=True, slots=True)
class Shown:
    """One question with the answer of each arm, with retrieval."""

    question: str
    answers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Proved:
    """What a proof found."""

    rows: tuple[Row, ...]
    evidence: Evidence
    shown: tuple[Shown, ...]


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
    questions = _questions(proof.snapshot, base, settings.questions)
    arms = {BASE_ARM: "", CANDIDATE: str(candidate.folder)}
    if in_service is not None and in_service.version != candidate.version:
        arms[IN_SERVICE] = str(in_service.folder)
    job = EvaluationJob(
        run=workshop.workspace.state / "runs" / candidate.version,
        base_folder=base.folder,
        arms=arms,
        items=tuple(asdict(item) for item in items),
        questions=tuple(prompt for _, prompt in questions),
        answer_tokens=settings.answer_tokens,
        end_of_turn=base.end_of_turn,
    )
    workshop.runner(job, workshop.tell, "trainer.evaluate")
    return _proved(read_measured(job.run), proof, [question for question, _ in questions])


def _items(proof: Proof, corpus: CorpusReport, settings: TrainerSettings) -> list[Item]:
    if proof.is_next_day:
        found = next_day_items(proof.added, proof.texts, proof.snapshot, settings.proof_bytes)
    else:
        paths = {entry.source for entry in read_ledger(corpus.folder).entries if entry.split == "held-out"}
        found = held_out_items(proof.texts, sorted(paths), settings.proof_bytes)
    return found + elsewhere_items(settings.proof_bytes)


def _questions(snapshot: Snapshot, base: BaseModel, count: int) -> list[tuple[str, str]]:
    """Each question twice, as (question, whole prompt): first all without passages, then all with them."""
    if not count:
        return []
    files = sorted(snapshot.files, key=lambda file: (-file.changed, file.path))
    chunks = [
        chunk for file in files for chunk in chunk_text(file.path, file.text, language_of(file.path, file.text[:100]))
    ]
    named = {chunk.path: chunk.defines[0] for chunk in reversed(chunks) if chunk.defines}
    asked = make_questions(snapshot, [(f.path, named[f.path]) for f in files if f.path in named], count)
    with TemporaryDirectory(prefix="nightschool-proof-") as folder:
        index = LexicalIndex(Path(folder))
        index.write((chunk.id, chunk) for chunk in chunks)
        by_id = {chunk.id: chunk for chunk in chunks}
        found = [_passages(question, index, by_id) for question in asked]
    without = [(question, _render(question, [], base)) for question in asked]
    return without + [(question, _render(question, list(p), base)) for question, p in zip(asked, found, strict=True)]


def _passages(question: str, index: LexicalIndex, by_id: dict[str, Chunk]) -> list[Passage]:
    return [make_passage(by_id[id], score) for id, score in index.search(query_tokens(question), 3)]


def _render(question: str, passages: Sequence[Passage], base: BaseModel) -> str:
    """The serving prompt through the base model's own template, as text."""
    counter = Tokenizer.from_file(str(base.folder / "tokenizer.json"))

    def count(text: str) -> int:
        return len(counter.encode(text, add_special_tokens=False).ids)

    room = min(_PROMPT_TOKENS, base.context_length // 2)
    prompt = render_prompt(Question(question), passages, count, room)
    return json.dumps([asdict(turn) for turn in prompt.messages])


def _proved(measured: dict[str, Measured], proof: Proof, questions: Sequence[str]) -> Proved:
    half, known = len(questions) // 2, known_names(proof.snapshot)
    kind = "next-day" if proof.is_next_day else "held-out"
    rows: list[Row] = []
    for arm, found in measured.items():
        for retrieval in (False, True):
            scores = found.with_passages if retrieval else found.without
            answers = found.answers[half:] if retrieval else found.answers[:half]
            rows.append(
                Row(arm, retrieval, _bits(scores.get(kind, [])), _bits(scores.get("elsewhere", [])),
                    check(questions[:half], answers, known) if half else None)
            )  # fmt: skip
    shown = tuple(
        Shown(question, {arm: found.answers[half + i].text for arm, found in measured.items()})
        for i, question in enumerate(questions[:half])
    )
    return Proved(tuple(rows), _evidence(measured, kind, proof, rows), shown)


def _evidence(measured: dict[str, Measured], kind: str, proof: Proof, rows: Sequence[Row]) -> Evidence:
    candidate = measured[CANDIDATE]

    def against(arm: str, kind: str, *, retrieval: bool) -> Change | None:
        if arm not in measured:
            return None
        mine = (candidate.with_passages if retrieval else candidate.without).get(kind, [])
        its = (measured[arm].with_passages if retrieval else measured[arm].without).get(kind, [])
        return change(mine, its) if mine else None

    return Evidence(
        against_base=against(BASE_ARM, kind, retrieval=True),
        against_service=against(IN_SERVICE, kind, retrieval=True),
        elsewhere=against(BASE_ARM, "elsewhere", retrieval=False),
        is_next_day=proof.is_next_day,
        secrets=sum(row.answers.secrets for row in rows if row.arm == CANDIDATE and row.answers is not None),
    )


def _bits(scores: Sequence[Score]) -> float | None:
    bits = bits_per_byte(scores)
    return None if math.isnan(bits) else round(bits, 4)
