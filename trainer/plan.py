"""Which examples a run learns, in which rows and order, and the learning rate along it. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.corpus import Example
from trainer.encoding import Encoded, Row, Tokenizer, encode_chat, encode_raw, keep_apart, pack
from trainer.presets import Preset

# Shares of the conversations' tokens. Restatements carry the knowledge; a tenth is in the serving prompt, a tenth the
# base model's own answers against forgetting (trainer/LOG.md, "What a corpus is made of").
CHAT_MIX = {
    "restatement": 0.30, "page-answer": 0.17, "relation": 0.12, "retrieval": 0.10, "general": 0.10, "change": 0.08,
    "page-question": 0.03, "unanswerable": 0.04, "file-question": 0.03, "conflict": 0.02, "feedback": 0.01,
}  # fmt: skip
# Shows what a template does also where no conversation has room in the run.
_PROBE = ({"role": "user", "content": "Ready?"}, {"role": "assistant", "content": "Yes."})

# What a whole file looks like is stale tomorrow, and costs as much as all other questions about it together.
MOST_FILES = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows in the order they are learnt. `stage_ends` are the shares of the run at which the learning rate starts
    anew.
    """

    rows: tuple[Row, ...]
    stage_ends: tuple[float, ...]
    raw_examples: int
    chat_examples: int
    raw_tokens: int
    chat_tokens: int

    @property
    def tokens(self) -> int:
        return sum(map(len, self.rows))


@dataclass(frozen=True, slots=True)
class Encoder:
    """How examples become the tokens of a base model. With `learn_prompts` a conversation's prompt is learnt too."""

    tokenizer: Tokenizer
    end_of_turn: str
    learn_prompts: bool = False

    def encode(self, example: Example) -> Encoded:
        """An example as tokens. Raises `BadTemplate`."""
        if example.entry.is_raw:
            return encode_raw(example.text, example.entry.part == example.entry.parts, self.tokenizer, self.end_of_turn)
        return encode_chat(example.messages, self.tokenizer, self.end_of_turn, learn_all=self.learn_prompts)


def order(examples: Sequence[Example], split: str, *, raw: bool) -> list[Example]:
    """The raw texts or the conversations of one side, those whose lines changed last first."""
    chosen = [example for example in examples if example.entry.is_raw == raw and example.entry.split == split]
    return sorted(chosen, key=lambda example: -example.entry.weight)


def choose(examples: Sequence[Example], max_tokens: int) -> list[Example]:
    """The first of `examples` that fill `max_tokens`, at least one."""
    chosen: list[Example] = []
    used = 0
    for example in examples:
        if chosen and used + example.entry.tokens > max_tokens:
            continue
        chosen.append(example)
        used += example.entry.tokens
    return chosen


def choose_mixed(examples: Sequence[Example], max_tokens: int) -> list[Example]:
    """The first of each kind, so that together they fill `max_tokens` in the shares of `CHAT_MIX`.

    What a kind is too small for goes to the others, but not to whole files. A small `max_tokens` has room for few
    kinds: those with the largest share first.
    """
    pools: dict[str, list[Example]] = {}
    files = 0
    for example in examples:
        files += example.entry.tokens if example.entry.kind == "file-question" else 0
        if example.entry.kind != "file-question" or files <= max_tokens * MOST_FILES:
            pools.setdefault(example.entry.kind, []).append(example)
    used = dict.fromkeys(pools, 0)
    chosen: list[Example] = []
    left = max_tokens
    while pools:
        kind = min(pools, key=lambda kind: (used[kind] / CHAT_MIX.get(kind, 0.01), -CHAT_MIX.get(kind, 0.01), kind))
        example = pools[kind].pop(0)
        if not pools[kind]:
            del pools[kind]
        used[kind] += example.entry.tokens
        if example.entry.tokens <= left:
            chosen.append(example)
            left -= example.entry.tokens
        elif left < 16:
            break
    return chosen


