"""Examples -> token ids and labels -> packed rows. Pure: no framework, no files.

We tokenise by ourselves because TRL's defaults keep 21% of a typical mix (rows cut at 1,024 tokens) and its end-of-text
rule depends on the first row of the data (trl 1.15.0, tried).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

IGNORED = -100  # the label of a token that is read and not learnt (torch's cross entropy)


class Tokenizer(Protocol):
    """What we use of a transformers tokenizer."""

    chat_template: Any

    def __call__(self, text: str, *, add_special_tokens: bool = ...) -> Any: ...
    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...
    def convert_tokens_to_ids(self, tokens: str) -> Any: ...


class BadTemplate(ValueError):
    """The base model's chat template cannot be trained on; the message says why."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as tokens; `labels[i]` is `input_ids[i]` where it is learnt, else `IGNORED`. Equal lengths."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class Row:
    """Several examples in one row of the batch. `position_ids` start at 0 with each: that keeps them apart."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    position_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.input_ids)


def encode_raw(text: str, is_last: bool, tokenizer: Tokenizer, end: str) -> Encoded:
    """A chunk of raw text: all of it is learnt, and the end token only after the document's last chunk.

    An end after every chunk would teach the model to stop in the middle of a file.
    """
    ids = (*_start(tokenizer), *_ids(text, tokenizer))
    if is_last:
        ids = (*ids, tokenizer.convert_tokens_to_ids(end))
    return Encoded(ids, ids)


def encode_chat(
    messages: Sequence[dict[str, str]], tokenizer: Tokenizer, end_of_turn: str, *, learn_all: bool = False
) -> Encoded:
    """A conversation through the base model's chat template: the last answer and its end-of-turn token are learnt.

    With `learn_all` the whole text is, as in the original recipe. Raises `BadTemplate` when the template has no such
    token after the answer, or does not write the answer as it is.
    """
    turns = list(messages)
    if not turns or turns[-1]["role"] != "assistant":
        raise ValueError("a conversation must end with the assistant's answer")
    prompt = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
    answer = _answer(tokenizer.apply_chat_template(turns, tokenize=False), prompt, turns[-1]["content"], end_of_turn)
    # In two parts, as when serving: no token spans the border between what is given and what is written.
    before, learnt = _ids(prompt, tokenizer), _ids(answer, tokenizer)
    labels = (*before, *learnt) if learn_all else (*([IGNORED] * len(before)), *learnt)
    return Encoded((*before, *learnt), labels)


def _answer(text: str, prompt: str, content: str, end_of_turn: str) -> str:
    rest = text[len(prompt) :]
    if not text.startswith(prompt):
        # Templates that write the generation prompt otherwise than the turn itself: find the answer's own start.
        rest = text[text.rfind(content.strip()) :] if content.strip() in text else ""
    end = rest.find(end_of_turn, len(content.strip())) if end_of_turn else -1
    if end < 0:
        raise BadTemplate(f"the chat template writes no {end_of_turn or 'end token'} after an answer")
    return rest[: end + len(end_of_turn)]


def _ids(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _start(tokenizer: Tokenizer) -> tuple[int, ...]:
    # What the tokenizer itself puts before any text (Mistral, Llama: <s>; SmolLM2, Qwen: nothing).
    return tuple(tokenizer("", add_special_tokens=True)["input_ids"])[:1]


def split_long(example: Encoded, capacity: int) -> list[Encoded]:
    """`example` in pieces of at most `capacity` tokens; nothing is dropped."""
    starts = range(0, len(example), capacity)
    return [Encoded(example.input_ids[i : i + capacity], example.labels[i : i + capacity]) for i in starts]


def pack(examples: Sequence[Encoded], capacity: int, window: int = 64) -> list[Row]:
    """All of `examples` in rows of at most `capacity` tokens: first fit, the longest first, `window` examples at a
    time.

    No token is lost (asserted). The window keeps the order: rows come roughly as the examples did, so that a run that
    ends early has seen the first of them.
    """
    pieces = [piece for example in examples for piece in split_long(example, capacity)]
    rows = [row for i in range(0, len(pieces), window) for row in _fit(pieces[i : i + window], capacity)]
    assert sum(map(len, rows)) == sum(map(len, examples)), "packing lost tokens"
    return rows


def keep_apart(examples: Sequence[Encoded], capacity: int) -> list[Row]:
    """Each of `examples` in a row of its own, in their order: for a model that cannot keep packed ones apart."""
    return [_row([piece]) for example in examples for piece in split_long(example, capacity)]


def _fit(pieces: Sequence[Encoded], capacity: int) -> list[Row]:
    bins: list[list[Encoded]] = []
    free: list[int] = []
    for piece in sorted(pieces, key=len, reverse=True):
        place = next((i for i, room in enumerate(free) if room >= len(piece)), None)
        if place is None:
            bins.append([])
            free.append(capacity)
            place = len(bins) - 1
        bins[place].append(piece)
        free[place] -= len(piece)
    return [_row(parts) for parts in bins]


def _row(parts: Sequence[Encoded]) -> Row:
    ids = tuple(token for part in parts for token in part.input_ids)
    # The label of a part's first token would be predicted from the part before it.
    labels = tuple(label for part in parts for label in (IGNORED, *part.labels[1:]))
    positions = tuple(position for part in parts for position in range(len(part)))
    return Row(ids, labels, positions)
