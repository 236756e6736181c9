"""Words that the repository had and has no more: an adapter that still writes them remembers what is gone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from trainer.sources.history import History, NoHistory

_COMMITS = 400
# A name and no word of a language: with an underscore or a capital inside, five letters at least.
_NAME = re.compile(r"\b(?=\w{5,})[A-Za-z]\w*(?:_\w|[a-z][A-Z])\w*\b")


def gone_names(root: Path, now: Iterable[str]) -> frozenset[str]:
    """Names in lines that were removed in the last 400 commits and that no text of `now` holds; none without git."""
    history = History(root)
    try:
        commits = history.recent(_COMMITS)
        removed = history.removed_text(commits[-1].sha, commits[0].sha) if len(commits) > 1 else ""
    except NoHistory:
        return frozenset()
    gone = set(_NAME.findall(removed))
    for text in now:
        gone.difference_update(_NAME.findall(text))
    return frozenset(gone)
