"""Code and documents as text to learn: cut, each part under a header that says what it is of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from tokenizers import Tokenizer

from indexer.chunking import chunk_text
from trainer.cutting import Part, count_line_tokens, cut
from trainer.duplicates import NearDuplicates, jaccard, words_of
from trainer.facts import CodeFile
from trainer.ledger import Kind, RawKind, Split
from trainer.patches import Patch, patches_of, take_out, touched_paths
from trainer.sides import Sides
from trainer.sources.document import Document
from trainer.sources.snapshot import Snapshot, SnapshotFile
from trainer.talk import Message

# Tokenised alone a line has other borders than in its text: room for what that differs, and for the end token.
SLACK_TOKENS = 8
PAGES = frozenset({"wiki", "documentation"})
_NAMES: dict[RawKind, str] = {
    "wiki": "Page", "documentation": "Page", "pull-request": "Pull request", "commit": "Commit", "review": "Review",
}  # fmt: skip
_LICENCE = re.compile(r"SPDX-License-Identifier:[ \t]*([^\s*/<>#]+(?:[ \t]+(?:OR|AND|WITH)[ \t]+[^\s*/<>#]+)*)")
_MIN_PATCH_WORDS = 12


@dataclass(frozen=True, slots=True)
class Draft:
    """An example before it is written. `question` and `messages` are of a conversation; `text` is what is written."""

    kind: Kind
    source: str
    part: Part
    split: Split
    weight: float
    text: str
    tokens: int
    messages: tuple[Message, ...] = ()
    question: str = ""
    also: tuple[str, ...] = ()
    date: str = ""
    licence: str = ""


@dataclass(slots=True)
class Kept:
    """What is learnt of a snapshot and its documents, no two alike; `left_out` says how much was not, and why."""

    files: list[SnapshotFile] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def keep_once(snapshot: Snapshot, documents: Sequence[Document], max_files: int) -> Kept:
    """Files in the order of what changed last, then documents; of those that are alike the first."""
    kept, seen, exact = Kept(), NearDuplicates(), set[str]()
    files = sorted(snapshot.files, key=lambda file: (-file.changed, file.path))

    def is_new(name: str, text: str) -> bool:
        digest = sha256("\n".join(text.split()).encode()).hexdigest()
        if digest in exact:
            kept.left_out["the same as another"] += 1
        elif seen.add(name, text) is not None:
            kept.left_out["nearly the same as another"] += 1
        else:
            exact.add(digest)
            return True
        return False

    for file in files:
        if not file.text.strip():
            kept.left_out["empty"] += 1
        elif len(kept.files) == max_files:
            kept.left_out["beyond max_files"] += 1
        elif is_new(file.path, file.text):
            kept.files.append(file)
    paths = {file.path for file in snapshot.files}
    for document in documents:
        if document.date > snapshot.date and snapshot.commit:
            kept.left_out["newer than the snapshot"] += 1
        elif document.source_id.removeprefix("doc:") in paths or is_new(document.source_id, document.text):
            # A page of the documentation is a file too: its text is learnt there, its questions come from here.
            kept.documents.append(document)
        elif document.answered:
            # Its diff is learnt as text elsewhere; that its message asks for it is not.
            kept.documents.append(replace(document, text=""))
    return kept


def without_restatements(kept: Kept, sides: Sides) -> None:
    """Take out of the changes what the snapshot says already, what an earlier change said, and what is withheld."""
    current = {file.path: file.text for file in kept.files}
    said: set[str] = set()

    def why(patch: Patch) -> str:
        if sides.of_text(patch.path) == "held-out":
            return "patches: of a file that is withheld"
        if len(words_of(patch.added)) < _MIN_PATCH_WORDS:
            return ""
        now = current.get(patch.path, "")
        if now and 0.7 < len(patch.added) / len(now) < 1.4 and jaccard(patch.added, now) >= 0.8:
            return "patches: restate a file of the snapshot"
        digest = sha256(f"{patch.path}\0{''.join(patch.added.split())}".encode()).hexdigest()
        if digest in said:
            return "patches: restate an earlier change"
        said.add(digest)
        return ""

    documents: list[Document] = []
    for document in sorted(kept.documents, key=lambda d: (d.kind != "pull-request", d.source_id)):
        documents += _without(document, why, sides, kept.left_out)
    kept.documents = documents


def _without(
    document: Document, why: Callable[[Patch], str], sides: Sides, left_out: Counter[str]
) -> Iterator[Document]:
    if document.kind in PAGES:
        yield document
        return
    text, reasons = take_out(document.text, why)
    left_out.update(reasons)
    withheld = any(sides.of_text(path) == "held-out" for path in touched_paths(document.answered))
    if withheld:
        left_out["changes: touch a file that is withheld"] += 1
    if reasons and not patches_of(text) and document.kind == "commit":
        left_out["commits: nothing left to say"] += 1
        text = ""
    if text.strip() or (document.answered and not withheld):
        yield replace(document, text=text, answered="" if withheld else document.answered)


def file_drafts(file: CodeFile, split: Split, counter: Tokenizer, limit: int) -> Iterator[Draft]:
    """A file's raw text in parts of at most `limit` tokens, cut before symbols and headings."""
    head_tokens = _count(file_header(file.path, 99, 99), counter)
    line_tokens = file.line_tokens
    borders = {chunk.start_line for chunk in file.chunks if chunk.defines or chunk.language == "markdown"}
    licence = licence_of(file.text)
    for part in cut(file.text, line_tokens, limit - head_tokens - SLACK_TOKENS, borders):
        text = file_header(file.path, part.number, part.parts) + part.text
        # Each line is tokenised once, in its file: a part by itself differs by a token or two at its ends.
        tokens = head_tokens + sum(line_tokens[part.start_line - 1 : part.end_line])
        weight = file.weight_of(part.start_line, part.end_line)
        yield Draft("raw", file.path, part, split, weight, text, tokens, licence=licence)


