"""Starting the training process and ending it: its own process group, its own folder, an environment that stays
offline.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import trainer
from indexer.child import end_group
from trainer.job import Failed, Finished, TrainingError, TrainingEvent, line_to_event

LOG_NAME = "training.log"


class Job(Protocol):
    """What a process is told: written as JSON into its own folder `run`."""

    @property
    def run(self) -> Path: ...
    def model_dump_json(self, *, indent: int | None = ...) -> str: ...


# What runs a job: a process of its own, or in a test this process.
Runner = Callable[["Job", Callable[[TrainingEvent], None], str], None]


def run_job(job: Job, on_event: Callable[[TrainingEvent], None], module: str = "trainer.train") -> None:
    """Run `python -m MODULE` on `job` to its end, handing on every event. Raises `TrainingError`.

    Whatever ends this call early (Ctrl-C, an exception of `on_event`) ends the process and its group first.
    """
    job.run.mkdir(parents=True, exist_ok=True)
    described = job.run / f"{module.rpartition('.')[2]}-job.json"
    described.write_text(job.model_dump_json(indent=2))
    last: TrainingEvent | None = None
    with _started(command_for(module, described, getattr(job, "processes", 1)), job.run) as process:
        assert process.stdout
        for line in process.stdout:
            last = line_to_event(line)
            on_event(last)
        status = process.wait()
    if isinstance(last, Failed):
        raise TrainingError(last.text)
    if status != 0 or not isinstance(last, Finished):
        raise TrainingError(_what_happened(status, job.run / LOG_NAME))


def command_for(module: str, described: Path, processes: int) -> list[str]:
    """What runs `module` on a job: itself, or with several processes by `accelerate launch`, one on each GPU."""
    if processes == 1:
        return [sys.executable, "-P", "-m", module, str(described)]
    accelerate = [sys.executable, "-P", "-m", "accelerate.commands.launch"]
    launch = [*accelerate, "--multi_gpu", "--num_processes", str(processes)]
    # Everything said: what is left open it asks of a configuration file in the user's home, or warns about.
    plain = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return [*launch, *plain, "--module", module, str(described)]


@contextmanager
def _started(command: Sequence[str], run: Path) -> Iterator[subprocess.Popen[str]]:
    with (run / LOG_NAME).open("ab") as log:
        process = subprocess.Popen(
            command,
            # The frameworks write caches to where they are started: here, not into the user's repository.
            cwd=run, env=_environment(run), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            end_group(process)
            assert process.stdout
            process.stdout.close()


def _environment(run: Path) -> dict[str, str]:
    ours = str(Path(trainer.__file__).resolve().parents[1])
    return {
        **os.environ,
        # The base model is on disk by now: nothing that runs here has a reason to use the network.
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_COMPILE_LOCATION": str(run / "unsloth_compiled_cache"),
        "WANDB_MODE": "disabled",
        "TENSORBOARD_LOGGING_DIR": str(run / "tensorboard"),
        "TRACKIO_DISABLED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Threads that wait give their core to the others: spinning, two busy processes ran at a tenth of their speed.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH", "")))),
    }


def _what_happened(status: int, log: Path) -> str:
    if status == -signal.SIGKILL:
        return "the training process was killed (mostly: out of memory). Lower [trainer] row_tokens or free memory"
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()] if log.exists() else []
    return f"the training process ended with status {status}: {lines[-1] if lines else 'it said nothing'} (see {log})"
