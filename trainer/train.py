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
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from server.adapter import Adapter, AdapterError, DataCounts, Losses, TrainedOn, finish_adapter
from trainer.child import end_with_parent, event_stream
from trainer.corpus import Example, read_examples
from trainer.encoding import BadTemplate, Row
from trainer.job import Failed, Finished, HeldOut, Note, Stage, TrainingError, TrainingEvent, TrainingJob, event_to_line
from trainer.ledger import Ledger, read_ledger
from trainer.plan import Plan, held_out_rows, make_plan
from trainer.presets import Preset

if TYPE_CHECKING:
    from trainer.sft import Trained

log = logging.getLogger(__name__)

Tell = Callable[[TrainingEvent], None]


def run(job: TrainingJob, tell: Tell) -> Adapter:
    """Train the adapter `job.version`. Raises `TrainingError`, `AdapterError`, or `OSError` when the disk is full."""
    began = time.monotonic()
    base, preset = job.base_model(), job.hyper_parameters()
    ledger, examples = _read_corpus(job)
    tell(Stage("loading the base model"))
    from trainer.lora import choose_backend, load_with_lora

    backend = choose_backend(job.backend)
    _check_memory(base.parameters, preset)
    model, tokenizer = load_with_lora(base, preset, backend, job.seed)
    kept_out = held_out_rows(examples, tokenizer, base.end_of_turn, preset, job.held_out_tokens)
    tell(Stage("loss on held-out files before training"))
    before, after_s = _held_out_loss(model, kept_out, "before", tell)
    after_s *= 1.5  # another process may be busy by then
    left_s = job.budget_s - (time.monotonic() - began) - after_s
    plan = _plan(job, preset, examples, model, tokenizer, left_s, tell)
    tell(Stage("training"))
    trained = _train(job, preset, plan, model, tokenizer, job.budget_s - (time.monotonic() - began) - after_s - 3, tell)
    tell(Stage("loss on held-out files after training"))
    after, _ = _held_out_loss(model, kept_out, "after", tell)
    losses = Losses(
        train_first=trained.first_loss, train=trained.last_loss, held_out_before=before, held_out_after=after
    )
    tell(Stage("saving the adapter"))
    return _finish(job, preset, ledger, plan, trained, losses, backend, model, tell)


def _read_corpus(job: TrainingJob) -> tuple[Ledger, list[Example]]:
    try:
        ledger = read_ledger(job.corpus)
        examples = read_examples(job.corpus, ledger)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"the corpus {job.corpus.name} cannot be read ({error}): collect again") from error
    if ledger.tokenizer != job.base["sha256"]:
        raise TrainingError(f"the corpus {job.corpus.name} was made for another base model: collect again")
    if not any(example.entry.split == "train" for example in examples):
        raise TrainingError(f"the corpus {job.corpus.name} has no example to train on")
    return ledger, examples


