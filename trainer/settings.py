"""Settings of the night: sources, training, proof."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from indexer.settings import SectionSettings
from trainer.presets import Preset, find_preset

Association = Literal[
    "OWNER", "MEMBER", "COLLABORATOR", "CONTRIBUTOR", "FIRST_TIME_CONTRIBUTOR", "FIRST_TIMER", "MANNEQUIN", "NONE"
]


class TrainerSettings(SectionSettings):
    """[trainer]"""

    section: ClassVar[str] = "trainer"
    model_config = SettingsConfigDict(env_prefix="NIGHTSCHOOL_TRAINER__", extra="forbid", frozen=True)

    preset: Literal["auto", "default", "original", "two-stage", "cpu"] = Field(
        "auto", description="where the hyper-parameters come from: trainer/presets.py; auto takes cpu without a GPU"
    )
    backend: Literal["auto", "unsloth", "trl"] = Field(
        "auto", description="auto takes Unsloth where it is installed, else plain TRL and peft"
    )
    budget_minutes: float = Field(10, gt=0, description="training ends cleanly after this long; minutes")
    max_steps: int = Field(0, ge=0, description="optimiser steps after which training ends; 0: as the epochs say")
    seed: int = Field(
        3407, ge=0, description="of every random choice: LoRA's start, the order of rows, the held-out files"
    )

    rank: int | None = Field(None, ge=1, le=4096, description="LoRA rank; unset: the preset's")
    alpha: int | None = Field(None, ge=1, description="LoRA alpha (scale is alpha / rank); unset: the preset's")
    learning_rate: float | None = Field(None, gt=0, lt=1, description="peak learning rate; unset: the preset's")
    epochs: float | None = Field(None, gt=0, description="passes over the corpus; unset: the preset's")
    row_tokens: int | None = Field(None, ge=64, description="capacity of a packed row; tokens; unset: the preset's")
    rows_per_step: int | None = Field(None, ge=1, description="effective batch; rows; unset: the preset's")
    example_tokens: int | None = Field(None, ge=128, description="longest example; tokens; unset: the preset's")
    chat_share: float | None = Field(
        None, ge=0, le=1, description="conversations as a share of the raw tokens of a run; unset: the preset's"
    )
    micro_rows: int = Field(1, ge=1, description="rows in memory at once; halved by itself when memory runs out")
    learn_prompts: bool = Field(False, description="learn a conversation's prompt too, as the original recipe did")
    checkpoint_every_s: float = Field(300, gt=0, description="time between checkpoints; seconds")

    held_out_share: float = Field(0.1, gt=0, lt=1, description="share of the files that is never trained on")
    held_out_tokens: int = Field(
        3_000, ge=256, description="held-out tokens on which losses are taken before and after"
    )
    proof_bytes: int = Field(
        6_000, ge=500, description="newer code that is kept from training and that an adapter is proved on; bytes"
    )
    questions: int = Field(
        4, ge=0, description="questions each arm answers in the proof; the last is about nothing real"
    )
    answer_tokens: int = Field(64, ge=8, description="longest answer in the proof; tokens")
    min_gain: float = Field(
        0.0, ge=0, lt=1, description="share of the base model's bits that a candidate must surely save on newer code"
    )
    max_forgetting: float = Field(
        0.01, ge=0, description="share of bits that a candidate may cost on other people's code"
    )
    min_files: int = Field(5, ge=1, description="files that a proof must rest on")
    max_files: int = Field(20_000, ge=1, description="files a corpus takes, those changed last first")
    keep_adapters: int = Field(7, ge=2, description="adapters kept; older ones are deleted")

    github: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+)?$",
        description="owner/name on GitHub; empty: nothing is fetched, pull requests are read from the local history",
    )
    github_url: str = Field(
        "https://api.github.com",
        pattern=r"^https?://[^\s@/]+(/[^\s@]*)?$",
        description="GitHub's API; of an Enterprise server https://HOST/api/v3 (then say it in the environment too, or "
        "no token goes there)",
    )
    github_token_variable: str = Field(
        "GITHUB_TOKEN",
        pattern=r"^[A-Z0-9_]*TOKEN[A-Z0-9_]*$",
        description="environment variable that holds the token; public repositories need none",
    )
    github_token_file: str = Field(
        "", description="file of mode 0600 that holds the token, where the environment does not"
    )
    pull_requests: int = Field(100, ge=0, le=10_000, description="pull requests learnt from, the newest first")
    trusted: tuple[Association, ...] = Field(
        ("OWNER", "MEMBER", "COLLABORATOR"),
        description="whose pull requests and comments are learnt from, by what they are to the project on GitHub",
    )
    merged_only: bool = Field(True, description="learn from merged pull requests only")
    wiki: str = Field(
        "", description="the wiki: github (that of [trainer] github), the URL of a git repository, or a folder"
    )
    commits: int = Field(300, ge=0, le=100_000, description="commits learnt from, the newest first")

    def hyper_parameters(self, has_gpu: bool) -> Preset:
        """The preset as these settings change it."""
        name = self.preset if self.preset != "auto" else "default" if has_gpu else "cpu"
        return find_preset(
            name,
            rank=self.rank,
            alpha=self.alpha,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            row_tokens=self.row_tokens,
            rows_per_step=self.rows_per_step,
            example_tokens=self.example_tokens,
            chat_share=self.chat_share,
        )
