"""One training run, in a process of its own: `python -m trainer.train JOB.json`.

A corpus and a base model become a finished adapter folder; events go to stdout, a line each (`trainer.job`), and to
`events.jsonl` in the run's folder. The pointer to the adapter in service is not touched here.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from indexer.child import end_with_parent, event_stream
from server.adapter import Adapter, AdapterError, DataCounts, Losses, TrainedOn, finish_adapter
from server.base_model import BaseModel
from trainer.corpus import Example, read_examples
from trainer.encoding import BadTemplate, Row
from trainer.job import Failed, Finished, HeldOut, Note, Stage, TrainingError, TrainingEvent, TrainingJob, event_to_line
from trainer.ledger import Ledger, read_ledger
from trainer.plan import Encoder, Plan, held_out_rows, make_plan
from trainer.presets import Preset
from trainer.ranks import join, rank, same_for_all, world_size
from trainer.readiness import memory_needed

if TYPE_CHECKING:
    from trainer.sft import Trained

log = logging.getLogger(__name__)

Tell = Callable[[TrainingEvent], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A run under way: what it was told, the model that it trains in place, and whom it tells."""

    job: TrainingJob
    base: BaseModel
    preset: Preset
    backend: Literal["unsloth", "trl"]
    model: Any
    tokenizer: Any
    tell: Tell

    @property
    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.base.end_of_turn, self.job.learn_prompts)


@dataclass(frozen=True, slots=True)
class Made:
    """What the adapter's manifest says of a run that is over."""

    ledger: Ledger
    plan: Plan
    trained: Trained
    losses: Losses


def run(job: TrainingJob, tell: Tell) -> Adapter | None:
    """Train the adapter `job.version`; None in a process that only helps another (`trainer/ranks.py`).

    Raises `TrainingError`, `AdapterError`, or `OSError` when the disk is full."""
    deadline = time.monotonic() + job.budget_s
    ledger, examples = _read_corpus(job)
    join()
    tell(Stage("loading the base model"))
    under_way = _load(job, tell)
    kept_out = held_out_rows(examples, under_way.encoder, under_way.preset, job.held_out_tokens)
    tell(Stage("loss on held-out files before training"))
    before, after_s = _held_out_loss(under_way, kept_out, "before")
    deadline -= after_s * 1.5  # another process may be busy by then
    plan = _plan(under_way, examples, deadline - time.monotonic())
    tell(Stage("training"))
    trained = _train(under_way, plan, deadline - 3, lambda done: _held_out_loss(under_way, kept_out, "during", done))
    tell(Stage("loss on held-out files after training"))
    after, _ = _held_out_loss(under_way, kept_out, "after")
    losses = Losses(
        train_first=trained.first_loss, train=trained.last_loss, held_out_before=before, held_out_after=after
    )
    tell(Stage("saving the adapter"))
    if rank():
        return None
    return _finish(under_way, Made(ledger, plan, trained, losses))


def _load(job: TrainingJob, tell: Tell) -> Run:
    from trainer.lora import choose_backend, load_with_lora

    base, preset, backend = job.base_model(), job.hyper_parameters(), choose_backend(job.backend)
    _check_memory(base.parameters, preset)
    model, tokenizer = load_with_lora(base, preset, backend, job.seed, four_bit=job.four_bit)
    return Run(job, base, preset, backend, model, tokenizer, tell)


def _read_corpus(job: TrainingJob) -> tuple[Ledger, list[Example]]:
    try:
        ledger = read_ledger(job.corpus)
        examples = read_examples(job.corpus, ledger)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"the corpus {job.corpus.name} cannot be read ({error}): collect again") from error
    if ledger.tokenizer != job.base["sha256"]:
        raise TrainingError(f"the corpus {job.corpus.name} was made for another base model: collect again")
    if job.learn_validation:
        examples = [_folded_in(example) for example in examples]
    if not any(example.entry.split == "train" for example in examples):
        raise TrainingError(f"the corpus {job.corpus.name} has no example to train on")
    return ledger, examples


def _folded_in(example: Example) -> Example:
    """What was kept to choose hyper-parameters by is learnt once they are chosen; what is held out never is."""
    if example.entry.split == "held-out":
        return example
    return replace(example, entry=replace(example.entry, split="train"))


