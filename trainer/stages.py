"""Two stages of the night that can be run alone: the corpus, and the training."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from indexer.gpu import has_gpu
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from server.adapter import Adapter, Losses, find_adapter, new_version, promote, prune
from server.base_model import BaseModel
from server.prompt import PROMPT_VERSION
from trainer.corpus import Beside, CorpusPlan, build_corpus
from trainer.corpus_settings import CorpusSettings
from trainer.generated import Generator, Page, general_orders, page_orders, write_orders
from trainer.job import Note, Stage, TrainingError, TrainingEvent, TrainingJob
from trainer.ledger import Ledger, read_ledger
from trainer.process import Runner, run_job
from trainer.promote import Served
from trainer.settings import TrainerSettings
from trainer.sources.document import Document
from trainer.sources.documents import collect_documents
from trainer.sources.feedback import gather_feedback
from trainer.sources.history import History, NoHistory
from trainer.sources.snapshot import Snapshot, SnapshotFile, take_snapshot
from trainer.talk import Talk

# Files whose lines are dated one by one (0.1 s each with git blame); the others count as old.
_DATED_FILES = 250
_MIN_FREE_BYTES = 1 << 30

OnProgress = Callable[[TrainingEvent], None]
# Has the engine of the running backend sleep for about so many minutes while inside; why it does not, "" when it does.
Rest = Callable[[float], AbstractContextManager[str]]


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """A corpus that lies ready in `folder`: counts of examples and tokens on the training side, and what was left
    out.
    """

    folder: Path
    commit: str
    files: int
    raw_examples: int
    chat_examples: int
    raw_tokens: int
    chat_tokens: int
    held_out_files: int
    left_out: dict[str, int]
    masked: dict[str, int]
    seconds: float
    mix: dict[str, int]
    validation_examples: int


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """A training that ended well: the adapter, and the losses, counts and seconds of its manifest."""

    adapter: Adapter
    losses: Losses
    steps: int
    tokens: int
    seconds: float
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a stage works with: the workspace, its settings, the base model, whom it tells, how it starts processes.

    Without a `generator` there are the conversations that need none, and those that one wrote before. `check_engine`
    says how a real engine takes an adapter; without one the gate has no such line. `judge` compares answers, for the
    report alone. `rest` makes room from training until the decision.
    """

    workspace: Workspace
    settings: TrainerSettings
    base: BaseModel
    tell: OnProgress
    runner: Runner = run_job
    generator: Generator | None = None
    check_engine: Callable[[Adapter], Served] | None = None
    judge: Generator | None = None
    rest: Rest | None = None


@contextmanager
def resting(workshop: Workshop, minutes: float) -> Iterator[None]:
    """The engine asleep while inside, where there is one that should be; that it is not is told."""
    with workshop.rest(minutes) if workshop.rest else nullcontext("") as fault:
        if fault:
            workshop.tell(Note(f"the backend's engine does not sleep: {fault}"))
        yield


def collect(workshop: Workshop, *, commit: str = "HEAD", snapshot: Snapshot | None = None) -> CorpusReport:
    """Make the corpus of `commit` (of the working tree where there is no git), or of a snapshot taken already.

    Raises `EmptyCorpus`.
    """
    workspace, settings, base, tell = workshop.workspace, workshop.settings, workshop.base, workshop.tell
    began = time.monotonic()
    tell(Stage("reading the code"))
    snapshot = snapshot or take_snapshot(workspace, IndexerSettings.read(workspace), commit)
    found = collect_documents(workspace, settings, snapshot, tell)
    tell(Stage("making examples"))
    wanted = CorpusSettings.read(workspace)
    preset = settings.hyper_parameters(has_gpu())
    plan = CorpusPlan(
        preset.example_tokens, settings.held_out_share, settings.seed, settings.max_files, wanted.validation_share,
        wanted.amounts(), preset.raw_tokens,
    )  # fmt: skip
    workspace.make_state_folder()
    workspace.corpus.mkdir(exist_ok=True)
    folder = workspace.corpus / snapshot.name
    weights = _line_weights(workspace, snapshot)
    until = snapshot.date if _is_past(workspace, snapshot) else None
    beside = Beside(found.documents, found.left_out, _writer(workshop, wanted, until))
    ledger = build_corpus(snapshot, base.folder / "tokenizer.json", base.sha256, plan, folder, weights, beside)
    return _corpus_report(folder, ledger, time.monotonic() - began)


def _writer(
    workshop: Workshop, wanted: CorpusSettings, until: datetime | None
) -> Callable[[Sequence[Document]], tuple[Sequence[Talk], dict[str, int]]]:
    """What users kept, up to `until`; and what only a model can write, from the cache where it did before."""
    generator, tell = workshop.generator, workshop.tell

    def write(pages: Sequence[Document]) -> tuple[Sequence[Talk], dict[str, int]]:
        talks, left_out = gather_feedback(workshop.workspace, until) if wanted.feedback else ([], {})
        if generator is None:
            return talks, left_out
        orders = list(page_orders([Page(p.source_id, p.title, p.text) for p in pages], wanted.page_answers))
        orders += general_orders(wanted.general)
        tell(Stage(f"having {len(orders)} conversations written"))
        written = write_orders(
            orders, generator, workshop.workspace.state / "generated",
            lambda done, of: tell(Stage(f"written {done} of {of} answers")),
        )  # fmt: skip
        for notice in written.notices:
            tell(Note(notice))
        return [*talks, *written.talks], {**left_out, **written.left_out}

    return write


