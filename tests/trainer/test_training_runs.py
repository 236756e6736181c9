"""Training, with a model built in the process: it learns, ends, saves, goes on, and fails without harm."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.adapter import Adapter, find_broken, list_adapters, promote, read_current
from server.base_model import BaseModel
from trainer.corpus import CorpusPlan, build_corpus
from trainer.job import HeldOut, Note, Stage, Step, TrainingError, TrainingEvent, TrainingJob, line_to_event
from trainer.presets import Preset, find_preset
from trainer.process import command_for, run_job
from trainer.sources.snapshot import Snapshot, SnapshotFile
from trainer.train import run

TINY = replace(find_preset("cpu"), rank=4, alpha=8, learning_rate=2e-2, row_tokens=128, example_tokens=128)


def code(number: int) -> str:
    """A file like no other: what is nearly the same is kept once."""
    name = f"total_{number}"
    return (
        f"def {name}(prices):\n    return sum(prices) + {number}\n\n\ndef café_{number}({name}):\r\n    return '🌍'\r\n"
        * 3
    )


@pytest.fixture
def make_job(tmp_path: Path, tiny_base: BaseModel) -> Callable[..., TrainingJob]:
    """`make_job(files=12, preset=TINY, **fields)`: a job over a corpus of that many files, in folders of its own."""

    def make(files: int = 12, preset: Preset = TINY, base: BaseModel = tiny_base, **fields: Any) -> TrainingJob:
        made = tuple(SnapshotFile(f"f{number}.py", code(number), 0.0) for number in range(files))
        snapshot = Snapshot("shop", "c0ffee", datetime(2026, 11, 23, tzinfo=UTC), made)
        corpus = tmp_path / f"corpus-{files}"
        plan = CorpusPlan(preset.example_tokens, 0.2, 1, 100)
        build_corpus(snapshot, base.folder / "tokenizer.json", base.sha256, plan, corpus)
        version = fields.pop("version", "v1")
        (tmp_path / "runs" / version).mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {
            "corpus": corpus, "run": tmp_path / "runs" / version, "adapters": tmp_path / "adapters", "version": version,
            "base": {**asdict(base), "folder": str(base.folder)}, "preset": asdict(preset), "backend": "trl",
            "budget_s": 600, "max_steps": 8, "seed": 1, "micro_rows": 1, "learn_prompts": False,
            "checkpoint_every_s": 600, "held_out_tokens": 512, "prompt_version": 1,
        }  # fmt: skip
        return TrainingJob(**{**values, **fields})

    return make


def train(job: TrainingJob) -> tuple[Adapter, list[TrainingEvent]]:
    events: list[TrainingEvent] = []
    adapter = run(job, events.append)
    assert adapter is not None
    return adapter, events


def losses(events: list[TrainingEvent]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Step)]


def test_a_run_learns_and_leaves_a_whole_adapter(make_job: Callable[..., TrainingJob]) -> None:
    adapter, events = train(make_job())
    assert losses(events)[-1] < losses(events)[0]
    made = adapter.manifest
    assert made.losses.held_out_after is not None
    assert made.losses.held_out_before is not None
    assert made.losses.held_out_after < made.losses.held_out_before
    assert (made.steps, made.commit, made.base_model.sha256, made.prompt_version) == (8, "c0ffee", "ab" * 32, 1)
    assert made.tokens == [event.tokens for event in events if isinstance(event, Step)][-1] > 0
    assert made.hyper_parameters["rank"] == 4
    assert [event.when for event in events if isinstance(event, HeldOut)] == ["before", "after"]
    assert [adapter.version for adapter in list_adapters(adapter.folder.parent)] == ["v1"]
    assert find_broken(adapter.folder.parent) == {}


def test_the_saved_adapter_gives_the_losses_that_were_reported(
    make_job: Callable[..., TrainingJob], tiny_base: BaseModel
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainer.corpus import read_examples
    from trainer.ledger import read_ledger
    from trainer.lora import loss_of
    from trainer.plan import Encoder, held_out_rows

    job = make_job()
    adapter, _ = train(job)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype="float32"), adapter.folder
    )
    examples = read_examples(job.corpus, read_ledger(job.corpus))
    tokenizer = AutoTokenizer.from_pretrained(tiny_base.folder)
    loss, _ = loss_of(model, held_out_rows(examples, Encoder(tokenizer, "<|end|>"), TINY, 512))
    assert loss == pytest.approx(adapter.manifest.losses.held_out_after, abs=1e-4)


def test_the_same_inputs_give_the_same_adapter(make_job: Callable[..., TrainingJob]) -> None:
    one, _ = train(make_job(version="one"))
    two, _ = train(make_job(version="two"))
    assert one.manifest.files == two.manifest.files


def test_a_killed_run_goes_on_with_the_losses_it_would_have_had(make_job: Callable[..., TrainingJob]) -> None:
    whole, events = train(make_job(version="whole"))
    steps: list[TrainingEvent] = []

    class Killed(BaseException):
        pass

    def stop_at_5(event: TrainingEvent) -> None:
        steps.append(event)
        if isinstance(event, Step) and event.step == 5:
            raise Killed

    broken = make_job(version="broken", checkpoint_every_s=1e-9)
    with pytest.raises(Killed):
        run(broken, stop_at_5)
    resumed, rest = train(broken)
    first = next(event.step for event in rest if isinstance(event, Step))
    assert first in (5, 6)
    assert losses(rest) == pytest.approx(losses(events)[first - 1 :], abs=1e-6)
    assert resumed.manifest.files == whole.manifest.files
    assert not list(broken.run.glob("checkpoint-*"))


def test_a_process_killed_by_the_system_goes_on_with_the_losses_it_would_have_had(
    make_job: Callable[..., TrainingJob],
) -> None:
    _, events = train(make_job(version="whole"))
    job = make_job(version="shot", checkpoint_every_s=1e-9)
    (job.run / "train-job.json").write_text(job.model_dump_json())
    command = [sys.executable, "-m", "trainer.train", str(job.run / "train-job.json")]
    before: dict[int, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            event = line_to_event(line)
            if isinstance(event, Step):
                before[event.step] = event.loss
                if event.step == 4:
                    process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    resumed, rest = train(job)
    after = {event.step: event.loss for event in rest if isinstance(event, Step)}
    assert min(after) > 1
    whole = {event.step: event.loss for event in events if isinstance(event, Step)}
    assert before | after == pytest.approx(whole, abs=1e-5)
    assert resumed.manifest.steps == 8


def test_half_a_checkpoint_is_passed_over(make_job: Callable[..., TrainingJob]) -> None:
    from trainer.sft import last_checkpoint

    job = make_job()
    for step, whole in ((5, True), (9, False)):
        (job.run / f"checkpoint-{step}").mkdir()
        if whole:
            (job.run / f"checkpoint-{step}" / "clock.json").write_text("{}")
    assert last_checkpoint(job.run) == job.run / "checkpoint-5"


def test_a_budget_ends_a_run_with_a_usable_adapter(make_job: Callable[..., TrainingJob]) -> None:
    long = replace(TINY, epochs=10_000)
    adapter, events = train(make_job(preset=long, budget_s=6, max_steps=0))
    planned = next(event.steps for event in events if isinstance(event, Step))
    assert 0 < adapter.manifest.steps < planned
    assert [event.learning_rate for event in events if isinstance(event, Step)][-1] < long.learning_rate / 2


def test_a_corpus_of_one_example_trains_and_says_that_nothing_is_held_out(make_job: Callable[..., TrainingJob]) -> None:
    adapter, events = train(make_job(files=1, max_steps=2))
    assert adapter.manifest.losses.held_out_before is None
    assert Note("nothing is held out: the corpus has only one file") in events


def test_a_loss_that_is_no_number_fails_and_leaves_no_adapter(make_job: Callable[..., TrainingJob]) -> None:
    job = make_job(preset=replace(TINY, learning_rate=1e30, max_grad_norm=1e30))
    with pytest.raises(TrainingError, match=r"lower \[trainer\] learning_rate"):
        run(job, lambda _: None)
    assert list(job.adapters.glob("*")) == []


def test_a_template_without_an_end_token_fails_with_its_name(
    make_job: Callable[..., TrainingJob], tiny_base: BaseModel, save_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path / "endless", "{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    with pytest.raises(TrainingError, match=r"tiny: the chat template writes no <\|end\|> after an answer"):
        run(make_job(base=replace(tiny_base, folder=folder)), lambda _: None)


def test_a_corpus_of_another_base_model_is_not_trained_on(
    make_job: Callable[..., TrainingJob], tiny_base: BaseModel
) -> None:
    job = make_job()
    other = job.model_copy(update={"base": {**job.base, "sha256": "cd" * 32}})
    with pytest.raises(TrainingError, match="was made for another base model: collect again"):
        run(other, lambda _: None)


def test_a_damaged_base_model_fails_with_one_line(
    make_job: Callable[..., TrainingJob], tiny_base: BaseModel, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_base.folder, tmp_path / "damaged")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="tiny cannot be loaded from"):
        run(make_job(base=replace(tiny_base, folder=folder)), lambda _: None)


def test_two_stages_learn_the_code_first_and_start_the_rate_anew(make_job: Callable[..., TrainingJob]) -> None:
    staged = replace(TINY, stages="raw,chat", chat_share=1.0)
    _, events = train(make_job(preset=staged, max_steps=0, budget_s=600))
    rates = [event.learning_rate for event in events if isinstance(event, Step)]
    rises = [i for i in range(2, len(rates)) if rates[i] > rates[i - 1] * 1.5]
    assert rises


def test_a_process_tells_its_events_and_ctrl_c_leaves_the_adapter_in_service(
    make_job: Callable[..., TrainingJob], tmp_path: Path
) -> None:
    first = make_job(max_steps=2)
    events: list[TrainingEvent] = []
    run_job(first, events.append)
    promote(first.adapters, "v1")
    assert events[0] == Stage("loading the base model")
    assert (first.run / "events.jsonl").read_text().count("\n") == len(events)
    made = ["events.jsonl", "plan.json", "tensorboard", "train-job.json", "training.log"]
    assert sorted(path.name for path in first.run.iterdir()) == made
    second = make_job(version="v2", preset=replace(TINY, epochs=10_000), max_steps=0)

    def interrupt(event: TrainingEvent) -> None:
        if isinstance(event, Stage):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(second, interrupt)
    current = read_current(first.adapters)
    assert current is not None
    assert current.version == "v1"
    assert [adapter.version for adapter in list_adapters(first.adapters)] == ["v1"]


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """Files of at most 20,000 bytes in this process: what is written while training fits, the weights do not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files_only")
def test_a_full_disk_while_saving_is_one_line_and_leaves_nothing(make_job: Callable[..., TrainingJob]) -> None:
    job = make_job(files=3, max_steps=1)
    with pytest.raises(TrainingError, match=r"the adapter cannot be written .* free some disk space and start again"):
        run(job, lambda _: None)
    assert list(job.adapters.glob("*")) == []


