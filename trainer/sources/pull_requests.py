"""Kept pull requests as documents: each one whole, and each review comment with the change that followed it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from trainer.sources.cleaning import clean
from trainer.sources.document import Document
from trainer.sources.fetching import Wanted
from trainer.sources.gathering import Gathering
from trainer.sources.patches import DiffRules, FilePatch, tell_change
from trainer.sources.pulls import KeptComment, KeptPull, clean_pull

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@.*\n?", re.MULTILINE)
_NEAR_LINES = 10  # a change within so many lines of a comment is taken for its answer
_HUNK_TAIL = 12  # lines of the hunk above a comment: what the reviewer looked at
_MAX_COMMENT_CHARS = 8_000


def gather_pulls(pulls: Iterable[KeptPull], wanted: Wanted, rules: DiffRules, gathering: Gathering) -> None:
    """A document for each of `pulls` that is wanted, and one for each thread of a trusted reviewer that was followed by
    a change near it.
    """
    taken = 0
    for kept in pulls:
        if taken == wanted.count:
            break
        # Cleaned when it was kept; rules may have been added since.
        pull = clean_pull(kept)
        if reason := wanted.refusal(pull.number, pull.merged is not None, pull.association, pull.by_bot):
            gathering.leave_out(f"pull request {reason}")
            continue
        taken += 1
        comments = list(_trusted(pull.comments, wanted, gathering))
        gathering.take(_whole(pull, comments, rules, gathering))
        for document in _reviews(pull, comments, rules, gathering):
            gathering.take(document)


def _trusted(comments: Iterable[KeptComment], wanted: Wanted, gathering: Gathering) -> Iterator[KeptComment]:
    for comment in comments:
        if comment.association not in wanted.trusted:
            gathering.leave_out("comment by nobody trusted")
        elif comment.text.strip():
            yield comment


def _whole(pull: KeptPull, comments: list[KeptComment], rules: DiffRules, gathering: Gathering) -> Document:
    files = [FilePatch(file.path, file.status, file.patch, file.previous) for file in pull.files]
    done = tell_change(files, rules, gathering)
    if beyond := pull.files_total - len(pull.files):
        gathering.leave_out("file beyond the first 300 of a pull request", beyond)
    merged = f"Merged at: {_time(pull.merged)}\n" if pull.merged else ""
    text = (
        f"PR #{pull.number}: {pull.title}\nURL: {pull.url}\nDescription: {pull.description.strip()}\n"
        f"Created at: {_time(pull.created)}\n{merged}{done.told}" + "".join(_tell(comment) for comment in comments)
    )
    return Document(
        f"pr:{pull.number}",
        "pull-request",
        pull.title,
        text,
        pull.merged or pull.updated,
        pull.url,
        asked=f"{pull.title}\n\n{pull.description.strip()}".strip(),
        answered=done.diff,
        masked=dict(Counter(pull.masked) + Counter(done.masked)),
        stripped=pull.stripped + done.stripped,
    )


def _tell(comment: KeptComment) -> str:
    text = comment.text.strip()[:_MAX_COMMENT_CHARS]
    if comment.kind != "review":
        return f"{'Review' if comment.kind == 'verdict' else 'Comment'}: {text}\n"
    return f"Review comment on {comment.path}{f', line {comment.line}' if comment.line else ''}: {text}\n"


def _reviews(
    pull: KeptPull, comments: Iterable[KeptComment], rules: DiffRules, gathering: Gathering
) -> Iterator[Document]:
    for comment in comments:
        if comment.kind != "review" or comment.reply_to:
            continue
        if rules.judge(FilePatch(comment.path, "modified", None)):
            gathering.leave_out("review of a file that is left out")
            continue
        near = near_hunks(comment.follows, comment.line)
        answer = tell_change([FilePatch(comment.path, "modified", near)], rules, gathering) if near else None
        if answer is None or not answer.diff:
            gathering.leave_out("review that no change followed")
            continue
        yield _review(pull, comment, answer.diff)


def _review(pull: KeptPull, comment: KeptComment, answered: str) -> Document:
    hunk = clean("\n".join(comment.hunk.split("\n")[-_HUNK_TAIL:])).text
    asked = f"File: {comment.path}{f', line {comment.line}' if comment.line else ''}\n{hunk}\n\n{comment.text.strip()}"
    text = f"Review of PR #{pull.number}: {pull.title}\n{asked}\n\nThe change that followed:\n{answered}"
    return Document(
        f"review:{pull.number}#{comment.id}",
        "review",
        f"Review of PR #{pull.number}: {pull.title}",
        text,
        pull.merged or pull.updated,
        pull.url,
        asked=asked,
        answered=answered,
    )


def near_hunks(patch: str, line: int) -> str:
    """The hunks of `patch` that change what was within ten lines of `line` (1-based, before the change); all for 0."""
    starts = [*_HUNK.finditer(patch)]
    ends = [*(start.start() for start in starts), len(patch)][1:]
    near = []
    for start, end in zip(starts, ends, strict=True):
        first, count = int(start[1]), int(start[2] or 1)
        if not line or first - _NEAR_LINES <= line <= first + count + _NEAR_LINES:
            near.append(patch[start.start() : end].rstrip("\n") + "\n")
    return "".join(near)


def _time(when: datetime | None) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}" if when else ""
