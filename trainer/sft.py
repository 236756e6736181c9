"""Door to TRL: the training loop over packed rows, with a clock, checkpoints and a line for every step."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from trainer.job import Step, TrainingError, TrainingEvent
from trainer.lora import as_columns, collate, compute_dtype
from trainer.plan import Plan, learning_rate_share
from trainer.presets import Preset
from trainer.ranks import rank, same_for_all, world_size

CLOCK_FILE = "clock.json"


@dataclass(slots=True)
class Clock:
    """What one run has used, over all its processes: seconds of training, and the losses of its first and last
    steps.
    """

    elapsed_s: float = 0.0
    first_loss: float | None = None
    last_losses: tuple[float, ...] = ()

    @property
    def last_loss(self) -> float | None:
        return sum(self.last_losses) / len(self.last_losses) if self.last_losses else None


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends: after `budget_s` seconds of training or `steps` steps, whichever comes first."""

    budget_s: float
    steps: int


@dataclass(frozen=True, slots=True)
class Course:
    """How a run over a plan goes: its own `folder`, and what decides its steps.

    `probe`, when given, is called `probes` times along the run, evenly, with the share of it that is done.
    """

    folder: Path
    preset: Preset
    limits: Limits
    seed: int
    micro_rows: int = 1
    checkpoint_every_s: float = 300.0
    probes: int = 0
    probe: Callable[[float], object] | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """How a run went: optimiser steps, tokens read, seconds, mean loss of the first step and the last ten (nats a
    token).
    """

    steps: int
    tokens: int
    seconds: float
    first_loss: float | None
    last_loss: float | None


def seconds_per_token(model: Any, plan: Plan, pad: int) -> float:
    """How long a token takes, forward and backward, measured on the plan's first row; changes nothing."""
    batch = {
        name: value.to(next(model.parameters()).device)
        for name, value in collate([as_columns(plan.rows[0])], pad).items()
    }
    model.train()
    seconds = 0.0
    for _ in range(2):  # the first pass also pays for what is set up once
        began = time.monotonic()
        model(**batch, use_cache=False).loss.backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.monotonic() - began
        model.zero_grad(set_to_none=True)
    return seconds / batch["input_ids"].numel()


def train(model: Any, tokenizer: Any, plan: Plan, course: Course, tell: Callable[[TrainingEvent], None]) -> Trained:
    """Train `model` in place along `plan`; goes on from the last whole checkpoint in the run's folder, if there is one.

    Raises `TrainingError` when the loss is no number, `OSError` when the disk is full.
    """
    preset = course.preset
    apart = torch.cuda.is_available() and "unsloth" in sys.modules
    each = rows_each(preset.rows_per_step, world_size())
    micro = rows_at_once(course.micro_rows, each)
    accumulate_rows = each // micro
    steps = max(1, math.ceil(len(plan.rows) / preset.rows_per_step))
    steps = min(steps, course.limits.steps) if course.limits.steps else steps
    checkpoint = last_checkpoint(course.folder)
    clock = Clock(**json.loads((checkpoint / CLOCK_FILE).read_text())) if checkpoint else Clock()
    course = replace(course, limits=Limits(course.limits.budget_s, steps))
    watch = _Watch(plan, course, clock, tell)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=preset.learning_rate, betas=(0.9, preset.beta2), weight_decay=preset.weight_decay, fused=True,
    )  # fmt: skip
    trainer = _trainer_class()(
        model=model,
        args=_config(course, micro, accumulate_rows, steps),
        train_dataset=Dataset.from_list([as_columns(row) for row in plan.rows]),
        processing_class=tokenizer,
        data_collator=lambda rows: collate(rows, tokenizer.pad_token_id, with_mask=apart),
        callbacks=[watch],
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, watch.learning_rate_share)),
    )
    # Its own progress printer writes to stdout, which is not ours.
    trainer.remove_callback(_printer())
    if checkpoint and world_size() > 1:
        _read_as_any_cpu()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    done = trainer.state.global_step
    return Trained(done, watch.tokens_after(done), clock.elapsed_s, clock.first_loss, clock.last_loss)


def _read_as_any_cpu() -> None:
    """Let torch read a checkpoint for "cpu:0": so is the device of several CPU processes called, and it knows "cpu"."""
    torch.serialization.register_package(0, lambda obj: None, lambda obj, at: obj if at.startswith("cpu:") else None)


def rows_each(rows_per_step: int, processes: int) -> int:
    """Rows of a step for each of `processes`. Raises `TrainingError` when they cannot be shared out evenly."""
    if rows_per_step % processes:
        raise TrainingError(f"{processes} processes cannot share {rows_per_step} rows: set [trainer] rows_per_step")
    return rows_per_step // processes


def rows_at_once(wanted: int, rows_per_step: int) -> int:
    """The most rows up to `wanted` that divide a step: the effective batch stays what it was asked to be."""
    return max(rows for rows in range(1, min(wanted, rows_per_step) + 1) if rows_per_step % rows == 0)


