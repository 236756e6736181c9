"""What a run learns of a corpus with many kinds: the code that changed last first, and a mixed few conversations."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

from trainer.corpus import Example
from trainer.ledger import Entry, Kind, Split
from trainer.plan import CHAT_MIX, Encoder, choose_mixed, make_plan
from trainer.presets import find_preset

CPU = find_preset("cpu")


def example(number: int, kind: Kind, tokens: int, weight: float = 0.0, split: Split = "train") -> Example:
    body = f"{number:04}" + "x" * max(0, tokens - 40)
    entry = Entry(f"{kind}{number}", kind, f"s{number}", 1, 1, 1, 1, tokens, split, weight, "")
    if entry.is_raw:
        return Example(entry, body)
    turns = ({"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": body})
    return Example(entry, json.dumps(turns), turns, f"q{number}")


def corpus() -> list[Example]:
    kinds: tuple[Kind, ...] = ("restatement", "relation", "retrieval", "unanswerable", "file-question", "page-question")
    made = [example(n, "raw", 400, weight=n / 100) for n in range(100)]
    made += [example(1000 + n, "commit", 400) for n in range(50)]
    made += [example(2000 + n, kind, 80 if kind != "retrieval" else 300) for kind in kinds for n in range(100)]
    return [*made, example(3000, "restatement", 80, 1.0, "validation"), example(3001, "raw", 400, 1.0, "held-out")]


def test_a_short_run_takes_the_code_that_changed_last_and_a_tenth_of_conversations(tokenizer: Any) -> None:
    plan = make_plan(corpus(), Encoder(tokenizer, "<|end|>"), CPU, 8_900, 1)
    assert plan.raw_examples == 20
    assert plan.raw_tokens == 8_000
    learnt = "".join(tokenizer.decode(row.input_ids) for row in plan.rows)
    assert all(f"{n:04}x" in learnt for n in range(80, 100))
    assert not [n for n in range(80) if f"{n:04}x" in learnt]
    assert not [n for n in range(1000, 1050) if f"{n:04}x" in learnt], "changes come after all dated code"
    assert 0 < plan.chat_tokens <= 800
    assert "3000x" not in learnt
    assert "3001x" not in learnt


def test_conversations_are_of_many_kinds_in_their_shares() -> None:
    pool = [found for found in corpus() if not found.entry.is_raw and found.entry.split == "train"]
    chosen = choose_mixed(pool, 12_000)
    used = Counter[str]()
    for found in chosen:
        used[found.entry.kind] += found.entry.tokens
    total = sum(used.values())
    assert 11_900 < total <= 12_000
    shares = {kind: CHAT_MIX[kind] for kind in used}
    for kind, share in shares.items():
        assert abs(used[kind] / total - share / sum(shares.values())) < 0.05, (kind, used)


def test_what_a_kind_is_too_small_for_goes_to_the_others() -> None:
    pool = [example(1, "restatement", 80), *(example(n, "relation", 80) for n in range(2, 30))]
    assert sum(found.entry.tokens for found in choose_mixed(pool, 1_600)) == 1_600
    assert len(choose_mixed(pool, 10**9)) == len(pool)
    assert choose_mixed([], 100) == choose_mixed(pool, 0) == []


def test_whole_files_are_a_tenth_at_most() -> None:
    pool = [*(example(n, "file-question", 300) for n in range(100)), example(900, "relation", 80)]
    chosen = choose_mixed(pool, 10_000)
    assert sum(found.entry.tokens for found in chosen if found.entry.kind == "file-question") == 900


def test_a_corpus_of_conversations_alone_can_be_learnt(tokenizer: Any) -> None:
    pool = [example(n, "restatement", 80) for n in range(10)]
    plan = make_plan(pool, Encoder(tokenizer, "<|end|>"), replace(CPU, chat_share=1.0), 1_000, 1)
    assert plan.raw_examples == 0
    assert plan.chat_examples > 0