def test_out_of_memory_halves_the_rows_at_once_and_changes_no_loss(make_job: Callable[..., TrainingJob]) -> None:
    import torch

    four = replace(TINY, rows_per_step=4)
    _, events = train(make_job(files=30, version="whole", preset=four, micro_rows=4, max_steps=5))
    for version, every_s in (("anew", 600), ("from-checkpoint", 1e-9)):
        seen: list[TrainingEvent] = []

        def fail_once(event: TrainingEvent, seen: list[TrainingEvent] = seen) -> None:
            seen.append(event)
            if (
                isinstance(event, Step)
                and event.step == 3
                and not any(isinstance(e, Note) and "out of" in e.text for e in seen)
            ):
                raise torch.OutOfMemoryError("no more")

        job = make_job(files=30, version=version, preset=four, micro_rows=4, max_steps=5, checkpoint_every_s=every_s)
        run(job, fail_once)
        assert Note("out of memory: going on with 2 rows at a time, the same effective batch") in seen
        again = {event.step: event.loss for event in seen if isinstance(event, Step)}
        assert list(again.values()) == pytest.approx(losses(events), abs=2e-3)


def test_out_of_memory_with_one_row_is_one_line(make_job: Callable[..., TrainingJob]) -> None:
    import torch

    def fail(event: TrainingEvent) -> None:
        if isinstance(event, Step):
            raise torch.OutOfMemoryError("no more")

    with pytest.raises(TrainingError, match=r"out of memory with 1 row\(s\) at a time: lower \[trainer\] row_tokens"):
        run(make_job(), fail)


