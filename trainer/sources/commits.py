"""The local history as data: what a commit says -> its diff, and pull requests without GitHub (merges, squashes)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from trainer.sources.cleaning import Clean, clean_prose
from trainer.sources.document import Document, DocumentKind
from trainer.sources.gathering import Gathering
from trainer.sources.history import History, ToldChange
from trainer.sources.patches import Change, DiffRules, read_git_diff, tell_change

_MAX_DIFF_BYTES = 2_000_000
_MAX_ANSWER_CHARS = 20_000  # of a commit's diff: what is longer teaches no one what its message means
_MIN_WORDS = 3
_BOT = re.compile(
    r"\[bot\]|^(?:dependabot|renovate|greenkeeper|snyk|pre-commit-ci|github-actions|pyup|allcontributors|mergify"
    r"|codecov|coderabbitai|copilot|semantic-release|imgbot|weblate|transifex)(?:[-\s\[@].*)?$",
    re.IGNORECASE,
)
_TRAILER = re.compile(
    r"^(?:signed-off-by|co-authored-by|reviewed-by|acked-by|tested-by|cc|change-id|reviewed-on|git-svn-id"
    r"|pr-url|gitorigin-revid|cherry-picked-from)\s*:.*\n?|^\(cherry picked from commit .*\n?",
    re.IGNORECASE | re.MULTILINE,
)
# GitHub's merges and squashes, GitLab's, Bitbucket's.
_MERGE = re.compile(r"Merge pull request #(\d+)|Merged in .* \(pull request #(\d+)\)")
_SQUASH = re.compile(r"\((?:#|pull request #|!)(\d+)\)$")
_GITLAB = re.compile(r"^See merge request \S*!(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LocalPull:
    """A pull request as the main line tells it. `told` by its commits on it, or by its merge."""

    number: int
    title: str
    description: str
    change: ToldChange


def is_bot(name: str) -> bool:
    """Is this the name or address of a program that writes commits or comments?"""
    return bool(_BOT.search(name.strip()))


def gather_local_pulls(
    history: History, commit: str, count: int, rules: DiffRules, gathering: Gathering, *, look_back: int = 10
) -> None:
    """The last `count` merges and squashes of pull requests up to `commit`, of `look_back` times as many looked at.

    The history does not say what their authors are to the project: what was merged is taken, bots left out.
    """
    taken = 0
    for change in history.changes_told(commit, count * look_back, main_line=True):
        if taken == count:
            break
        pull = read_local_pull(change)
        if pull and (document := _pull_document(pull, history, rules, gathering)):
            taken += 1
            gathering.take(document)


def gather_commits(history: History, commit: str, count: int, rules: DiffRules, gathering: Gathering) -> None:
    """A document for each of the last `count` commits up to `commit` (no merges) whose message says something.

    A squash whose pull request is gathered already is left out, and what came with a quarantined one.
    """
    there = {document.source_id for document in gathering.documents}
    held = set(_held_commits(history, commit, count, gathering))
    for change in history.changes_told(commit, count):
        squash = read_local_pull(change)
        if squash and f"pr:{squash.number}" in there:
            gathering.leave_out("commit of a pull request that is there whole")
        elif change.sha in held:
            gathering.leave_out("quarantined")
        elif document := _commit_document(change, history, rules, gathering):
            gathering.take(document)


def read_local_pull(change: ToldChange) -> LocalPull | None:
    """The pull request that `change` brought to the main line; None when it is none."""
    subject, _, body = change.message.partition("\n")
    subject, body = subject.strip(), body.strip()
    if len(change.parents) > 1:
        found = _MERGE.match(subject) or _GITLAB.search(body)
        if found is None:
            return None
        title, _, description = _GITLAB.sub("", body).strip().partition("\n")
        number = int(next(filter(None, found.groups())))
        return LocalPull(number, title.strip() or subject, description.strip(), change)
    if squashed := _SQUASH.search(subject):
        return LocalPull(int(squashed[1]), subject[: squashed.start()].strip(), body, change)
    return None


def _held_commits(history: History, commit: str, count: int, gathering: Gathering) -> Iterator[str]:
    if not any(source.startswith("pr:") for source in gathering.quarantine.sources):
        return
    for change in history.changes_told(commit, count, main_line=True):
        pull = read_local_pull(change)
        if pull and gathering.quarantine.holds_source(f"pr:{pull.number}"):
            yield change.sha
            if len(change.parents) > 1:
                yield from history.between(change.parents[0], change.sha)


def _pull_document(pull: LocalPull, history: History, rules: DiffRules, gathering: Gathering) -> Document | None:
    change = pull.change
    if is_bot(change.author) or is_bot(change.email):
        gathering.leave_out("by a bot")
        return None
    done = _tell(change, history, rules, gathering)
    if done is None:
        return None
    title, description = clean_prose(pull.title), clean_prose(_TRAILER.sub("", pull.description).strip())
    date = f"{change.date:%Y-%m-%dT%H:%M:%SZ}"
    head = f"PR #{pull.number}: {title.text}\nDescription: {description.text}\nMerged at: {date}\n"
    return _document(f"pr:{pull.number}", "pull-request", title, description, head, done, change)


def _commit_document(change: ToldChange, history: History, rules: DiffRules, gathering: Gathering) -> Document | None:
    if is_bot(change.author) or is_bot(change.email):
        gathering.leave_out("by a bot")
        return None
    subject, _, body = _TRAILER.sub("", change.message).strip().partition("\n")
    if len(subject.split()) < _MIN_WORDS:
        gathering.leave_out("message says nothing")
        return None
    done = _tell(change, history, rules, gathering)
    if done is None:
        return None
    if len(done.diff) > _MAX_ANSWER_CHARS:
        gathering.leave_out("diff too large")
        return None
    title, description = clean_prose(subject.strip()), clean_prose(body.strip())
    head = f"Commit {change.sha[:12]}: {title.text}\nDescription: {description.text}\n"
    head += f"Committed at: {change.date:%Y-%m-%dT%H:%M:%SZ}\n"
    return _document(f"commit:{change.sha}", "commit", title, description, head, done, change)


def _tell(change: ToldChange, history: History, rules: DiffRules, gathering: Gathering) -> Change | None:
    diff = history.diff(change, _MAX_DIFF_BYTES)
    if diff is None:
        gathering.leave_out("diff too large")
        return None
    done = tell_change(read_git_diff(diff), rules, gathering)
    if not done.diff:
        gathering.leave_out("no source in its diff")
        return None
    return done


def _document(
    source_id: str, kind: DocumentKind, title: Clean, description: Clean, head: str, done: Change, change: ToldChange
) -> Document:
    masked = Counter(done.masked) + Counter(title.masked) + Counter(description.masked)
    return Document(
        source_id,
        kind,
        title.text,
        head + done.told,
        change.date,
        asked=f"{title.text}\n\n{description.text}".strip(),
        answered=done.diff,
        masked=dict(masked),
        stripped=done.stripped + title.stripped + description.stripped,
    )