def _trainer_class() -> Any:
    """SFTTrainer, whose loss on a CPU is the model's own unless Unsloth brings one: TRL 1.15's is a Triton kernel, and
    Triton has no CPU driver (tried: "0 active drivers")."""
    if torch.cuda.is_available() or "unsloth" in sys.modules:
        return SFTTrainer

    class CpuTrainer(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            return Trainer.compute_loss(self, model, {**inputs, "use_cache": False}, *args, **kwargs)

    return CpuTrainer


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole: its clock is written last."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / CLOCK_FILE).is_file()]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


def _config(course: Course, micro: int, accumulate_rows: int, steps: int) -> SFTConfig:
    has_gpu, preset = torch.cuda.is_available(), course.preset
    return SFTConfig(
        output_dir=str(course.folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulate_rows,
        max_steps=steps,
        learning_rate=preset.learning_rate,
        max_grad_norm=preset.max_grad_norm,
        seed=course.seed,
        data_seed=course.seed,
        use_cpu=not has_gpu,
        ddp_backend="gloo" if world_size() > 1 and not has_gpu else None,
        ddp_find_unused_parameters=False,
        bf16=compute_dtype() == torch.bfloat16,
        gradient_checkpointing=has_gpu,
        # Our rows are tokenised, packed and ordered already; TRL's own defaults would cut them at 1,024 tokens.
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
        max_length=None,
        packing=False,
        remove_unused_columns=False,
        logging_steps=1,
        logging_strategy="steps",
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=1,
        report_to="tensorboard" if find_spec("tensorboard") else "none",
        disable_tqdm=True,
        dataloader_pin_memory=has_gpu,
    )


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Tells every step, ends the run in time, and asks for checkpoints."""

    def __init__(self, plan: Plan, course: Course, clock: Clock, tell: Callable[[TrainingEvent], None]) -> None:
        self._plan, self._course, self._limits, self._clock = plan, course, course.limits, clock
        self._tokens = [0, *accumulate(_tokens_per_step(plan, course.preset.rows_per_step))]
        self._tell = tell
        self._before_s = clock.elapsed_s
        self._began = time.monotonic()
        self._saved_s = clock.elapsed_s
        self._probed = 0

    def learning_rate_share(self, step: int) -> float:
        # By steps or by the clock, whichever is further: with a budget the rate has come down when the time is up.
        return learning_rate_share(self._done(step), self._plan.stage_ends, self._course.preset)

    def _done(self, step: int) -> float:
        return max(step / self._limits.steps, self._clock.elapsed_s / self._limits.budget_s)

    def tokens_after(self, step: int) -> int:
        return self._tokens[min(step, len(self._tokens) - 1)]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        elapsed_s = self._clock.elapsed_s = same_for_all(self._before_s + time.monotonic() - self._began)
        per_step = elapsed_s / state.global_step
        if elapsed_s + per_step / 2 >= self._limits.budget_s:
            control.should_training_stop = True
        self._probe(self._done(state.global_step))
        if elapsed_s - self._saved_s >= self._course.checkpoint_every_s and not control.should_training_stop:
            control.should_save = True
            self._saved_s = elapsed_s

    def _probe(self, done: float) -> None:
        """Calls the probe at 1/n, 2/n ... of the run, but not at its end: what comes after is measured anyway."""
        due = min(int(done * self._course.probes), self._course.probes - 1)
        if self._course.probe is not None and due > self._probed:
            self._probed = due
            self._course.probe(done)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if rank():
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        staging = folder / f".{CLOCK_FILE}"
        staging.write_text(json.dumps(asdict(self._clock)))
        staging.rename(folder / CLOCK_FILE)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {state.global_step}: lower [trainer] learning_rate")
        clock = self._clock
        clock.first_loss = loss if clock.first_loss is None else clock.first_loss
        clock.last_losses = (*clock.last_losses[-9:], loss)
        tokens = self.tokens_after(state.global_step)
        per_step = clock.elapsed_s / state.global_step
        left = min((self._limits.steps - state.global_step) * per_step, self._limits.budget_s - clock.elapsed_s)
        rate = tokens / clock.elapsed_s if clock.elapsed_s else 0.0
        self._tell(
            Step(state.global_step, self._limits.steps, round(loss, 5), float(logs.get("learning_rate", 0.0)), tokens,
                 round(rate, 1), round(clock.elapsed_s, 2), round(max(0.0, left), 1))
        )  # fmt: skip


def _tokens_per_step(plan: Plan, rows_per_step: int) -> Sequence[int]:
    rows = plan.rows
    return [sum(map(len, rows[i : i + rows_per_step])) for i in range(0, len(rows), rows_per_step)]


def forget_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run that is over; they are larger than the adapter."""
    for path in folder.glob("checkpoint-*"):
        if os.path.lexists(path):
            shutil.rmtree(path)