def _check_memory(parameters: int, preset: Preset) -> None:
    """Refuse what cannot fit, rather than be killed in the middle. Raises `TrainingError`."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return
    needed = memory_needed(parameters, preset)
    free = psutil.virtual_memory().available
    if needed > free:
        raise TrainingError(
            f"training needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: "
            "close something, lower [trainer] row_tokens, or take a smaller base model"
        )


def _held_out_loss(
    run: Run, rows: Sequence[Row], when: Literal["before", "during", "after"], done: float = 0.0
) -> tuple[float | None, float]:
    """The loss and how long it took; None where nothing is held out."""
    from trainer.lora import loss_of

    if not rows:
        if when == "before":
            run.tell(Note("nothing is held out: the corpus has only one file"))
        return None, 0.0
    began = time.monotonic()
    loss, tokens = loss_of(run.model, rows)
    run.tell(HeldOut(when, round(loss, 5), tokens, round(done, 3)))
    return loss, time.monotonic() - began


def _plan(run: Run, examples: Sequence[Example], left_s: float) -> Plan:
    """What fits into the time. A run that goes on takes the plan of the process before it."""
    from trainer.lora import keeps_packed_apart

    job, preset = run.job, run.preset
    kept = job.run / "plan.json"
    whole = sum(example.entry.tokens for example in examples) * 3

    def plan_for(max_tokens: int) -> Plan:
        packs = keeps_packed_apart(run.backend)
        return make_plan(examples, run.encoder, preset, max_tokens, job.seed, packs=packs)

    try:
        if kept.is_file():
            return plan_for(int(json.loads(kept.read_text())["max_tokens"]))
        max_tokens = int(same_for_all(min(whole, _affordable_tokens(run, plan_for(preset.row_tokens), left_s))))
        plan = plan_for(max_tokens)
    except BadTemplate as error:
        raise TrainingError(f"{run.base.name}: {error}") from error
    if not rank():
        kept.write_text(json.dumps({"max_tokens": max_tokens}))
    run.tell(Note(f"{plan.raw_examples} pieces of code and {plan.chat_examples} conversations: {plan.tokens} tokens"))
    return plan


def _affordable_tokens(run: Run, probe: Plan, left_s: float) -> int:
    from trainer.sft import seconds_per_token

    job, preset = run.job, run.preset
    if job.max_steps:
        return job.max_steps * preset.rows_per_step * preset.row_tokens
    left_s *= world_size()
    return max(preset.row_tokens, int(left_s / seconds_per_token(run.model, probe, run.tokenizer.pad_token_id)))


def _train(run: Run, plan: Plan, deadline: float, probe: Callable[[float], object]) -> Trained:
    """Train until `deadline` (monotonic seconds); when memory runs out, with half the rows at a time."""
    import torch

    from trainer.lora import restore_weights, trained_weights
    from trainer.sft import Course, Limits, last_checkpoint, train

    job, micro = run.job, run.job.micro_rows
    start = trained_weights(run.model)
    while True:
        limits = Limits(max(deadline - time.monotonic(), 1.0), job.max_steps)
        course = Course(job.run, run.preset, limits, job.seed, micro, job.checkpoint_every_s, job.probes, probe)
        try:
            return train(run.model, run.tokenizer, plan, course, run.tell)
        except (torch.OutOfMemoryError, MemoryError) as error:
            if micro == 1 or world_size() > 1:  # the others know nothing of it, and would wait
                raise TrainingError(
                    f"out of memory with {micro} row(s) at a time: lower [trainer] row_tokens"
                ) from error
            micro //= 2
            run.tell(Note(f"out of memory: going on with {micro} rows at a time, the same effective batch"))
        if last_checkpoint(job.run) is None:
            restore_weights(run.model, start)


def _finish(run: Run, made: Made) -> Adapter:
    import shutil
    import tempfile

    from trainer.lora import SERVED_RANK, save_adapter, shrink_rank
    from trainer.sft import forget_checkpoints

    job = run.job
    job.adapters.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".making-", dir=job.adapters))
    try:
        save_adapter(run.model, run.base, staging)
        notices = []
        if shrink_rank(staging, SERVED_RANK):
            notices = [f"the engine takes LoRA up to rank {SERVED_RANK}: shrunk from {run.preset.rank} by SVD"]
            run.tell(Note(notices[0]))
        adapter = finish_adapter(staging, job.adapters, _manifest(run, made, notices))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    forget_checkpoints(job.run)
    return adapter


def _manifest(run: Run, made: Made, notices: Sequence[str]) -> dict[str, Any]:
    job, base, trained = run.job, run.base, made.trained
    return {
        "version": job.version,
        "created_at": datetime.now(UTC),
        "commit": made.ledger.commit,
        "base_model": TrainedOn.of(base),
        "prompt_version": job.prompt_version,
        "data": _counts(job, made.ledger, made.plan),
        "hyper_parameters": {
            **asdict(run.preset),
            "backend": run.backend,
            "seed": job.seed,
            "micro_rows": job.micro_rows,
            "learn_validation": job.learn_validation,
            "four_bit": job.four_bit,
        },
        "losses": made.losses,
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "tokens": trained.tokens,
        "notices": tuple(notices),
    }


def _counts(job: TrainingJob, ledger: Ledger, plan: Plan) -> DataCounts:
    return DataCounts(
        files=ledger.sources("train"),
        raw_examples=plan.raw_examples,
        chat_examples=plan.chat_examples,
        raw_tokens=plan.raw_tokens,
        chat_tokens=plan.chat_tokens,
        held_out_files=ledger.sources("held-out"),
        held_out_examples=ledger.count("held-out", raw=True),
        corpus=job.corpus.name,
        corpus_sha256=ledger.sha256,
    )


def main(arguments: list[str]) -> int:
    """The edge of the process: stdout is the events' alone, everything else that is printed goes to stderr."""
    events = event_stream()
    end_with_parent()
    job = TrainingJob.model_validate_json(Path(arguments[0]).read_text())
    with (job.run / "events.jsonl").open("a", encoding="utf-8") as record:
        tell = _teller(events, record) if not rank() else _say_nothing
        try:
            adapter = run(job, tell)
        except (TrainingError, AdapterError) as error:
            tell(Failed(str(error)))
            return 1
        except OSError as error:
            tell(
                Failed(f"{error.strerror or error}: {error.filename or job.run} (free some disk space and start again)")
            )
            return 1
        except Exception as error:  # the edge: whatever it was, the one who waits must read a line about it
            log.exception("training failed")
            tell(Failed(f"training failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"))
            return 1
        if adapter is not None:
            tell(Finished(adapter.version))
    return 0


def _say_nothing(_: TrainingEvent) -> None:
    pass


def _teller(events: TextIO, record: TextIO) -> Tell:
    def tell(event: TrainingEvent) -> None:
        line = event_to_line(event)
        events.write(line)
        try:
            record.write(line)
            record.flush()
        except OSError:  # a full disk must not hide the message that says so
            return

    return tell


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
