"""The synthetic conversations of a corpus, kind by kind. What a model writes comes from `trainer/generated.py`.

page-question    one instruction a page, answered by the page
file-question    one question a file, what it looks like, answered by the file as of the snapshot's month
restatement      many questions a file, page and pull request: why, how, where, which, overview (restatements, pages)
relation         what two symbols have to do with each other, who uses what (restatements)
retrieval        the serving prompt with real passages and distractors (grounded)
conflict         a passage that is newer than memory wins (grounded)
unanswerable     what does not exist, alone and in the serving prompt (unreal, grounded)
change           commit message or review comment -> the diff that followed (pages)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer

from trainer.cutting import Part, count_line_tokens
from trainer.facts import CodeFile, Facts, read_facts
from trainer.grounded import Room, contradict, ground, ground_missing, top_of
from trainer.pages import change_talk, explain, restate_page, restate_pull
from trainer.raw_text import PAGES, SLACK_TOKENS, document_borders, first_part
from trainer.restatements import relate, restate
from trainer.sides import Sides
from trainer.snapshot_search import SnapshotSearch
from trainer.sources.document import Document
from trainer.sources.snapshot import Snapshot
from trainer.talk import Talk, ask
from trainer.unreal import made_up_names, refuse

# A question, the lead of an answer and the template's own tokens.
_QUESTION_TOKENS = 96


@dataclass(frozen=True, slots=True)
class Amounts:
    """How many conversations of each kind: `restatements` and `relations` a source, the last three in all."""

    page_questions: bool = True
    file_questions: bool = True
    restatements: int = 0
    relations: int = 0
    changes: bool = True
    retrieval: int = 0
    conflicts: int = 0
    unanswerable: int = 0


@dataclass(frozen=True, slots=True)
class Material:
    """What conversations are made from."""

    snapshot: Snapshot
    files: Sequence[CodeFile]
    documents: Sequence[Document]
    sides: Sides
    counter: Tokenizer
    example_tokens: int
    seed: int

    def count(self, text: str) -> int:
        return len(self.counter.encode(text, add_special_tokens=False).ids)

    def fits(self, source: str, other: str) -> bool:
        """May a conversation about `source` show a line of `other`? What is withheld from one is from both."""
        return self.sides.of_talk(source) == self.sides.of_talk(other)


def make_talks(material: Material, amounts: Amounts) -> Iterator[Talk]:
    """Every conversation that needs no model, the same ones for the same material."""
    facts = read_facts(material.files)
    repository = material.snapshot.repository
    for file in material.files:
        if amounts.file_questions:
            yield from _file_question(file, material)
        yield from restate(file, facts, repository, amounts.restatements, material.fits)
        yield from relate(file, facts, repository, amounts.relations, material.fits)
    for document in material.documents:
        yield from _document_talks(document, material, amounts)
    if amounts.retrieval or amounts.conflicts or amounts.unanswerable:
        yield from _grounded(material, facts, amounts)


def file_question(snapshot: Snapshot, path: str, part: Part) -> Talk:
    """One question per file: what it looks like, answered by its text (or first part) as of the snapshot's month."""
    lead = f"As of {snapshot.date:%B %Y}, `{path}` looks like this"
    if part.parts > 1:
        lead += f" (lines {part.start_line} to {part.end_line})"
    question = f"What does `{path}` look like in the `{snapshot.repository}` repository?"
    return ask("file-question", path, question, f"{lead}:\n\n{part.text.rstrip()}")


def _file_question(file: CodeFile, material: Material) -> Iterator[Talk]:
    room = material.example_tokens - 3 * material.count(file.path) - _QUESTION_TOKENS
    borders = {chunk.start_line for chunk in file.chunks if chunk.defines}
    if part := first_part(file.text, file.line_tokens, room, borders):
        yield replace(
            file_question(material.snapshot, file.path, part), weight=file.weight_of(part.start_line, part.end_line)
        )


def _document_talks(document: Document, material: Material, amounts: Amounts) -> Iterator[Talk]:
    repository = material.snapshot.repository
    if document.kind in PAGES:
        if amounts.page_questions:
            room = material.example_tokens - 2 * material.count(document.title) - _QUESTION_TOKENS
            tokens = count_line_tokens(document.text, material.counter)
            if part := first_part(document.text, tokens, room, document_borders(document)):
                yield explain(document, part.text.strip(), repository)
        yield from restate_page(document, repository, amounts.restatements)
    elif document.kind == "pull-request" and amounts.restatements:
        yield from restate_pull(document, repository)
    if amounts.changes:
        yield from change_talk(document, repository)


def _grounded(material: Material, facts: Facts, amounts: Amounts) -> Iterator[Talk]:
    """Over what may be shown in training only: what is withheld is in no prompt either."""
    shown = [file for file in material.files if material.sides.of_text(file.path) == "train"]
    repository = material.snapshot.repository
    names = made_up_names(facts, amounts.unanswerable, material.seed)
    yield from refuse(names[::2], facts, repository)
    room = Room(material.example_tokens - SLACK_TOKENS, material.count)
    with TemporaryDirectory(prefix="nightschool-search-") as folder:
        search = SnapshotSearch([chunk for file in shown for chunk in file.chunks], Path(folder)).search
        yield from ground(top_of(shown, facts), search, room, repository, amounts.retrieval, material.seed)
        yield from contradict(shown, search, room, amounts.conflicts, material.seed)
        yield from ground_missing(names[1::2], search, room, repository)
