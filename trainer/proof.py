"""What an adapter is proved on: lines committed after the snapshot, and code of other projects. Items, not models."""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from indexer.chunking import chunk_text
from indexer.languages import language_of
from indexer.lexical import LexicalIndex
from indexer.lines import split_lines
from indexer.tokens import query_tokens
from trainer.sources.history import AddedLines, History, NoHistory
from trainer.sources.snapshot import Snapshot

ItemKind = Literal["next-day", "held-out", "elsewhere"]
_CONTEXT_LINES = 12
_MAX_TEXT_CHARS = 400  # of one place: many places in many files say more than one long one
_MAX_CONTEXT_CHARS = 700
_PASSAGES = 2
# Other people's code that is on every machine: modules of Python's standard library, one of each kind.
_ELSEWHERE = (
    "textwrap.py", "bisect.py", "queue.py", "shlex.py", "calendar.py", "csv.py", "difflib.py", "fractions.py",
    "heapq.py", "mailbox.py", "netrc.py", "sched.py", "statistics.py", "tempfile.py", "wave.py", "zipfile.py",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """Text to be predicted after its context. `passages` is what retrieval puts in front, "" for none.

    `cluster` names the file it is from: items of one file are not independent.
    """

    kind: ItemKind
    cluster: str
    passages: str
    context: str
    text: str


def choose_snapshot(
    history: History, texts: Mapping[str, str], proof_bytes: int, proof_files: int = 1, max_commits: int = 400
) -> str:
    """The newest commit that leaves `proof_bytes` of added source in `proof_files` files after it.

    Raises `NoHistory` when none does.
    """
    commits = history.recent(max_commits)
    for commit in commits[1:]:
        added = history.added_lines(commit.sha, commits[0].sha)
        sizes = [(lines.path, len(added_text(lines, texts).encode())) for lines in added]
        files = {path for path, size in sizes if size}
        if sum(size for _, size in sizes) >= proof_bytes and len(files) >= proof_files:
            return commit.sha
    wanted = f"{proof_bytes} bytes of source in {proof_files} files"
    raise NoHistory(f"the last {len(commits)} commits add less than {wanted}")


def added_text(lines: AddedLines, texts: Mapping[str, str]) -> str:
    """The added lines themselves, at most the first 400 characters; "" for a file that is no source."""
    if lines.path not in texts:
        return ""
    return "".join(split_lines(texts[lines.path])[lines.start - 1 : lines.end])[:_MAX_TEXT_CHARS]


def next_day_items(
    added: Sequence[AddedLines], texts: Mapping[str, str], snapshot: Snapshot, max_bytes: int
) -> list[Item]:
    """Items of what was added after `snapshot`, a sample of about `max_bytes` that is the same each time.

    `texts`: the source files as the newer commit has them. Passages come from the snapshot only: what is predicted
    was not yet written when they were.
    """
    with TemporaryDirectory(prefix="nightschool-proof-") as folder:
        search = SnapshotPassages(snapshot, Path(folder))
        items: list[Item] = []
        used = 0
        for lines in sorted(added, key=_mark):
            text = added_text(lines, texts)
            if not text.strip() or used >= max_bytes:
                continue
            before = split_lines(texts[lines.path])[max(0, lines.start - 1 - _CONTEXT_LINES) : lines.start - 1]
            body = "".join(before)[-_MAX_CONTEXT_CHARS:]
            context = f"- File: {lines.path}\nContent:\n{body}"
            items.append(Item("next-day", lines.path, search.before(lines.path, body), context, text))
            used += len(text.encode())
        return items


def held_out_items(texts: Mapping[str, str], paths: Sequence[str], max_bytes: int) -> list[Item]:
    """Without a history to prove on: the middles of files that were never trained on."""
    items = [_middle("held-out", path, texts[path]) for path in sorted(paths) if len(texts.get(path, "")) > 200]
    return _up_to(items, max_bytes)


def elsewhere_items(max_bytes: int) -> list[Item]:
    """Other people's code, always the same: did the model forget?"""
    library = Path(sysconfig.get_path("stdlib"))
    found = [(name, library / name) for name in _ELSEWHERE if (library / name).is_file()]
    return _up_to([_middle("elsewhere", name, path.read_text("utf-8")) for name, path in found], max_bytes)


def _middle(kind: ItemKind, path: str, text: str) -> Item:
    at = text.find("\n", len(text) // 3) + 1
    context = f"- File: {path}\nContent:\n{text[max(0, at - _MAX_CONTEXT_CHARS) : at]}"
    return Item(kind, path, "", context, text[at : at + _MAX_TEXT_CHARS])


def _up_to(items: Sequence[Item], max_bytes: int) -> list[Item]:
    kept: list[Item] = []
    for item in items:
        if item.text.strip() and sum(len(other.text.encode()) for other in kept) < max_bytes:
            kept.append(item)
    return kept


def _mark(lines: AddedLines) -> str:
    return sha256(f"{lines.path}:{lines.start}:{lines.end}".encode()).hexdigest()


class SnapshotPassages:
    """A lexical search over a snapshot."""

    def __init__(self, snapshot: Snapshot, folder: Path) -> None:
        self._index = LexicalIndex(folder)
        chunks = [
            chunk
            for file in snapshot.files
            for chunk in chunk_text(file.path, file.text, language_of(file.path, file.text[:100]))
        ]
        self._chunks = {chunk.id: chunk for chunk in chunks}
        self._index.write((chunk.id, chunk) for chunk in chunks)

    def before(self, path: str, context: str, secret: str = "") -> str:
        """The best chunks for the last lines of `context`, as raw text; the place itself is left out, and what holds
        the line `secret`."""
        words = query_tokens(f"{path}\n{context[-300:]}")[-48:]
        parts: list[str] = []
        for id, _ in self._index.search(words, 8):
            chunk = self._chunks[id]
            known = chunk.text.strip()[:80] in context or (secret and secret in chunk.text)
            if not known and len(parts) < _PASSAGES:
                parts.append(f"- File: {chunk.path}\nContent:\n{chunk.text[:600]}\n")
        return "\n".join(reversed(parts)) + "\n" if parts else ""
