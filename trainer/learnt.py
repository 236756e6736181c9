"""What a night could learn that the one before it could not: the commits and lines between their snapshots."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from indexer.secrets import mask_secrets
from indexer.workspace import Workspace
from trainer.sources.history import History, NoHistory

_SUBJECTS, _FILES = 12, 12


@dataclass(frozen=True, slots=True)
class Learnt:
    """Since the night `since` ("" when there was none before): how many commits, the first lines of the newest ones,
    and the files with the most added lines, as (path, lines)."""

    since: str = ""
    commits: int = 0
    subjects: tuple[str, ...] = ()
    files: tuple[tuple[str, int], ...] = ()


def learnt_since(workspace: Workspace, commit: str) -> Learnt:
    """What is in the snapshot at `commit` and was not in that of the last night that trained."""
    found = _last_trained(workspace.state / "nights")
    if found is None or not commit:
        return Learnt()
    since, older = found
    history = History(workspace.root)
    try:
        subjects = [mask_secrets(subject).text for subject in history.subjects(older, commit)]
        added: Counter[str] = Counter()
        for lines in history.added_lines(older, commit):
            added[lines.path] += lines.end - lines.start + 1
    except NoHistory:  # rewritten since
        return Learnt()
    return Learnt(since, len(subjects), tuple(subjects[:_SUBJECTS]), tuple(added.most_common(_FILES)))


def _last_trained(nights: Path) -> tuple[str, str] | None:
    """Name and commit of the newest night that left a report."""
    for path in sorted(nights.glob("2*.json"), reverse=True):
        try:
            values = json.loads(path.read_text("utf-8"))
            if values["commit"]:
                return str(values["night"]), str(values["commit"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