def run_training(
    workshop: Workshop,
    *,
    corpus: Path | None = None,
    promote_it: bool = True,
    version: str = "",
    learn_validation: bool = False,
) -> TrainingReport:
    """Train an adapter on `corpus` (the newest when None) in a process of its own, and put it in service.

    With the `version` of a run that was cut short, that run goes on from its last checkpoint.

    Raises `TrainingError`; then, and after Ctrl-C, what is in service is as it was.
    """
    workspace, settings = workshop.workspace, workshop.settings
    folder = corpus or newest_corpus(workspace)
    if shutil.disk_usage(workspace.state).free < _MIN_FREE_BYTES:
        raise TrainingError(f"less than {_MIN_FREE_BYTES >> 30} GiB free below {workspace.state}: free some disk space")
    job = make_job(workshop, folder, settings.budget_minutes, version)
    notices: list[str] = []

    def listen(event: TrainingEvent) -> None:
        if isinstance(event, Note):
            notices.append(event.text)
        workshop.tell(event)

    workshop.runner(job.model_copy(update={"learn_validation": learn_validation}), listen, "trainer.train")
    adapter = find_adapter(workspace.adapters, job.version)
    if promote_it:
        adapter = promote(workspace.adapters, job.version)
        prune(workspace.adapters, settings.keep_adapters)
    made = adapter.manifest
    return TrainingReport(adapter, made.losses, made.steps, made.tokens, made.seconds, tuple(notices))


def make_job(workshop: Workshop, corpus: Path, budget_minutes: float, version: str) -> TrainingJob:
    """What the training process is told; a run's folder is named for its adapter's version."""
    workspace, settings = workshop.workspace, workshop.settings
    try:
        ledger = read_ledger(corpus)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"the corpus {corpus.name} cannot be read ({error}): collect again") from error
    if ledger.prompt_version != PROMPT_VERSION:
        raise TrainingError(f"the corpus {corpus.name} has prompts of another version: collect again")
    commit = ledger.commit
    version = version or new_version(workspace.adapters, commit, datetime.now(UTC))
    values = asdict(workshop.base)
    return TrainingJob(
        corpus=corpus,
        run=workspace.state / "runs" / version,
        adapters=workspace.adapters,
        version=version,
        base={**values, "folder": str(workshop.base.folder)},
        preset=asdict(settings.hyper_parameters(has_gpu())),
        backend=settings.backend,
        budget_s=budget_minutes * 60,
        max_steps=settings.max_steps,
        seed=settings.seed,
        micro_rows=settings.micro_rows,
        learn_prompts=settings.learn_prompts,
        checkpoint_every_s=settings.checkpoint_every_s,
        held_out_tokens=settings.held_out_tokens,
        prompt_version=PROMPT_VERSION,
        processes=settings.gpus,
        four_bit=settings.four_bit,
    )


def newest_corpus(workspace: Workspace) -> Path:
    """The corpus made last. Raises `TrainingError` when there is none."""
    found = [folder for folder in workspace.corpus.glob("*/ledger.json") if not folder.parent.name.startswith(".")]
    if not found:
        raise TrainingError("there is no corpus yet: run `nightschool collect` first")
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent


def _is_past(workspace: Workspace, snapshot: Snapshot) -> bool:
    """Has the repository gone on since the snapshot?"""
    try:
        return bool(snapshot.commit) and History(workspace.root).head().sha != snapshot.commit
    except NoHistory:
        return False


def _line_weights(workspace: Workspace, snapshot: Snapshot) -> Callable[[SnapshotFile], Sequence[float] | None]:
    """A weight for each line of the files that changed last: 1 for the newest change, halved with each age of 100
    commits.

    What was written last is where the next change comes: trainer/LOG.md.
    """
    history = History(workspace.root)
    if not snapshot.commit:
        return lambda _: None
    ages = history.recent(100, snapshot.commit)
    unit = max(1.0, (ages[0].date - ages[-1].date).total_seconds()) if ages else 1.0
    hot = sorted((file for file in snapshot.files if file.changed), key=lambda file: (-file.changed, file.path))
    dated = {file.path for file in hot[:_DATED_FILES]}
    newest = snapshot.date.timestamp()

    def weigh(file: SnapshotFile) -> Sequence[float] | None:
        if file.path not in dated:
            return None
        try:
            dates = history.line_dates(snapshot.commit, file.path)
        except NoHistory:
            return None
        return [math.exp(-max(0.0, newest - date) / unit) for date in dates]

    return weigh


def _corpus_report(folder: Path, ledger: Ledger, seconds: float) -> CorpusReport:
    return CorpusReport(
        folder,
        ledger.commit,
        ledger.sources("train"),
        ledger.count("train", raw=True),
        ledger.count("train", raw=False),
        ledger.tokens("train", raw=True),
        ledger.tokens("train", raw=False),
        ledger.sources("held-out"),
        ledger.left_out,
        ledger.masked,
        round(seconds, 2),
        ledger.mix(),
        ledger.count("validation", raw=False),
    )
