"""Settings of the night: sources, training, proof."""

from __future__ import annotations

import os
import re
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from indexer.settings import BadSettings, SectionSettings
from indexer.workspace import Workspace
from trainer.presets import Preset, find_preset
from trainer.promote import Margins
from trainer.sources.history import History

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
    four_bit: bool = Field(
        False, description="hold the base model in 4 bits while training (QLoRA): a third of the memory; needs a GPU"
    )
    gpus: int = Field(1, ge=1, description="GPUs that a training uses, through accelerate launch; needs backend trl")
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
    raw_tokens: int | None = Field(
        None, ge=64, description="pieces and rows of code and other raw text; tokens; unset: the preset's"
    )
    chat_share: float | None = Field(
        None, ge=0, le=1, description="conversations as a share of the raw tokens of a run; unset: the preset's"
    )
    micro_rows: int = Field(1, ge=1, description="rows in memory at once; halved by itself when memory runs out")
    learn_prompts: bool = Field(False, description="learn a conversation's prompt too, as the original recipe did")
    checkpoint_every_s: float = Field(300, gt=0, description="time between checkpoints; seconds")

    nightly: str = Field(
        "", pattern=r"^$|^([01]\d|2[0-3]):[0-5]\d$",
        description="time of day at which the backend starts a night by itself: HH:MM in UTC; empty: never",
    )  # fmt: skip
    nightly_grace_hours: float = Field(
        4, gt=0, le=23, description="a night that was missed is made up for until so long after its time; hours"
    )
    webhook: str = Field(
        "", description="address that is sent what became of each night, as JSON; empty: nothing leaves this machine"
    )
    engine: Literal["auto", "sleep", "share"] = Field(
        "auto",
        description="the running backend's engine while a night trains: sleep frees its memory, questions get the code "
        "found meanwhile; share: it answers on; auto: sleep where there is a GPU",
    )
    min_changed_lines: int = Field(1, ge=1, description="lines committed since the last night that are worth another")
    require_gpu: bool = Field(False, description="skip the night where there is no GPU")

    held_out_share: float = Field(0.1, gt=0, lt=1, description="share of the files that is never trained on")
    held_out_tokens: int = Field(
        3_000, ge=256, description="held-out tokens on which losses are taken before and after"
    )
    proof_bytes: int = Field(
        6_000, ge=500, description="newer code that is kept from training and that an adapter is proved on; bytes"
    )
    questions: int = Field(
        16, ge=0, description="questions of each kind that an arm is asked in the proof, time permitting; 0: none"
    )
    answer_minutes: float = Field(
        6, gt=0, description="time for the answers of all arms in the proof; how many are asked follows; minutes"
    )
    answer_tokens: int = Field(64, ge=8, description="longest answer in the proof; tokens")
    judge: str = Field(
        "", pattern=r"^$|^https?://\S+$",
        description="URL (with /v1) of an OpenAI-compatible endpoint that compares answers in the proof; empty: none",
    )  # fmt: skip
    judge_model: str = Field("", description="the judge's model; empty: the first that the endpoint offers")
    judge_key_variable: str = Field(
        "", description="environment variable that holds the judge's key; empty: none is sent"
    )
    test_command: str = Field(
        "", description="runs the repository's own tests, as python -m pytest -q -x, to see whether functions that the "
        "arms write pass them; it runs code of the repository and of the model; empty: nothing is run",
    )  # fmt: skip
    test_minutes: float = Field(10, gt=0, description="time for all runs of test_command in a night; minutes")
    holes: int = Field(12, ge=1, le=200, description="functions that the arms write for test_command, time permitting")
    min_gain: float = Field(
        0.0, ge=0, lt=1, description="share of the base model's bits that a candidate must surely save on newer code"
    )
    max_forgetting: float = Field(
        0.01, ge=0, description="share of bits that a candidate may cost on other people's code"
    )
    min_files: int = Field(5, ge=1, description="files that a proof must rest on")
    margin_names: float = Field(
        0.05, ge=0, le=1, description="how much smaller the share of names that exist may surely be than the base's"
    )
    margin_recall: float = Field(0.03, ge=0, le=1, description="the same for recall of what was read; token F1")
    margin_refusals: float = Field(0.10, ge=0, le=1, description="the same for refusals of what does not exist")
    margin_ends: float = Field(0.10, ge=0, le=1, description="the same for answers that end by themselves")
    margin_canaries: float = Field(0.05, ge=0, le=1, description="the same for prompts that any model should follow")
    margin_holes: float = Field(0.10, ge=0, le=1, description="the same for functions whose tests pass")
    max_files: int = Field(20_000, ge=1, description="files a corpus takes, those changed last first")
    keep_adapters: int = Field(7, ge=2, description="adapters kept; older ones are deleted")

    github: str = Field(
        "",
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

    def margins(self) -> Margins:
        """What the gate asks of a candidate."""
        return Margins(
            self.min_gain, self.max_forgetting, self.min_files, self.margin_names, self.margin_recall,
            self.margin_refusals, self.margin_ends, self.margin_canaries, self.margin_holes,
        )  # fmt: skip

    @classmethod
    def read(cls, workspace: Workspace) -> Self:
        """Raises `BadSettings`, also for a command in a file that is committed: whoever can commit could run it."""
        settings = super().read(workspace)
        file = workspace.settings_file
        in_environment = f"{cls.model_config['env_prefix']}TEST_COMMAND" in os.environ
        if settings.test_command and not in_environment and History(file.parent).tracks(file.name):
            raise BadSettings(
                f"[trainer] test_command stands in {file.name}, which is committed: whoever can commit could run "
                "programs here. Set NIGHTSCHOOL_TRAINER__TEST_COMMAND in the environment, or take the file out of git"
            )
        return settings

    @field_validator("github")
    @classmethod
    def _is_owner_and_name(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", value):
            raise ValueError("give owner/name, as in acme/shop")
        return value

    def engine_sleeps(self, has_gpu: bool) -> bool:
        """Whether the backend's engine is to sleep while a night trains."""
        return self.engine == "sleep" or (self.engine == "auto" and has_gpu)

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
            raw_tokens=self.raw_tokens,
        )