def make_plan(
    examples: Sequence[Example], encoder: Encoder, preset: Preset, max_tokens: int, seed: int, *, packs: bool = True
) -> Plan:
    """What a run over `max_tokens` learns: the raw text that changed last, and conversations as `chat_share` of it.

    The choice goes by what changed last, the order is shuffled; without `packs` each example has its own row. Raises
    `BadTemplate`.
    """
    encode_chat(_PROBE, encoder.tokenizer, encoder.end_of_turn)
    raw_pool, chat_pool = order(examples, "train", raw=True), order(examples, "train", raw=False)
    room = int(max_tokens / max(preset.epochs, 1) / (1 + preset.chat_share))
    raw = choose(raw_pool, room) if raw_pool else []
    raw_tokens = sum(example.entry.tokens for example in raw)
    chat = choose_mixed(chat_pool, int((raw_tokens or room) * preset.chat_share))
    groups = [raw, chat] if preset.stages == "raw,chat" else [raw + chat]
    rows: list[Row] = []
    ends: list[int] = []
    for number, group in enumerate(filter(None, groups)):
        rows += _epochs(group, encoder, preset, random.Random(f"{seed}:{number}"), packs)  # noqa: S311
        ends.append(sum(map(len, rows)))
    total = max(1, sum(map(len, rows)))
    chat_tokens = sum(example.entry.tokens for example in chat)
    return Plan(tuple(rows), tuple(end / total for end in ends), len(raw), len(chat), raw_tokens, chat_tokens)


def _epochs(
    group: Sequence[Example], encoder: Encoder, preset: Preset, chance: random.Random, packs: bool
) -> list[Row]:
    """The rows of every epoch. Raw text has rows of another size where the preset says so."""
    by_capacity: dict[int, list[Encoded]] = {}
    for example in group:
        by_capacity.setdefault(preset.capacity(raw=example.entry.is_raw), []).append(encoder.encode(example))
    rows: list[Row] = []
    whole, rest = divmod(preset.epochs, 1)
    for _ in range(int(whole)):
        rows += _shuffled(by_capacity, chance, packs)
    if rest:
        last = _shuffled(by_capacity, chance, packs)
        rows += last[: max(1, round(len(last) * rest))]
    return rows


def _shuffled(by_capacity: Mapping[int, Sequence[Encoded]], chance: random.Random, packs: bool) -> list[Row]:
    rows: list[Row] = []
    for capacity, encoded in by_capacity.items():
        mixed = list(encoded)
        chance.shuffle(mixed)
        rows += pack(mixed, capacity) if packs else keep_apart(mixed, capacity)
    chance.shuffle(rows)
    return rows


def held_out_rows(examples: Sequence[Example], encoder: Encoder, preset: Preset, max_tokens: int) -> list[Row]:
    """Rows of held-out raw text, about `max_tokens` of it, those that changed last first; empty when nothing is held
    out.
    """
    pool = order(examples, "held-out", raw=True)
    if not pool:
        return []
    encoded = [encoder.encode(example) for example in choose(pool, max_tokens)]
    return pack(encoded, min(preset.row_tokens, 1024))


def learning_rate_share(progress: float, stage_ends: Sequence[float], preset: Preset) -> float:
    """The share of the peak learning rate at `progress` (0..1) of the run: warm-up, then a cosine, anew in each
    stage.
    """
    start = 0.0
    for end in stage_ends:
        if progress < end or end == stage_ends[-1]:
            return _cosine((progress - start) / max(end - start, 1e-9), preset)
        start = end
    return _cosine(progress, preset)


def _cosine(progress: float, preset: Preset) -> float:
    progress = min(max(progress, 0.0), 1.0)
    if progress < preset.warmup_share:
        # Not from 0: the first step would do nothing.
        return 0.1 + 0.9 * progress / preset.warmup_share
    left = (progress - preset.warmup_share) / max(1e-9, 1 - preset.warmup_share)
    return preset.final_lr_share + (1 - preset.final_lr_share) * 0.5 * (1 + math.cos(math.pi * left))
