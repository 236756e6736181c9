"""Conversations: what they ask and answer is in the code, the prompt is the one that is served, nothing is withheld."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from server.prompt import SYSTEM
from trainer.answers import _REFUSAL
from trainer.corpus import Beside, CorpusPlan, Example, build_corpus, read_examples
from trainer.encoding import encode_chat
from trainer.facts import about_file, first_sentence, read_code, read_facts
from trainer.sides import choose_sides
from trainer.sources.document import Document
from trainer.sources.snapshot import Snapshot, SnapshotFile
from trainer.synthesis import Amounts
from trainer.unreal import made_up_names

PRICES = '''"""What things cost."""

MAX_DISCOUNT = 30


def total_price(basket, currency):
    """The sum of all prices in a basket, without discounts. é 🌍"""
    return sum(item.cents for item in basket)


class PriceList:
    """Prices by product, as the supplier sent them."""

    def refresh_prices(self):
        return total_price(self.items, "EUR")
'''
CHECKOUT = """// Takes a basket to its payment.
import { total_price } from "./prices";

/** Charges the customer's card once and sends the receipt. */
export function chargeCustomer(basket) {
  return total_price(basket, "EUR");
}
"""
PAGE = """# Deploying

Deploys go out by hand on Mondays, from the release branch.

## Rolling back

