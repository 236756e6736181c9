"""Pull requests as they are kept on this machine: one JSON file each, cleaned before it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from indexer.files import judge_name
from indexer.workspace import write_atomically
from trainer.sources.cleaning import Clean, clean, clean_prose

_VERSION = 1
CommentKind = Literal["conversation", "review", "verdict"]


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeptFile(_Kept):
    """A file of a pull request; `patch` is None where GitHub shows none (binary, or too large)."""

    path: str
    status: str
    patch: str | None
    previous: str = ""


class KeptComment(_Kept):
    """A comment by a person. `review` ones stand at `path` and `line`, below `hunk`, on `commit`; `follows` is what the
    branch changed in that file from there to its end ("" nothing, or unknown); `reply_to` is 0 for a thread's first.
    """

    id: int
    kind: CommentKind
    association: str
    date: datetime
    text: str
    path: str = ""
    line: int = 0
    hunk: str = ""
    commit: str = ""
    reply_to: int = 0
    follows: str = ""


class KeptPull(_Kept):
    """A pull request. `association` is what its author is to the project; `merged` None when it was not; `files_total`
    counts those beyond `files` too; `masked` and `stripped` what was cleaned before it was kept.
    """

    repository: str
    number: int
    title: str
    url: str
    description: str
    association: str
    by_bot: bool
    created: datetime
    updated: datetime
    merged: datetime | None
    files_total: int
    files: tuple[KeptFile, ...]
    comments: tuple[KeptComment, ...]
    masked: dict[str, int] = {}
    stripped: int = 0
    version: int = _VERSION


def keep_pull(folder: Path, pull: KeptPull) -> None:
    """Write `pull`, cleaned, to `folder`; a reader sees the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(folder / f"{pull.number}.json", clean_pull(pull).model_dump_json(indent=1) + "\n", mode=0o600)


def read_pull(folder: Path, number: int) -> KeptPull | None:
    """The kept pull request; None when it is not there, or damaged, or of another version."""
    try:
        pull = KeptPull.model_validate_json((folder / f"{number}.json").read_bytes())
    except (OSError, ValidationError):
        return None
    return pull if pull.version == _VERSION else None


def read_pulls(folder: Path, repository: str) -> Iterator[KeptPull]:
    """Every kept pull request of `repository`, the highest number first."""
    numbers = sorted((int(file.stem) for file in folder.glob("*.json") if file.stem.isdecimal()), reverse=True)
    for number in numbers:
        pull = read_pull(folder, number)
        if pull is not None and pull.repository.lower() == repository.lower():
            yield pull


def clean_pull(pull: KeptPull) -> KeptPull:
    """`pull` without secrets and hidden characters. Diffs of files that hold secrets by their name go whole."""
    counts: Counter[str] = Counter(pull.masked)
    hidden = pull.stripped

    def kept(done: Clean) -> str:
        nonlocal hidden
        counts.update(done.masked)
        hidden += done.stripped
        return done.text

    files = tuple(
        KeptFile(
            path=kept(clean(file.path)),
            status=kept(clean(file.status)),
            patch=None if file.patch is None or judge_name(file.path) else kept(clean(file.patch)),
            previous=kept(clean(file.previous)),
        )
        for file in pull.files
    )
    comments = tuple(
        comment.model_copy(
            update={
                "text": kept(clean_prose(comment.text)),
                "path": kept(clean(comment.path)),
                "hunk": "" if judge_name(comment.path) else kept(clean(comment.hunk)),
                "follows": "" if judge_name(comment.path) else kept(clean(comment.follows)),
            }
        )
        for comment in pull.comments
    )
    title, description = kept(clean(pull.title)), kept(clean_prose(pull.description))
    cleaned = {
        "files": files,
        "comments": comments,
        "title": title,
        "description": description,
        "url": kept(clean(pull.url)),
    }
    return pull.model_copy(update={**cleaned, "masked": dict(sorted(counts.items())), "stripped": hidden})
