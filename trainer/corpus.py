"""A snapshot -> examples on disk: raw text and one question per file, with a ledger. Deterministic, byte for byte."""

from __future__ import annotations

import json
import shutil
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from pathlib import Path

from tokenizers import Tokenizer

from indexer.lines import split_lines
from trainer.cutting import Part, cut
from trainer.ledger import Entry, Kind, Ledger, Split, planted_on_both_sides
from trainer.sources.snapshot import Snapshot, SnapshotFile

CHAT_FILE = "chat/files.jsonl"
# Tokenised alone a line has other borders than in its text: room for what that differs, and for the end token.
_SLACK_TOKENS = 8


class EmptyCorpus(Exception):
    """There is nothing to learn from; the message says what was looked at."""


@dataclass(frozen=True, slots=True)
class CorpusPlan:
    """How a corpus is made: examples of at most `example_tokens`; `held_out_share` of the files never trained on."""

    example_tokens: int
    held_out_share: float
    seed: int
    max_files: int


@dataclass(frozen=True, slots=True)
class Example:
    """One example with its ledger entry; `messages` is empty for raw text."""

    entry: Entry
    text: str
    messages: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Draft:
    kind: Kind
    path: str
    part: Part
    split: Split
    weight: float
    text: str
    messages: tuple[dict[str, str], ...]
    tokens: int


LineWeights = Callable[[SnapshotFile], Sequence[float] | None]


def build_corpus(
    snapshot: Snapshot,
    tokenizer_file: Path,
    tokenizer_sha256: str,
    plan: CorpusPlan,
    folder: Path,
    line_weights: LineWeights = lambda _: None,
) -> Ledger:
    """Write the corpus of `snapshot` to `folder` (replaced when there) and return its ledger.

    Examples come in the order of what changed last. Raises `EmptyCorpus`.
    """
    files = sorted(snapshot.files, key=lambda file: (-file.changed, file.path))[: plan.max_files]
    files = [file for file in files if file.text.strip()]
    if not files:
        seen = ", ".join(f"{count} {reason}" for reason, count in sorted(snapshot.skipped.items())) or "no file at all"
        raise EmptyCorpus(f"no source file to learn from in {snapshot.repository}: {seen}")
    held_out = _held_out([file.path for file in files], plan)
    counter = Tokenizer.from_file(str(tokenizer_file))
    drafts = _drafts(snapshot, files, held_out, counter, plan, line_weights)
    staging = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        entries = tuple(_write(drafts, staging))
        left_out = dict(snapshot.skipped)
        if dropped := len(snapshot.files) - len(files):
            left_out["empty, or beyond max_files"] = dropped
        ledger = Ledger(
            snapshot.repository, snapshot.commit, snapshot.date.isoformat(), tokenizer_sha256, plan.example_tokens,
            entries, left_out, dict(snapshot.masked),
        )  # fmt: skip
        assert not planted_on_both_sides(ledger.entries)
        ledger.write(staging)
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ledger


def read_examples(folder: Path, ledger: Ledger) -> list[Example]:
    """The examples of a corpus, in the ledger's order. Raises `ValueError` when a file is not the one that was
    written.
    """
    chats = _read_chats(folder)
    return [_read_example(folder, entry, chats) for entry in ledger.entries]


def _held_out(paths: Sequence[str], plan: CorpusPlan) -> set[str]:
    """Chosen by hash, so that a file stays on its side from night to night. At least one, when there are two or
    more.
    """
    marks = {path: int(sha256(f"{plan.seed}:{path}".encode()).hexdigest()[:8], 16) / 2**32 for path in paths}
    chosen = {path for path, mark in marks.items() if mark < plan.held_out_share}
    if len(paths) < 2:
        return set()
    return chosen if 0 < len(chosen) < len(paths) else {min(marks, key=lambda path: marks[path])}