def document_drafts(
    documents: Iterable[Document], snapshot: Snapshot, split: Split, counter: Tokenizer, limit: int
) -> Iterator[Draft]:
    """The raw text of what is no file of the snapshot: wiki pages, pull requests, commits and reviews."""
    paths = {file.path for file in snapshot.files}
    for document in documents:
        if document.source_id.removeprefix("doc:") in paths or not document.text.strip():
            continue
        line_tokens = count_line_tokens(document.text, counter)
        head_tokens = _count(document_header(document, snapshot.repository, 99, 99), counter)
        borders = document_borders(document)
        for part in cut(document.text, line_tokens, limit - head_tokens - SLACK_TOKENS, borders):
            text = document_header(document, snapshot.repository, part.number, part.parts) + part.text
            tokens = head_tokens + sum(line_tokens[part.start_line - 1 : part.end_line])
            date = document.date.isoformat()
            yield Draft(document.kind, document.source_id, part, split, 0.0, text, tokens, date=date)


def document_borders(document: Document) -> set[int]:
    """The lines (1-based) at which a section, or the patch of the next file, begins."""
    if document.kind in PAGES:
        return {chunk.start_line for chunk in chunk_text(document.title, document.text, "markdown")}
    # Lines end as in an editor, patches at \n: both count the same where no \r stands alone.
    return {patch.start + 1 for patch in patches_of(document.text)}


def file_header(path: str, number: int, parts: int) -> str:
    """The fixed form. Repository and commit are the ledger's: here they would cost 20 tokens an example of 512."""
    which = f" (part {number} of {parts})" if parts > 1 else ""
    return f"- File: {path}{which}\nContent:\n"


def document_header(document: Document, repository: str, number: int, parts: int) -> str:
    """What a page is and of which repository. The first part of a change has its own: `PR #1: ...`, `URL: ...`."""
    which = f", part {number} of {parts}" if parts > 1 else ""
    if document.kind not in PAGES and number == 1:
        return ""
    where = f"{document.kind} of {repository}" if document.kind in PAGES else repository
    return f"- {_NAMES[document.kind]}: {document.title} ({where}{which})\nContent:\n"


def licence_of(text: str) -> str:
    """The licence that a file's SPDX line states, "" without one."""
    match = _LICENCE.search(text, 0, 4_000)
    return match[1].rstrip("\"'`.,)") if match else ""


def first_part(text: str, line_tokens: Sequence[int], limit: int, borders: set[int]) -> Part | None:
    """The part of a text that an answer has room for; None where not even one line fits."""
    return next(iter(cut(text, line_tokens, limit, borders)), None) if limit > 0 else None


def _count(text: str, counter: Tokenizer) -> int:
    return len(counter.encode(text, add_special_tokens=False).ids)
