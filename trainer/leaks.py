"""Leaks: what a held-out set asks and training text answers already. Pure.

A question leaks when a training question is a near duplicate of it (MinHash, Jaccard 0.8), or when 13 of its words
in a row (all of them when it has fewer) stand in any training text. Answers may: RECALL asks about what was read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from trainer.duplicates import QUESTION_RUN, NearDuplicates, words_of
from trainer.ledger import Entry, Ledger
from trainer.sides import origin_of

GRAM = 13
_MIN_WORDS = 5  # fewer words in a row say nothing

LeakKind = Literal[
    "a source on both sides", "a question asked in training", "a question inside training text",
    "a withheld text learnt", "newer than the snapshot",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Leak:
    """`held_out` names the example or source that leaks, `training` what it leaks into."""

    kind: LeakKind
    held_out: str
    training: str


@dataclass(frozen=True, slots=True)
class Checkable:
    """An example as the check reads it: `question` is "" for raw text, `text` all of it."""

    entry: Entry
    question: str
    text: str


class Grams:
    """Runs of words that are sought in text; many at once."""

    def __init__(self) -> None:
        self._by_start: defaultdict[tuple[str, str], list[tuple[tuple[str, ...], str]]] = defaultdict(list)

    def add(self, name: str, question: str) -> None:
        words = tuple(words_of(question))
        if len(words) < _MIN_WORDS:
            return
        for start in range(max(1, len(words) - GRAM + 1)):
            gram = words[start : start + GRAM]
            self._by_start[gram[0], gram[1]].append((gram, name))

    def find(self, text: str) -> set[str]:
        """The names of those that stand in `text`."""
        if not self._by_start:
            return set()
        words = words_of(text)
        found: set[str] = set()
        for place, start in enumerate(pairwise(words)):
            for gram, name in self._by_start.get(start, ()):
                if tuple(words[place : place + len(gram)]) == gram:
                    found.add(name)
        return found


class Watch:
    """Finds, while training text goes by, which held-out texts and questions stand in it: `texts` and `questions` are
    their numbers."""

    def __init__(self, texts: Sequence[str], questions: Sequence[str]) -> None:
        self.texts: set[int] = set()
        self.questions: set[int] = set()
        self._texts, self._like_texts = NearDuplicates(), _Alike()
        self._questions, self._like_questions = NearDuplicates(QUESTION_RUN), _Alike()
        self._grams = Grams()
        for number, text in enumerate(texts):
            self._like_texts.put(number, self._texts.add(str(number), _body(text)))
        for number, question in enumerate(questions):
            self._like_questions.put(number, self._questions.add(str(number), question))
            self._grams.add(str(number), question)

    def see(self, text: str, question: str = "") -> None:
        """One training example: raw text, or a conversation with its question."""
        self.questions |= {int(name) for name in self._grams.find(text)}
        if question:
            self.questions |= self._like_questions.of(self._questions.find(question))
        else:
            self.texts |= self._like_texts.of(self._texts.find(_body(text)))


class _Alike:
    """Numbers by the first one that they are alike to."""

    def __init__(self) -> None:
        self._groups: defaultdict[str, set[int]] = defaultdict(set)

    def put(self, number: int, first: str | None) -> None:
        self._groups[first or str(number)].add(number)

    def of(self, first: str | None) -> set[int]:
        return self._groups[first] if first is not None else set()


def find_leaks(ledger: Ledger, examples: Iterable[Checkable]) -> list[Leak]:
    """Every leak of a corpus, by kind; reads `examples` once for what is sought and is given them as a list."""
    held = list(examples)
    leaks = [Leak("a source on both sides", source, "training") for source in on_both_sides(ledger.entries)]
    leaks += [
        Leak("newer than the snapshot", entry.source, ledger.date)
        for entry in ledger.entries
        if entry.split == "train" and ledger.commit and entry.date > ledger.date
    ]
    leaks += _questions([e for e in held if e.question], [e for e in held if e.entry.split == "train"])
    leaks += _withheld(held)
    return leaks


def on_both_sides(entries: Sequence[Entry]) -> list[str]:
    """Sources that are withheld and learnt, or whose conversations are in training and in validation."""
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.is_raw:
            sides[f"text of {origin_of(entry.source)}"].add("held-out" if entry.split == "held-out" else "learnt")
            continue
        # A relation is about both of its sources; what a prompt merely shows is only not to be withheld.
        about = {entry.source, *(entry.also if entry.kind == "relation" else ())}
        for source in about:
            sides[f"talk of {origin_of(source)}"].add(entry.split)
        for source in {entry.source, *entry.also}:
            sides[f"text of {origin_of(source)}"].add("held-out" if entry.split == "held-out" else "learnt")
    return sorted({name.partition(" of ")[2] for name, found in sides.items() if len(found) > 1})


def _questions(asked: Sequence[Checkable], training: Sequence[Checkable]) -> Iterator[Leak]:
    held = [example for example in asked if example.entry.split != "train"]
    known, grams = NearDuplicates(QUESTION_RUN), Grams()
    for example in training:
        if example.question:
            known.add(example.entry.id, example.question)
    for example in held:
        if (twin := known.find(example.question)) is not None:
            yield Leak("a question asked in training", example.entry.id, twin)
        grams.add(example.entry.id, example.question)
    for example in training:
        for name in sorted(grams.find(example.text)):
            yield Leak("a question inside training text", name, example.entry.id)


def _withheld(examples: Sequence[Checkable]) -> Iterator[Leak]:
    """Raw text of a withheld source that is nearly what is learnt."""
    known = NearDuplicates()
    for example in examples:
        if example.entry.split == "train" and example.entry.is_raw:
            known.add(example.entry.id, _body(example.text))
    for example in examples:
        is_withheld = example.entry.split == "held-out" and example.entry.is_raw
        if is_withheld and (twin := known.find(_body(example.text))) is not None:
            yield Leak("a withheld text learnt", example.entry.id, twin)


def _body(text: str) -> str:
    """A raw text without its header: two short files must not be alike by it."""
    head, found, rest = text.partition("\nContent:\n")
    return rest if found and head.startswith("- ") else text