def test_the_rows_at_once_always_divide_the_step() -> None:
    from trainer.sft import rows_at_once

    assert [rows_at_once(wanted, 8) for wanted in (1, 3, 4, 7, 8, 99)] == [1, 2, 4, 4, 8, 8]
    assert rows_at_once(4, 6) == 3


def test_the_held_out_loss_is_taken_along_the_way(make_job: Callable[..., TrainingJob]) -> None:
    _, events = train(make_job(probes=4))
    taken = [event for event in events if isinstance(event, HeldOut)]
    assert [event.when for event in taken] == ["before", "during", "during", "during", "after"]
    assert [event.done for event in taken[1:4]] == [0.25, 0.5, 0.75]
    assert taken[0].loss > taken[2].loss > taken[4].loss


@pytest.mark.parametrize(("rank", "alpha"), [(768, 1152), (512, 1024)])
def test_the_original_recipe_trains_and_is_served_at_a_rank_the_engine_takes(
    make_job: Callable[..., TrainingJob], rank: int, alpha: int
) -> None:
    from safetensors.numpy import load_file

    original = find_preset("original", rank=rank, alpha=alpha, row_tokens=128, example_tokens=128)
    assert (original.learning_rate, original.warmup_share, original.stages) == (2e-5, 0.0, "raw+chat")
    adapter, events = train(make_job(preset=original, max_steps=4, learn_prompts=True))
    rates = [event.learning_rate for event in events if isinstance(event, Step)]
    assert rates[0] == 2e-5
    assert rates == sorted(rates, reverse=True)
    shrunk = "the engine takes LoRA up to rank 512: shrunk from 768 by SVD"
    assert adapter.manifest.notices == ((shrunk,) if rank > 512 else ())
    config = json.loads((adapter.folder / "adapter_config.json").read_text())
    assert config["r"] == 512
    assert config["lora_alpha"] == (512 if rank > 512 else alpha)
    for name, weight in load_file(adapter.folder / "adapter_model.safetensors").items():
        assert weight.shape[0 if "lora_A" in name else 1] == 512, name