Press the red button, then tell the people on call about it.
"""
NOW = datetime(2026, 11, 23, tzinfo=UTC)
AMOUNTS = Amounts(restatements=12, relations=4, retrieval=20, conflicts=5, unanswerable=6)
PLAN = CorpusPlan(2_000, 0.01, 1, 100, 0.0, AMOUNTS)
FILES = {"shop/prices.py": PRICES, "shop/checkout.js": CHECKOUT}


def filler(number: int) -> str:
    """A file like no other; the number is spelt out in its names."""
    word = "".join("abcdefghij"[int(digit)] for digit in f"{number:03}")
    names = [f"{verb}_{noun}_{word}" for verb, noun in (("open", "cart"), ("close", "order"), ("read", "voucher"))]
    return "".join(f"def {name}(value):\n    return value.{name} + {number}\n\n\n" for name in names)


def snapshot_of(files: dict[str, str]) -> Snapshot:
    made = tuple(SnapshotFile(path, text, 0.0) for path, text in sorted(files.items()))
    return Snapshot("shop", "c0ffee" * 6, NOW, made)


@pytest.fixture
def counter(tiny_folder: Path) -> Path:
    return tiny_folder / "tokenizer.json"


@pytest.fixture
def examples(tmp_path: Path, counter: Path) -> Callable[..., list[Example]]:
    """The examples of a corpus of `files` and `documents`; with `plan`."""

    def make(files: dict[str, str], *documents: Document, plan: CorpusPlan = PLAN) -> list[Example]:
        # Withheld by hash: these files are not the ones that are looked at.
        padded = files | {f"old/part_{number}.py": filler(number) for number in range(6)}
        ledger = build_corpus(snapshot_of(padded), counter, "ab", plan, tmp_path / "corpus", beside=Beside(documents))
        return read_examples(tmp_path / "corpus", ledger)

    return make


def answers(found: list[Example], kind: str, source: str = "") -> dict[str, str]:
    chosen = [e for e in found if e.entry.kind == kind and (not source or e.entry.source == source)]
    return {example.question: example.messages[-1]["content"] for example in chosen}


def test_a_symbol_is_explained_found_and_used_in_the_words_of_the_code(examples: Callable[..., list[Example]]) -> None:
    said = "\n".join(answers(examples(FILES), "restatement", "shop/prices.py").values())
    assert (
        "The sum of all prices in a basket, without discounts.\n\n`total_price` is defined in `shop/prices.py`" in said
    )
    assert "def total_price(basket, currency):" in said
    assert 'return total_price(basket, "EUR");' in said
    assert "`shop/prices.py` defines:\n- `MAX_DISCOUNT`\n- `total_price`: The sum of all prices" in said


def test_two_symbols_are_related_by_the_line_where_they_meet(examples: Callable[..., list[Example]]) -> None:
    related = answers(examples(FILES), "relation", "shop/prices.py")
    told = next(answer for answer in related.values() if answer.startswith("`chargeCustomer` in `shop/checkout.js`"))
    assert told.endswith('uses `total_price`, which `shop/prices.py` defines. The sum of all prices in a basket, '
                         'without discounts.\n\n```\nreturn total_price(basket, "EUR");\n```')  # fmt: skip


def test_the_same_fact_is_asked_for_in_many_words(examples: Callable[..., list[Example]]) -> None:
    asked = [question for question in answers(examples({}), "restatement") if "part_" not in question]
    openings = {" ".join(question.split("`")[0].split()[:3]) for question in asked}
    assert len(openings) >= 4, openings


def test_a_page_answers_its_instruction_and_its_headings(examples: Callable[..., list[Example]]) -> None:
    page = Document("wiki:Deploying", "wiki", "Deploying", PAGE, NOW)
    found = examples(FILES, page)
    (instruction,) = answers(found, "page-question").items()
    assert instruction[1] == PAGE.strip()
    assert "Deploying" in instruction[0]
    said = answers(found, "restatement", "wiki:Deploying")
    assert "Press the red button, then tell the people on call about it." in said.values()
    assert any("Deploys go out by hand on Mondays, from the release branch." in answer for answer in said.values())


def test_a_commit_message_is_answered_by_its_diff(examples: Callable[..., list[Example]]) -> None:
    diff = "--- a/shop/prices.py\n+++ b/shop/prices.py\n@@ -1 +1 @@\n-MAX_DISCOUNT = 20\n+MAX_DISCOUNT = 30"
    text = "Commit ab12: Allow more\n"
    commit = Document("commit:ab12", "commit", "Allow more", text, NOW, asked="Allow more discount", answered=diff)
    ((question, answer),) = answers(examples(FILES, commit), "change").items()
    assert "Allow more discount" in question
    assert answer == f"```diff\n{diff}\n```"


def test_a_prompt_is_the_served_one_and_its_answer_cites_the_passage_it_stands_on(
    examples: Callable[..., list[Example]],
) -> None:
    found = [e for e in examples(FILES) if e.entry.kind == "retrieval" and e.entry.source == "shop/prices.py"]
    told = [example for example in found if "[" in example.messages[-1]["content"]]
    assert told
    for example in told:
        system, user, answer = example.messages
        assert system == {"role": "system", "content": SYSTEM}
        assert user["content"].endswith(f"Question: {example.question}")
        number = int(re.search(r"\[(\d+)\]", answer["content"])[1])  # type: ignore[index]
        passage = user["content"].split(f"[{number}] ")[1].split("\n</")[0]
        assert passage.startswith("shop/prices.py, lines ")
        signature = re.search(r"```\n(.+)\n```", answer["content"])
        assert signature is not None
        assert signature[1] in passage
    assert any(example.messages[1]["content"].count("\n[") > 0 for example in told), "no distractor anywhere"


def test_some_prompts_lack_the_passage_and_the_answer_says_so(examples: Callable[..., list[Example]]) -> None:
    files = {f"shop/part_{n}.py": filler(n + 50) for n in range(20)}
    plan = replace(PLAN, amounts=replace(AMOUNTS, retrieval=80))
    found = [e for e in examples(files, plan=plan) if e.entry.kind == "retrieval"]
    refused = [e for e in found if "[" not in e.messages[-1]["content"]]
    assert 0.05 * len(found) < len(refused) < 0.4 * len(found)
    for example in refused:
        name = re.search(r"`(\w+)`", example.messages[-1]["content"])
        assert name is not None
        assert name[1] not in example.messages[1]["content"].rpartition("Question: ")[0]
        assert _REFUSAL.search(example.messages[-1]["content"])


def test_where_memory_and_passage_disagree_the_passage_wins(examples: Callable[..., list[Example]]) -> None:
    (example,) = [e for e in examples(FILES) if e.entry.kind == "conflict"]
    value = re.search(r"^MAX_DISCOUNT = (\d+)$", example.messages[1]["content"], re.MULTILINE)
    assert value is not None
    assert value[1] != "30"
    assert re.fullmatch(rf"`MAX_DISCOUNT` is {value[1]} \[\d\]\.", example.messages[-1]["content"])


def test_what_does_not_exist_is_refused_and_is_not_in_the_code(examples: Callable[..., list[Example]]) -> None:
    found = [example for example in examples(FILES) if example.entry.kind == "unanswerable"]
    assert len(found) >= 4
    everything = "\n".join(FILES.values()) + "".join(filler(number) for number in range(6))
    for example in found:
        name = example.entry.source.removeprefix("made-up:")
        assert name not in everything
        assert _REFUSAL.search(example.messages[-1]["content"]), example.messages[-1]
    assert {len(example.messages) for example in found} == {2, 3}, "alone and in the serving prompt"


def test_nothing_withheld_is_shown_in_training(examples: Callable[..., list[Example]]) -> None:
    files = {f"shop/part_{n}.py": filler(n + 50) for n in range(30)}
    plan = replace(PLAN, held_out_share=0.3, validation_share=0.3)
    found = examples(files, plan=plan)
    withheld = {e.entry.source for e in found if e.entry.is_raw and e.entry.split == "held-out"}
    assert len(withheld) > 3
    shown = "\n".join(e.shown for e in found if e.entry.split != "held-out")
    for text in (files[path] for path in withheld & set(files)):
        assert not [name for name in re.findall(r"def (\w+)", text) if name in shown]
    talks = {split: {e.entry.source for e in found if not e.entry.is_raw and e.entry.split == split}
             for split in ("train", "validation", "held-out")}  # fmt: skip
    assert all(talks.values())
    assert not talks["train"] & talks["validation"]
    learnt = {e.entry.source for e in found if e.entry.is_raw and e.entry.split == "train"}
    assert {source for source in talks["validation"] if not source.startswith("made-up:")} <= learnt


def test_a_source_stays_on_its_side_when_others_come(tiny_folder: Path) -> None:
    few, many = [f"f{n}.py" for n in range(50)], [f"f{n}.py" for n in range(80)]
    before, after = choose_sides(few, 0.2, 0.2, 7), choose_sides(many, 0.2, 0.2, 7)
    assert before.unseen == after.unseen & set(few)
    assert [before.of_talk(path) for path in few] == [after.of_talk(path) for path in few]
    assert before.of_talk("review:12#3") == before.of_talk("pr:12") == before.of_talk("review:12#4")
    assert before.of_talk("doc:f3.py") == before.of_talk("f3.py")


def test_every_conversation_fits_and_can_be_learnt(
    examples: Callable[..., list[Example]], counter: Path, tokenizer: Any
) -> None:
    page = Document("wiki:Deploying", "wiki", "Deploying", PAGE, NOW)
    plan = replace(PLAN, example_tokens=900)
    count = Tokenizer.from_file(str(counter))
    for example in examples(FILES, page, plan=plan):
        assert example.entry.tokens <= 900
        assert len(count.encode(example.shown, add_special_tokens=False).ids) <= 900
        if not example.entry.is_raw:
            assert len(encode_chat(example.messages, tokenizer, "<|end|>")) <= 900
            line = json.loads(example.text)
            assert set(line) <= {"messages", "source_id", "question"}
            assert line["source_id"]


def test_the_first_sentence_of_a_comment_is_found_in_any_language() -> None:
    assert first_sentence("Takes a basket\nto its payment. And more.") == "Takes a basket to its payment."
    assert first_sentence("注文の合計金額を計算して、通貨で返す。") == "注文の合計金額を計算して、通貨で返す。"
    assert first_sentence("") == first_sentence("Short.") == ""
    assert about_file("#!/bin/sh\n# Restarts all the workers.\nx\n") == "Restarts all the workers."
    assert about_file("// SPDX-License-Identifier: MIT of the shop\nx\n") == ""
    assert about_file("") == ""


def test_made_up_names_sound_real_and_are_not() -> None:
    files = [read_code(SnapshotFile(path, text, 0.0), (), None) for path, text in FILES.items()]
    files += [read_code(SnapshotFile("a.py", filler(3), 0.0), (), None)]
    facts = read_facts(files)
    names = made_up_names(facts, 10, 1)
    assert names
    assert names == made_up_names(facts, 10, 1)
    assert not set(names) & facts.known
