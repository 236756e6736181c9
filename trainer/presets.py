"""The hyper-parameters, in one place, each with its source. `trainer/LOG.md` has the numbers that were measured
here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

SEVEN_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Preset:
    """How a LoRA is trained.

    `alpha` is absolute (scale = alpha / rank); `warmup_share` and `final_lr_share` are shares of the run and of the
    peak learning rate; `row_tokens` the capacity of a packed row and `rows_per_step` the effective batch in rows;
    `example_tokens` the longest example the corpus makes. `raw_tokens`, when not 0, is what pieces and rows of raw text
    hold instead of both. `stages`: "raw+chat" is one run over both, "raw,chat" one after the other.
    """

    rank: int
    alpha: int
    learning_rate: float
    warmup_share: float
    final_lr_share: float
    epochs: float
    row_tokens: int
    rows_per_step: int
    example_tokens: int
    stages: Literal["raw+chat", "raw,chat"] = "raw+chat"
    chat_share: float = 1.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    beta2: float = 0.999
    raw_tokens: int = 0

    def capacity(self, *, raw: bool) -> int:
        """Tokens of a row of raw text, or of conversations."""
        return self.raw_tokens if raw and self.raw_tokens else self.row_tokens


PRESETS: dict[str, Preset] = {
    # Rank and modules: "LoRA without regret" (Thinking Machines 2025): all linear layers; the rank is not the
    # bottleneck at 1-10M tokens (2 bits a parameter: rank 64 on a 7B holds 10 times that corpus). 2e-4: ten times the
    # full rate of 2e-5.
    "default": Preset(64, 64, 2e-4, 0.03, 0.1, 2, 8192, 8, 8192),
    # The recipe that nightschool began from: Mistral 7B, A100 40GB, under three hours. A full fine-tuning rate on a
    # LoRA.
    "original": Preset(512, 512, 2e-5, 0.0, 0.0, 1, 8192, 2, 8192),
    # Raw text first, then conversations: xFinance (2023), BioMistral (2024).
    "two-stage": Preset(64, 64, 2e-4, 0.03, 0.1, 2, 8192, 8, 8192, stages="raw,chat"),
    # The embedded model in minutes on a few cores: 61 steps of 512 tokens at 1e-3 saved 12.6% of the bits on newer code
    # (trainer/LOG.md). Short rows and one a step: at 100 tokens/s the number of steps is what is scarce.
    "cpu": Preset(64, 64, 1e-3, 0.05, 0.1, 1, 512, 1, 512, chat_share=0.1),
}


def find_preset(name: str, **changes: float | int | str | None) -> Preset:
    """The preset `name` with the fields of `changes` that are not None put in its place. Raises `KeyError`."""
    return replace(PRESETS[name], **{field: value for field, value in changes.items() if value is not None})  # type: ignore[arg-type]
