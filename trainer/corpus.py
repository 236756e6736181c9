"""A snapshot and its documents -> examples on disk with a ledger. Deterministic, byte for byte.

What is alike is kept once, sides are chosen, conversations are made, what would leak into validation is left out, and
all of it is written while it is made: in memory are the code, the conversations and the ledger.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from server.prompt import PROMPT_VERSION
from trainer.corpus_files import Example, read_examples, write_examples
from trainer.cutting import Part, count_line_tokens
from trainer.duplicates import words_of
from trainer.facts import read_code
from trainer.leaks import Checkable, Leak, find_leaks, on_both_sides
from trainer.ledger import Ledger, Split, read_ledger
from trainer.raw_text import (
    PAGES,
    Draft,
    Kept,
    document_drafts,
    file_drafts,
    keep_once,
    licence_of,
    without_restatements,
)
from trainer.sides import choose_sides, origin_of
from trainer.sources.document import Document
from trainer.sources.snapshot import Snapshot, SnapshotFile
from trainer.synthesis import Amounts, Material, make_talks
from trainer.talk import Talk

__all__ = ["Beside", "CorpusPlan", "EmptyCorpus", "Example", "build_corpus", "check_corpus", "read_examples"]

_TURN_TOKENS = 6  # of a chat template, for each message
_NO_PART = Part("", 0, 0, 1, 1)


class EmptyCorpus(Exception):
    """There is nothing to learn from; the message says what was looked at."""


@dataclass(frozen=True, slots=True)
class CorpusPlan:
    """How a corpus is made: examples of at most `example_tokens`; `held_out_share` of the files and pages withheld,
    the conversations of `validation_share` of the rest for validation, and how many there are of each kind. Raw text
    is cut into pieces of at most `raw_tokens` where that is not 0."""

    example_tokens: int
    held_out_share: float
    seed: int
    max_files: int
    validation_share: float = 0.0
    amounts: Amounts = field(default_factory=Amounts)
    raw_tokens: int = 0


LineWeights = Callable[[SnapshotFile], Sequence[float] | None]
# The pages that a model is asked about -> conversations, and what was left out of them.
Write = Callable[[Sequence[Document]], tuple[Sequence[Talk], Mapping[str, int]]]


@dataclass(frozen=True, slots=True)
class Beside:
    """What there is beside the code: documents, what their sources left out, and a model that writes about pages."""

    documents: Sequence[Document] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    write: Write = lambda _: ((), {})


def build_corpus(
    snapshot: Snapshot,
    tokenizer_file: Path,
    tokenizer_sha256: str,
    plan: CorpusPlan,
    folder: Path,
    line_weights: LineWeights = lambda _: None,
    beside: Beside | None = None,
) -> Ledger:
    """Write the corpus of `snapshot`, and of what is `beside` it, to `folder` (replaced when there); its ledger.

    Examples come in the order of what changed last. Raises `EmptyCorpus`.
    """
    beside = beside or Beside()
    kept = keep_once(snapshot, beside.documents, plan.max_files)
    if not kept.files and not kept.documents:
        raise EmptyCorpus(_what_was_there(snapshot))
    origins = [file.path for file in kept.files]
    origins += [origin_of(document.source_id) for document in kept.documents if document.kind in PAGES]
    sides = choose_sides(origins, plan.held_out_share, plan.validation_share, plan.seed)
    without_restatements(kept, sides)
    counter = Tokenizer.from_file(str(tokenizer_file))
    files = [read_code(file, count_line_tokens(file.text, counter), line_weights(file)) for file in kept.files]
    material = Material(snapshot, files, kept.documents, sides, counter, plan.example_tokens, plan.seed)
    written, unwritten = beside.write([document for document in kept.documents if document.kind in PAGES])
    kept.left_out.update(unwritten)
    kept.left_out.update({f"documents: {reason}": number for reason, number in beside.left_out.items()})
    talks = _talk_drafts([*make_talks(material, plan.amounts), *written], material, kept)
    staging = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        limit = plan.raw_tokens or plan.example_tokens
        withheld = list(_raw_drafts(material, "held-out", limit))
        entries = tuple(write_examples(_raw_drafts(material, "train", limit), withheld, talks, staging, kept.left_out))
        left_out = Counter(snapshot.skipped) + kept.left_out
        masked = Counter(snapshot.masked)
        for document in kept.documents:
            masked.update(document.masked)
        ledger = Ledger(
            snapshot.repository, snapshot.commit, snapshot.date.isoformat(), tokenizer_sha256, plan.example_tokens,
            entries, dict(sorted(left_out.items())), dict(sorted(masked.items())), PROMPT_VERSION,
        )  # fmt: skip
        assert not on_both_sides(ledger.entries)
        ledger.write(staging)
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ledger


def check_corpus(folder: Path) -> list[Leak]:
    """Every leak of the corpus in `folder`; none is what it should have. Raises `ValueError` when it is damaged."""
    ledger = read_ledger(folder)
    examples = read_examples(folder, ledger)
    return find_leaks(ledger, (Checkable(e.entry, e.question, e.shown) for e in examples))


def _what_was_there(snapshot: Snapshot) -> str:
    seen = ", ".join(f"{count} {reason}" for reason, count in sorted(snapshot.skipped.items())) or "no file at all"
    return f"no source file to learn from in {snapshot.repository}: {seen}"


def _raw_drafts(material: Material, split: Split, limit: int) -> Iterator[Draft]:
    """The raw text of one side, in pieces of at most `limit` tokens."""
    sides, counter = material.sides, material.counter
    for file in material.files:
        if sides.of_text(file.path) == split:
            yield from file_drafts(file, split, counter, limit)
    chosen = [document for document in material.documents if sides.of_text(document.source_id) == split]
    yield from document_drafts(chosen, material.snapshot, split, counter, limit)


def _talk_drafts(talks: Iterable[Talk], material: Material, kept: Kept) -> list[Draft]:
    """Conversations with their side and size; those that are too long, or asked already, are counted and left out."""
    licences = {file.path: licence_of(file.text) for file in material.files}
    dates = {document.source_id: document.date.isoformat() for document in material.documents}
    asked: set[str] = set()
    drafts: list[Draft] = []
    for talk in talks:
        tokens = sum(material.count(message["content"]) + _TURN_TOKENS for message in talk.messages)
        source = _source_of(talk.source, licences)
        # The same question with passages and without them are two things to learn.
        question = f"{len(talk.messages)} {' '.join(words_of(talk.question))}"
        if tokens > material.example_tokens:
            kept.left_out[f"{talk.kind}: longer than an example"] += 1
        elif question in asked:
            kept.left_out[f"{talk.kind}: asked already"] += 1
        else:
            asked.add(question)
            drafts.append(
                Draft(
                    talk.kind, source, _NO_PART, material.sides.of_talk(source), talk.weight, talk.line, tokens,
                    talk.messages, talk.question, talk.also, dates.get(talk.source, ""), licences.get(source, ""),
                )
            )  # fmt: skip
    return drafts


def _source_of(source: str, files: Mapping[str, str]) -> str:
    """A page of the documentation that is a file of the snapshot goes by its path."""
    return origin_of(source) if source.startswith("doc:") and origin_of(source) in files else source
