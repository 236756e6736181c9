"""How a model in memory answers: several prompts at a time, the likeliest token each time. For `trainer.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel as Model
from pydantic import ConfigDict


class Prompted(Model):
    """A prompt of at most `max_tokens` of answer: messages for the chat template, or without any `text` to go on
    from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    messages: tuple[dict[str, str], ...] = ()
    text: str = ""
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What an arm wrote; `stopped` when it ended by itself before the limit."""

    text: str
    stopped: bool


def write_answers(model: Any, tokenizer: Any, prompts: Sequence[Prompted], end_of_turn: str) -> list[Answer]:
    """The answers to `prompts`, in one batch; each is cut at its own limit."""
    import torch

    end = tokenizer.convert_tokens_to_ids(end_of_turn)
    rows = [_ids(tokenizer, prompt) for prompt in prompts]
    longest = max(map(len, rows))
    device = next(model.parameters()).device
    # Padded on the left: all answers begin at the same place.
    ids = torch.tensor([[end] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    with torch.no_grad():
        written = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=max(prompt.max_tokens for prompt in prompts),
            do_sample=False, eos_token_id=end, pad_token_id=end, use_cache=True,
        )[:, longest:].tolist()  # fmt: skip
    return [_answer(tokenizer, row, end, prompt.max_tokens) for row, prompt in zip(written, prompts, strict=True)]


def _ids(tokenizer: Any, prompt: Prompted) -> list[int]:
    text = prompt.text
    if prompt.messages:
        text = tokenizer.apply_chat_template(list(prompt.messages), tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _answer(tokenizer: Any, row: Sequence[int], end: int, max_tokens: int) -> Answer:
    stopped = end in row[:max_tokens]
    kept = row[: row.index(end)] if stopped else row[:max_tokens]
    return Answer(tokenizer.decode(kept, skip_special_tokens=True), stopped)
