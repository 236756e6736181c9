"""The examples of a corpus on disk: raw text in files of its own, conversations as JSONL, a file a kind."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from trainer.leaks import Watch
from trainer.ledger import CHAT_KINDS, Entry, Ledger
from trainer.raw_text import Draft

_MASKED = re.compile(r"<secret:([\w-]+)>")


@dataclass(frozen=True, slots=True)
class Example:
    """One example with its ledger entry; `messages` and `question` are empty for raw text."""

    entry: Entry
    text: str
    messages: tuple[dict[str, str], ...] = ()
    question: str = ""

    @property
    def shown(self) -> str:
        """All the words of it that the model reads."""
        return self.text if self.entry.is_raw else _joined(self.messages)


def read_examples(folder: Path, ledger: Ledger) -> list[Example]:
    """The examples of a corpus, in the ledger's order. Raises `ValueError` when a file is not the one that was
    written.
    """
    chats: dict[str, list[str]] = {kind: _read_lines(folder / _chat_file(kind)) for kind in CHAT_KINDS}
    return [_read_example(folder, entry, chats.get(entry.kind, ())) for entry in ledger.entries]


def write_examples(
    learnt: Iterable[Draft], withheld: Sequence[Draft], talks: Sequence[Draft], folder: Path, left_out: Counter[str]
) -> Iterator[Entry]:
    """What is learnt first. What is held out and stands in it all the same is found while it goes by, and left out."""
    (folder / "raw").mkdir(parents=True)
    (folder / "chat").mkdir()
    numbers = count(1)
    held = [talk for talk in talks if talk.split != "train"]
    watch = Watch([draft.text for draft in withheld], [talk.question for talk in held])
    for draft in learnt:
        watch.see(draft.text)
        yield _write_raw(draft, f"raw/{next(numbers):06}.txt", folder)
    taught = [talk for talk in talks if talk.split == "train"]
    for talk in taught:
        watch.see(_joined(talk.messages), talk.question)
    for draft in _unseen(withheld, watch.texts, left_out):
        yield _write_raw(draft, f"raw/{next(numbers):06}.txt", folder)
    yield from _write_talks([*taught, *_unseen(held, watch.questions, left_out)], folder)


def _unseen(held: Sequence[Draft], leaking: set[int], left_out: Counter[str]) -> Iterator[Draft]:
    for number, draft in enumerate(held):
        if number in leaking:
            left_out[f"{draft.kind}: held out, but learnt elsewhere"] += 1
        else:
            yield draft


def _write_raw(draft: Draft, name: str, folder: Path) -> Entry:
    (folder / name).write_bytes(draft.text.encode())
    return _entry(name, draft)


def _write_talks(talks: Iterable[Draft], folder: Path) -> Iterator[Entry]:
    lines: Counter[str] = Counter()
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for talk in talks:
            if talk.kind not in files:
                files[talk.kind] = stack.enter_context((folder / _chat_file(talk.kind)).open("wb"))
            lines[talk.kind] += 1
            files[talk.kind].write(f"{talk.text}\n".encode())
            yield _entry(f"{_chat_file(talk.kind)}#{lines[talk.kind]}", talk)


def _entry(name: str, draft: Draft) -> Entry:
    part = draft.part
    return Entry(
        name, draft.kind, draft.source, part.number, part.parts, part.start_line, part.end_line, draft.tokens,
        draft.split, draft.weight, sha256(draft.text.encode()).hexdigest(), draft.also, draft.date, draft.licence,
        dict(sorted(Counter(_MASKED.findall(draft.text)).items())),
    )  # fmt: skip


def _chat_file(kind: str) -> str:
    return f"chat/{kind}.jsonl"


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_bytes().decode().split("\n")[:-1]
    except FileNotFoundError:
        return []


def _read_example(folder: Path, entry: Entry, chats: Sequence[str]) -> Example:
    if entry.is_raw:
        text = (folder / entry.id).read_bytes().decode()
        values: dict[str, Any] = {}
    else:
        number = int(entry.id.rpartition("#")[2])
        text = chats[number - 1] if number <= len(chats) else ""
        values = json.loads(text) if text else {}
    if sha256(text.encode()).hexdigest() != entry.sha256:
        raise ValueError(f"{folder / entry.id} was changed after it was collected: collect again")
    messages: Sequence[Mapping[str, str]] = values.get("messages", ())
    asked = values.get("question") or (messages[-2]["content"] if messages else "")
    return Example(entry, text, tuple(dict(turn) for turn in messages), asked)


def _joined(messages: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(message["content"] for message in messages)