def _drafts(
    snapshot: Snapshot,
    files: Iterable[SnapshotFile],
    held_out: set[str],
    counter: Tokenizer,
    plan: CorpusPlan,
    line_weights: LineWeights,
) -> Iterator[_Draft]:
    for file in files:
        split: Split = "held-out" if file.path in held_out else "train"
        head_tokens = len(counter.encode(_header(file.path, 99, 99), add_special_tokens=False).ids)
        line_tokens = count_line_tokens(file.text, counter)
        parts = cut(file.text, line_tokens, plan.example_tokens - head_tokens - _SLACK_TOKENS)
        dates = line_weights(file)
        for part in parts:
            text = _header(file.path, part.number, part.parts) + part.text
            # Each line is tokenised once, in its file: a part by itself differs by a token or two at its ends.
            tokens = head_tokens + sum(line_tokens[part.start_line - 1 : part.end_line])
            yield _Draft("raw", file.path, part, split, _weight(dates, part), text, (), tokens)
        if parts:
            messages = file_question(snapshot, file.path, parts[0])
            tokens = 4 * head_tokens + sum(line_tokens[: parts[0].end_line])
            text = json.dumps({"messages": messages, "source_id": f"file:{file.path}"}, ensure_ascii=False)
            yield _Draft("file-question", file.path, parts[0], split, _weight(dates, parts[0]), text, messages, tokens)


def _header(path: str, number: int, parts: int) -> str:
    which = f" (part {number} of {parts})" if parts > 1 else ""
    return f"- File: {path}{which}\nContent:\n"


def file_question(snapshot: Snapshot, path: str, part: Part) -> tuple[dict[str, str], ...]:
    """One question per file: what it looks like, answered by its text (or first part) as of the snapshot's month."""
    lead = f"As of {snapshot.date:%B %Y}, `{path}` looks like this"
    if part.parts > 1:
        lead += f" (lines {part.start_line} to {part.end_line})"
    question = f"What does `{path}` look like in the `{snapshot.repository}` repository?"
    answer = f"{lead}:\n\n{part.text.rstrip()}"
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer}


def count_line_tokens(text: str, counter: Tokenizer) -> list[int]:
    """Tokens that begin in each line of `text`, which is tokenised as a whole."""
    ends = list(accumulate(len(line) for line in split_lines(text)))
    counts = [0] * len(ends)
    for start, _ in counter.encode(text, add_special_tokens=False).offsets:
        counts[min(bisect_left(ends, start + 1), len(ends) - 1)] += 1
    return counts


def _weight(weights: Sequence[float] | None, part: Part) -> float:
    if weights is None:
        return 0.0
    lines = weights[part.start_line - 1 : part.end_line]
    return round(sum(lines) / max(1, len(lines)), 6)


def _write(drafts: Iterable[_Draft], folder: Path) -> Iterator[Entry]:
    (folder / "raw").mkdir(parents=True)
    (folder / "chat").mkdir()
    raw = chat = 0
    with (folder / CHAT_FILE).open("wb") as chats:
        for draft in drafts:
            if draft.kind == "raw":
                raw += 1
                name = f"raw/{raw:06}.txt"
                (folder / name).write_bytes(draft.text.encode())
            else:
                chat += 1
                name = f"{CHAT_FILE}#{chat}"
                chats.write(f"{draft.text}\n".encode())
            part, digest = draft.part, sha256(draft.text.encode()).hexdigest()
            place = (part.number, part.parts, part.start_line, part.end_line)
            yield Entry(name, draft.kind, draft.path, *place, draft.tokens, draft.split, draft.weight, digest)


def _read_chats(folder: Path) -> list[str]:
    try:
        return (folder / CHAT_FILE).read_bytes().decode().split("\n")[:-1]
    except FileNotFoundError:
        return []


def _read_example(folder: Path, entry: Entry, chats: Sequence[str]) -> Example:
    if entry.kind == "raw":
        text = (folder / entry.id).read_bytes().decode()
        messages: Sequence[Mapping[str, str]] = ()
    else:
        text = chats[int(entry.id.rpartition("#")[2]) - 1]
        messages = json.loads(text)["messages"]
    if sha256(text.encode()).hexdigest() != entry.sha256:
        raise ValueError(f"{folder / entry.id} was changed after it was collected: collect again")
    return Example(entry, text, tuple(dict(turn) for turn in messages))
