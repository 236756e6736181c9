"""The code at one commit: the same file rules and the same masking of secrets as the index."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from indexer.files import Skipped, SourceFile, source_files
from indexer.quarantine import Quarantine, read_quarantine
from indexer.secrets import mask_secrets
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from trainer.sources.cleaning import strip_hidden
from trainer.sources.history import History, NoHistory


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A source file at the snapshot's commit, its secrets replaced. `changed` is how many of the last commits touched
    it, the newer the heavier (0: none)."""

    path: str
    text: str
    changed: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository's source at a commit (`commit` is "" without git; then it is the working tree's).

    `skipped` counts the other files by reason, `masked` the secrets replaced by type, `stripped` hidden characters.
    """

    repository: str
    commit: str
    date: datetime
    files: tuple[SnapshotFile, ...]
    skipped: dict[str, int] = field(default_factory=dict)
    masked: dict[str, int] = field(default_factory=dict)
    stripped: int = 0

    @property
    def name(self) -> str:
        """Date and commit (or the content's hash): what the corpus made of it is called."""
        mark = self.commit or sha256("".join(f"{f.path}\0{f.text}\0" for f in self.files).encode()).hexdigest()
        return f"{self.date:%Y-%m-%d}-{mark[:7]}"


def take_snapshot(workspace: Workspace, settings: IndexerSettings, commit: str = "HEAD") -> Snapshot:
    """The source files at `commit`, by path; without a history, those of the working tree."""
    history = History(workspace.root)
    try:
        at = history.commit(commit)
    except NoHistory:
        return _snapshot(workspace, source_files(workspace, settings), "", _newest_change(workspace, settings), {})
    # Outside the workspace: inside, the file rules would ask git about our copy.
    held = read_quarantine(workspace)
    with tempfile.TemporaryDirectory(prefix="nightschool-snapshot-") as folder:
        copy = Workspace(Path(folder).resolve())
        for path, content in history.files(at.sha, settings.max_file_bytes):
            target = copy.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        weights = {path: sum(0.99**age for age in ages) for path, ages in history.changes(at.sha, 500).items()}
        judged = (_obey(held, file) for file in source_files(copy, settings))
        return _snapshot(workspace, judged, at.sha, at.date, weights)


def _obey(held: Quarantine, file: SourceFile | Skipped) -> SourceFile | Skipped:
    return Skipped(file.path, "quarantined") if held.holds_path(file.path) else file


def _snapshot(
    workspace: Workspace,
    found: Iterable[SourceFile | Skipped],
    commit: str,
    date: datetime,
    weights: dict[str, float],
) -> Snapshot:
    files: list[SnapshotFile] = []
    skipped: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    stripped = 0
    for file in found:
        if isinstance(file, Skipped):
            skipped[file.reason] += 1
            continue
        visible = strip_hidden(file.text)
        stripped += len(file.text) - len(visible)
        clean = mask_secrets(visible)
        masked.update(clean.counts)
        files.append(SnapshotFile(file.path, clean.text, round(weights.get(file.path, 0.0), 6)))
    files.sort(key=lambda file: file.path)
    return Snapshot(workspace.root.name, commit, date, tuple(files), dict(skipped), dict(masked), stripped)


def _newest_change(workspace: Workspace, settings: IndexerSettings) -> datetime:
    paths = [workspace.root / file.path for file in source_files(workspace, settings) if isinstance(file, SourceFile)]
    return datetime.fromtimestamp(max((path.stat().st_mtime for path in paths), default=0), UTC)
