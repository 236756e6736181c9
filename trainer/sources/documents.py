"""What a repository knows beside its code, from all its sources: documentation, wiki, pull requests, commits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from indexer.quarantine import read_quarantine
from indexer.workspace import Workspace
from trainer.job import Note, Stage, TrainingEvent
from trainer.settings import TrainerSettings
from trainer.sources.commits import gather_commits, gather_local_pulls
from trainer.sources.document import Document, DocumentKind
from trainer.sources.documentation import gather_documentation
from trainer.sources.fetching import Wanted, fetch_pulls
from trainer.sources.gathering import Gathering
from trainer.sources.github import GithubPulls
from trainer.sources.github_token import BadToken, read_token
from trainer.sources.history import History, NoHistory
from trainer.sources.patches import DiffRules
from trainer.sources.pull_requests import gather_pulls
from trainer.sources.pulls import read_pulls
from trainer.sources.snapshot import Snapshot
from trainer.sources.wiki import WikiFailed, find_wiki, gather_wiki

OnProgress = Callable[[TrainingEvent], None]


@dataclass(frozen=True, slots=True)
class DocumentsReport:
    """The documents by source id, each id once. `left_out`: reason -> how many pages, pull requests, commits, comments,
    or files of their diffs; `notices`: one line each, for the user.
    """

    documents: tuple[Document, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def counts(self) -> dict[DocumentKind, int]:
        """Documents by kind."""
        return dict(sorted(Counter(document.kind for document in self.documents).items()))

    @property
    def masked(self) -> dict[str, int]:
        """Replaced secrets by type."""
        total: Counter[str] = Counter()
        for document in self.documents:
            total.update(document.masked)
        return dict(sorted(total.items()))

    @property
    def stripped(self) -> int:
        """Hidden characters taken out."""
        return sum(document.stripped for document in self.documents)


def collect_documents(
    workspace: Workspace, settings: TrainerSettings, snapshot: Snapshot, on_progress: OnProgress
) -> DocumentsReport:
    """Every document known at `snapshot`, cleaned; of a snapshot of the past, none that is newer.

    A source that cannot be read is a notice, and the rest goes on. What was fetched before is not fetched again, and
    what a limit cut short goes on with the next call. The same repository and the same answers give the same documents.
    """
    began = time.monotonic()
    history = History(workspace.root)
    gathering = Gathering(read_quarantine(workspace), snapshot.date if _is_past(history, snapshot) else None)
    on_progress(Stage("reading the documentation"))
    gather_documentation(snapshot, history, gathering)
    _gather_wiki(workspace, settings, gathering, on_progress)
    rules = DiffRules(workspace, gathering.quarantine)
    if settings.github:
        _gather_from_github(workspace, settings, rules, gathering, on_progress)
    elif snapshot.commit:
        on_progress(Stage("reading pull requests from the local history"))
        gather_local_pulls(history, snapshot.commit, settings.pull_requests, rules, gathering)
    if snapshot.commit:
        on_progress(Stage("reading commits"))
        gather_commits(history, snapshot.commit, settings.commits, rules, gathering)
    for notice in gathering.notices:
        on_progress(Note(notice))
    documents = {document.source_id: document for document in gathering.documents}
    return DocumentsReport(
        tuple(documents[name] for name in sorted(documents)),
        dict(sorted(gathering.left_out.items())),
        tuple(gathering.notices),
        round(time.monotonic() - began, 2),
    )


def _is_past(history: History, snapshot: Snapshot) -> bool:
    """Has the repository gone on since the snapshot?"""
    try:
        return bool(snapshot.commit) and history.head().sha != snapshot.commit
    except NoHistory:
        return False


def _gather_wiki(
    workspace: Workspace, settings: TrainerSettings, gathering: Gathering, on_progress: OnProgress
) -> None:
    try:
        source = find_wiki(settings.wiki, settings.github, settings.github_url)
        # Only to GitHub's own wiki: any other URL is one that nightschool.toml may name.
        token = read_token(settings) if settings.wiki == "github" else ""
    except (WikiFailed, BadToken) as error:
        gathering.notice(f"wiki: {error}")
        return
    if source is not None:
        on_progress(Stage("reading the wiki"))
        workspace.make_state_folder()
        gather_wiki(source, workspace.state / "sources" / "wiki", token, gathering)


def _gather_from_github(
    workspace: Workspace, settings: TrainerSettings, rules: DiffRules, gathering: Gathering, on_progress: OnProgress
) -> None:
    """What GitHub has now, and where it does not answer, what was fetched before."""
    wanted = Wanted.by(settings, gathering.quarantine)
    numbers: list[int] | None = None
    repository = settings.github

    def on_pull(done: int, total: int) -> None:
        on_progress(Stage(f"reading pull requests from GitHub: {done} of {total}"))

    try:
        token = read_token(settings)
    except BadToken as error:
        gathering.notice(f"pull requests: {error}; what was fetched before is used")
    else:
        workspace.make_state_folder()
        on_progress(Stage("looking for pull requests on GitHub"))
        with GithubPulls(settings.github, settings.github_url, token) as github:
            numbers = fetch_pulls(github, workspace.pulls, wanted, gathering, on_pull)
            repository = github.repository
    pulls = read_pulls(workspace.pulls, repository)
    gather_pulls((pull for pull in pulls if numbers is None or pull.number in numbers), wanted, rules, gathering)