def test_two_processes_learn_what_one_learns(make_job: Callable[..., TrainingJob]) -> None:
    """On the CPU, by gloo: the processes that `accelerate launch` would start, one on each GPU."""
    pair = replace(TINY, rows_per_step=2)
    _, events = train(make_job(version="one", preset=pair, max_steps=5))
    job = make_job(version="two", preset=pair, max_steps=5)
    (job.run / "train-job.json").write_text(job.model_dump_json())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trainer.train", str(job.run / "train-job.json")]
    processes = [
        subprocess.Popen(
            command, env={**os.environ, **together, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[1][0] == ""
    shared = [line_to_event(line) for line in said[0][0].splitlines()]
    assert losses(shared) == pytest.approx(losses(events), abs=2e-3)
    assert [adapter.version for adapter in list_adapters(job.adapters)] == ["two", "one"]


def losses_by_step(job: TrainingJob) -> dict[int, float]:
    """Step -> loss, of a whole run in processes of its own."""
    events: list[TrainingEvent] = []
    run_job(job, events.append)
    return {event.step: event.loss for event in events if isinstance(event, Step)}


def worker_of_rank(rank: int) -> psutil.Process:
    """That training process of those that were started here."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "trainer.train" in process.cmdline() and process.environ().get("RANK") == str(rank):
                return process
    raise AssertionError(f"no process of rank {rank}")


def test_a_lost_worker_ends_the_run_which_goes_on_from_its_checkpoint_with_the_losses_of_one_process(
    make_job: Callable[..., TrainingJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes by `accelerate launch`, which on the CPU are joined by gloo; the same effective batch."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pair = replace(TINY, rows_per_step=2)
    alone = losses_by_step(make_job(version="alone", preset=pair, max_steps=6))
    job = make_job(version="together", preset=pair, max_steps=6, processes=2, checkpoint_every_s=1e-9)
    before: dict[int, float] = {}

    def lose_one(event: TrainingEvent) -> None:
        if isinstance(event, Step):
            before[event.step] = event.loss
            if event.step == 3:
                worker_of_rank(1).kill()

    with pytest.raises(TrainingError):
        run_job(job, lose_one)
    assert max(before) < 6
    assert [adapter.version for adapter in list_adapters(job.adapters)] == ["alone"]
    after = losses_by_step(job)
    assert min(after) > 1
    together = before | after
    assert list(together) == list(alone) == [1, 2, 3, 4, 5, 6]
    assert list(together.values()) == pytest.approx(list(alone.values()), abs=2e-3)
    assert [adapter.version for adapter in list_adapters(job.adapters)] == ["together", "alone"]


def test_several_gpus_are_started_by_accelerate_which_is_asked_nothing(tmp_path: Path) -> None:
    from accelerate.commands.launch import launch_command_parser

    assert command_for("trainer.train", tmp_path / "job.json", 1) == [
        sys.executable, "-P", "-m", "trainer.train", str(tmp_path / "job.json"),
    ]  # fmt: skip
    command = command_for("trainer.train", tmp_path / "job.json", 4)
    assert command[:4] == [sys.executable, "-P", "-m", "accelerate.commands.launch"]
    read = launch_command_parser().parse_args(command[4:])
    assert (read.num_processes, read.multi_gpu, read.module) == (4, True, True)
    assert (read.training_script, read.training_script_args) == ("trainer.train", [str(tmp_path / "job.json")])


def test_rows_that_the_processes_cannot_share_are_refused() -> None:
    from trainer.sft import rows_each

    assert rows_each(8, 4) == 2
    with pytest.raises(TrainingError, match=r"3 processes cannot share 8 rows: set \[trainer\] rows_per_step"):
        rows_each(8, 3)


def test_four_bits_without_a_gpu_are_refused(make_job: Callable[..., TrainingJob]) -> None:
    with pytest.raises(TrainingError, match=r"4 bits need a GPU: set \[trainer\] four_bit to false"):
        run(make_job(four_bit=True), lambda _: None)
