"""A real model small enough for every test: 2 layers, 64 wide, a byte-level tokenizer; built in the process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.base_model import BaseModel
from trainer import evaluate, train
from trainer.evaluate import EvaluationJob
from trainer.job import TrainingEvent, TrainingJob, event_to_line
from trainer.process import Job, Runner

TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def make_tokenizer(template: str = TEMPLATE) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=2048)
    fast.add_special_tokens(
        {"eos_token": "<|end|>", "pad_token": "<|end|>", "additional_special_tokens": ["<|start|>"]}
    )
    fast.chat_template = template
    return fast


def save_tiny_model(folder: Path, template: str = TEMPLATE, seed: int = 0) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=258, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, eos_token_id=256, pad_token_id=256, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    make_tokenizer(template).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def tiny_base(tiny_folder: Path) -> BaseModel:
    return BaseModel("tiny", "1", "ab" * 32, tiny_folder, "MIT", 2048, "<|end|>", None, 123_456, "built for the test")


@pytest.fixture(scope="session", name="make_tokenizer")
def _make_tokenizer() -> Callable[[str], Any]:
    return make_tokenizer


@pytest.fixture(scope="session", name="save_tiny_model")
def _save_tiny_model() -> Callable[..., Path]:
    return save_tiny_model


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="session")
def in_this_process() -> Runner:
    """Runs a job here, keeping its events as the process does: the processes themselves are proved elsewhere."""

    def run(job: Job, on_event: Callable[[TrainingEvent], None], module: str) -> None:
        job.run.mkdir(parents=True, exist_ok=True)

        def tell(event: TrainingEvent) -> None:
            with (job.run / "events.jsonl").open("a") as record:
                record.write(event_to_line(event))
            on_event(event)

        if module == "trainer.train":
            assert isinstance(job, TrainingJob)
            train.run(job, tell)
        else:
            assert isinstance(job, EvaluationJob)
            evaluate.run(job, tell)

    return run


Commit = Callable[..., str]


@pytest.fixture
def git_workspace(tmp_path: Path) -> tuple[Path, Commit]:
    """An empty repository, and `commit(day, {path: text})` which writes the files, commits and returns the hash."""
    root = tmp_path / "workspace"
    root.mkdir()

    def git(*arguments: str, day: int = 1) -> str:
        date = f"2026-11-{day:02}T12:00:00Z"
        environment = {
            "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@x.org",
            "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@x.org", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
            "GIT_CONFIG_NOSYSTEM": "1",
        }  # fmt: skip
        done = subprocess.run(
            ["git", *arguments], cwd=root, env=environment, capture_output=True, check=True, text=True
        )
        return done.stdout.strip()

    def commit(day: int, files: dict[str, str]) -> str:
        for path, text in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode())
        git("add", "-A")
        git("commit", "-q", "-m", "change", day=day)
        return git("rev-parse", "HEAD")

    git("init", "-q", "-b", "main")
    return root, commit