def _check_memory(parameters: int, preset: Preset) -> None:
    """Refuse what cannot fit, rather than be killed in the middle. Raises `TrainingError`."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return
    # float32 weights, the file's pages while they are read, and about 60 KB of activations a token (SmolLM2: 30
    # layers of 576, measured 1.4 GB for a row of 1,024 with its logits).
    needed = parameters * 6 + preset.row_tokens * 1_400_000
    free = psutil.virtual_memory().available
    if needed > free:
        raise TrainingError(
            f"training needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: "
            "close something, lower [trainer] row_tokens, or take a smaller base model"
        )


def _held_out_loss(model: Any, rows: Sequence[Row], when: Any, tell: Tell) -> tuple[float | None, float]:
    """The loss and how long it took; None where nothing is held out."""
    from trainer.lora import loss_of

    if not rows:
        tell(Note("nothing is held out: the corpus has only one file"))
        return None, 0.0
    began = time.monotonic()
    loss, tokens = loss_of(model, rows)
    tell(HeldOut(when, round(loss, 5), tokens))
    return loss, time.monotonic() - began


def _plan(
    job: TrainingJob, preset: Preset, examples: Sequence[Example], model: Any, tokenizer: Any, left_s: float, tell: Tell
) -> Plan:
    """What fits into the time. A run that goes on takes the plan of the process before it."""
    from trainer.lora import choose_backend, keeps_packed_apart
    from trainer.sft import seconds_per_token

    kept = job.run / "plan.json"
    whole = sum(example.entry.tokens for example in examples) * 3

    def plan_for(max_tokens: int) -> Plan:
        end = job.base_model().end_of_turn
        return make_plan(
            examples, tokenizer, end, preset, max_tokens, job.seed, learn_prompts=job.learn_prompts,
            packs=keeps_packed_apart(choose_backend(job.backend)),
        )  # fmt: skip

    try:
        if kept.is_file():
            return plan_for(int(json.loads(kept.read_text())["max_tokens"]))
        max_tokens = whole
        if not job.max_steps:
            probe = plan_for(preset.row_tokens)
            max_tokens = max(preset.row_tokens, int(left_s / seconds_per_token(model, probe, tokenizer.pad_token_id)))
        else:
            max_tokens = job.max_steps * preset.rows_per_step * preset.row_tokens
        plan = plan_for(min(max_tokens, whole))
    except BadTemplate as error:
        raise TrainingError(f"{job.base['name']}: {error}") from error
    kept.write_text(json.dumps({"max_tokens": min(max_tokens, whole)}))
    tell(Note(f"{plan.raw_examples} pieces of code and {plan.chat_examples} conversations: {plan.tokens} tokens"))
    return plan


def _train(
    job: TrainingJob, preset: Preset, plan: Plan, model: Any, tokenizer: Any, budget_s: float, tell: Tell
) -> Trained:
    import torch

    from trainer.sft import Limits, train

    micro = job.micro_rows
    while True:
        try:
            limits = Limits(max(budget_s, 1.0), job.max_steps)
            return train(model, tokenizer, plan, preset, limits, job.run, job.seed, micro, job.checkpoint_every_s, tell)
        except (torch.OutOfMemoryError, MemoryError) as error:
            if micro == 1:
                raise TrainingError("out of memory with one row at a time: lower [trainer] row_tokens") from error
            micro //= 2
            tell(Note(f"out of memory: going on with {micro} rows at a time, the same effective batch"))


def _finish(
    job: TrainingJob, preset: Preset, ledger: Ledger, plan: Plan, trained: Trained, losses: Losses, backend: str,
    model: Any, tell: Tell,
) -> Adapter:  # fmt: skip
    import shutil
    import tempfile

    from trainer.lora import SERVED_RANK, save_adapter, shrink_rank
    from trainer.sft import forget_checkpoints

    base = job.base_model()
    job.adapters.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".making-", dir=job.adapters))
    try:
        save_adapter(model, base, staging)
        notices = []
        if shrink_rank(staging, SERVED_RANK):
            notices = [f"the engine takes LoRA up to rank {SERVED_RANK}: shrunk from {preset.rank} by SVD"]
            tell(Note(notices[0]))
        adapter = finish_adapter(
            staging,
            job.adapters,
            {
                "version": job.version,
                "created_at": datetime.now(UTC),
                "commit": ledger.commit,
                "base_model": TrainedOn(name=base.name, revision=base.revision, sha256=base.sha256),
                "prompt_version": job.prompt_version,
                "data": _counts(job, ledger, plan),
                "hyper_parameters": {
                    **asdict(preset),
                    "backend": backend,
                    "seed": job.seed,
                    "micro_rows": job.micro_rows,
                },
                "losses": losses,
                "steps": trained.steps,
                "seconds": round(trained.seconds, 1),
                "tokens": trained.tokens,
                "notices": tuple(notices),
            },
        )
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    forget_checkpoints(job.run)
    return adapter


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
        tell = _teller(events, record)
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
        tell(Finished(adapter.version))
    return 0


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
