"""Pull requests from GitHub to this machine: only what is wanted, nothing twice, and going on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from indexer.quarantine import Quarantine
from indexer.workspace import write_atomically
from trainer.settings import TrainerSettings
from trainer.sources.gathering import Gathering
from trainer.sources.github import BrokenAnswer, GithubFailed, GithubPulls, ResumeLater
from trainer.sources.github_shapes import Authored, ChangedFile, Comment, ListedPull, Review, WholePull
from trainer.sources.pulls import CommentKind, KeptComment, KeptFile, KeptPull, keep_pull, read_pull

MAX_FILES = 300  # of a pull request; what is larger moves files or code that a program wrote
_MAX_COMPARED = 10  # commits of a pull request that comments stand on, a call each
_LISTED_FOR_ONE = 10  # how many are looked through to find one that is wanted
_GONE = (404, 410, 451)
OnPull = Callable[[int, int], None]
Written = TypeVar("Written", bound=Authored)


class _Listed(BaseModel):
    """What decides whether a pull request is wanted, and whether it changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    number: int
    updated: datetime
    merged: bool
    association: str
    by_bot: bool


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    etag: str
    more: bool
    pulls: tuple[_Listed, ...]


class _Listing(BaseModel):
    """`listing.json`: the pages of the list as they were last seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    repository: str
    pages: tuple[_Page, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which pull requests are learnt from."""

    count: int
    trusted: frozenset[str]
    merged_only: bool
    quarantine: Quarantine

    @staticmethod
    def by(settings: TrainerSettings, quarantine: Quarantine) -> Wanted:
        return Wanted(settings.pull_requests, frozenset(settings.trusted), settings.merged_only, quarantine)

    def refusal(self, number: int, merged: bool, association: str, by_bot: bool) -> str:
        """Why a pull request is none of them, "" when it is one."""
        if self.quarantine.holds_source(f"pr:{number}"):
            return "quarantined"
        if by_bot:
            return "by a bot"
        if self.merged_only and not merged:
            return "not merged"
        return "" if association in self.trusted else "by nobody trusted"


def fetch_pulls(
    github: GithubPulls, folder: Path, wanted: Wanted, gathering: Gathering, on_pull: OnPull
) -> list[int] | None:
    """Bring `folder` up to the last wanted pull requests; their numbers, the newest first, None when they are unknown.

    Killed or refused at any point, what is there is whole, and the next call goes on. A refusal is a notice.
    """
    numbers: list[int] | None = None
    try:
        github.find()
        listed = _list_wanted(github, folder, wanted, gathering)
        numbers = [pull.number for pull in listed]
        for done, pull in enumerate(listed):
            on_pull(done, len(listed))
            _fetch_if_changed(github, folder, pull, wanted, gathering)
    except ResumeLater as error:
        gathering.notice(f"pull requests: resume later: {error}; what was fetched is kept and used")
    except GithubFailed as error:
        gathering.notice(f"pull requests: {error}; what was fetched before is used")
    return numbers


def _list_wanted(github: GithubPulls, folder: Path, wanted: Wanted, gathering: Gathering) -> list[_Listed]:
    found: dict[int, _Listed] = {}
    seen: set[int] = set()
    for page in _list_pages(github, folder, _LISTED_FOR_ONE * wanted.count):
        for pull in page.pulls:
            if pull.number in seen:
                continue
            seen.add(pull.number)
            if reason := wanted.refusal(pull.number, pull.merged, pull.association, pull.by_bot):
                gathering.leave_out(f"pull request {reason}")
                continue
            found[pull.number] = pull
            if len(found) == wanted.count:
                return list(found.values())
    return list(found.values())


def _list_pages(github: GithubPulls, folder: Path, at_most: int) -> Iterator[_Page]:
    """The list page by page, each kept once it is read; one that did not change costs nothing of the limit."""
    kept = _read_listing(folder, github.repository)
    pages: list[_Page] = []
    while sum(len(page.pulls) for page in pages) < at_most:
        number = len(pages) + 1
        known = kept.pages[number - 1] if len(kept.pages) >= number else None
        answer = github.listed(number, known.etag if known else "")
        if answer is None:
            assert known is not None
            page = known
        else:
            etag, pulls, more = answer
            page = _Page(etag=etag, more=more, pulls=tuple(_listed(pull) for pull in pulls))
        pages.append(page)
        if page is not known:
            merged = (*pages, *kept.pages[number:])
            _keep_listing(folder, _Listing(repository=github.repository, pages=merged))
        yield page
        if not page.more or not page.pulls:
            return


def _listed(pull: ListedPull) -> _Listed:
    return _Listed(
        number=pull.number,
        updated=pull.updated_at,
        merged=pull.merged_at is not None,
        association=pull.author_association,
        by_bot=pull.by_bot,
    )


def _read_listing(folder: Path, repository: str) -> _Listing:
    try:
        listing = _Listing.model_validate_json((folder / "listing.json").read_bytes())
    except (OSError, ValidationError):
        return _Listing(repository=repository)
    return listing if listing.repository == repository else _Listing(repository=repository)


def _keep_listing(folder: Path, listing: _Listing) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(folder / "listing.json", listing.model_dump_json() + "\n", mode=0o600)


def _fetch_if_changed(github: GithubPulls, folder: Path, pull: _Listed, wanted: Wanted, gathering: Gathering) -> None:
    known = read_pull(folder, pull.number)
    if known is not None and known.repository == github.repository and known.updated == pull.updated:
        return
    try:
        keep_pull(folder, _fetch(github, pull, wanted))
    except BrokenAnswer as error:  # of this one: it must not keep the others away for ever
        gathering.notice(f"pull request {pull.number}: resume later: {error}")
    except GithubFailed as error:
        if error.status not in _GONE:
            raise
        gathering.leave_out("pull request gone")


def _fetch(github: GithubPulls, pull: _Listed, wanted: Wanted) -> KeptPull:
    whole = github.whole(pull.number)
    files = github.files(pull.number, MAX_FILES) if whole.changed_files else []
    return KeptPull(
        repository=github.repository,
        number=whole.number,
        title=whole.title or "",
        url=whole.html_url,
        description=whole.body or "",
        association=whole.author_association,
        by_bot=whole.by_bot,
        created=whole.created_at,
        updated=pull.updated,
        merged=whole.merged_at,
        files_total=max(whole.changed_files, len(files)),
        files=tuple(_kept_file(file) for file in files),
        comments=tuple(_fetch_comments(github, whole, wanted)),
    )


def _kept_file(file: ChangedFile) -> KeptFile:
    return KeptFile(path=file.filename, status=file.status, patch=file.patch, previous=file.previous_filename or "")


def _fetch_comments(github: GithubPulls, whole: WholePull, wanted: Wanted) -> list[KeptComment]:
    """Comments of people, in the order they were written; those at lines with what followed them."""
    number = whole.number
    at_lines = _by_people(github.review_comments(number)) if whole.review_comments else []
    said = _by_people(github.conversation(number)) if whole.comments else []
    follows = _Follows(github, whole.head.sha, [c for c in at_lines if c.author_association in wanted.trusted])
    comments = [_kept_comment("review", comment, follows.after(comment)) for comment in at_lines]
    comments += [_kept_comment("conversation", comment, "") for comment in said]
    comments += [
        _kept_verdict(review)
        for review in _by_people(github.reviews(number))
        if review.submitted_at and (review.body or "").strip()
    ]
    return sorted(comments, key=lambda comment: (comment.date, comment.id))


class _Follows:
    """What the branch changed after the commits that comments stand on, asked for once a commit."""

    def __init__(self, github: GithubPulls, head: str, comments: Iterable[Comment]) -> None:
        commits = dict.fromkeys(comment.original_commit_id for comment in comments if not comment.in_reply_to_id)
        earlier = [commit for commit in commits if commit and commit != head][:_MAX_COMPARED]
        self._patches = {commit: _compare(github, commit, head) for commit in earlier} if head else {}

    def after(self, comment: Comment) -> str:
        if comment.in_reply_to_id:
            return ""
        return self._patches.get(comment.original_commit_id, {}).get(comment.path, "")


def _compare(github: GithubPulls, commit: str, head: str) -> dict[str, str]:
    """Path -> patch. Nothing where the commit is gone, or was rebased: then the difference is more than an answer."""
    try:
        found = github.compare(commit, head)
    except GithubFailed as error:
        if error.status not in _GONE:
            raise
        return {}
    if found.status != "ahead":
        return {}
    return {file.previous_filename or file.filename: file.patch for file in found.files if file.patch}


def _by_people(items: Iterable[Written]) -> list[Written]:
    return [item for item in items if not item.by_bot]


def _kept_comment(kind: CommentKind, comment: Comment, follows: str) -> KeptComment:
    return KeptComment(
        id=comment.id,
        kind=kind,
        association=comment.author_association,
        date=comment.created_at,
        text=comment.body or "",
        path=comment.path,
        line=comment.original_line or comment.line or 0,
        hunk=comment.diff_hunk,
        commit=comment.original_commit_id,
        reply_to=comment.in_reply_to_id or 0,
        follows=follows,
    )


def _kept_verdict(review: Review) -> KeptComment:
    assert review.submitted_at is not None
    return KeptComment(
        id=review.id,
        kind="verdict",
        association=review.author_association,
        date=review.submitted_at,
        text=review.body or "",
    )
