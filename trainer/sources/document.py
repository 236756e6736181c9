"""A text that a repository knows beside its code: a wiki page, a pull request, a commit. What every source gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

DocumentKind = Literal["wiki", "documentation", "pull-request", "commit", "review"]


@dataclass(frozen=True, slots=True)
class Document:
    """One page, pull request, commit or review, its secrets replaced and its hidden characters stripped.

    `source_id` names it for ever (`wiki:Deploying`, `doc:docs/setup.md`, `pr:2989`, `commit:<sha>`, `review:2989#31`):
    splits, the quarantine and `forget` go by it. `text` is what is learnt as it stands. For a change that answered
    something (a commit message, a review comment), `asked` is what was asked and `answered` the diff. `date` is the
    last change, UTC; `masked` counts replaced secrets by type, `stripped` hidden characters.
    """

    source_id: str
    kind: DocumentKind
    title: str
    text: str
    date: datetime
    url: str = ""
    asked: str = ""
    answered: str = ""
    masked: Mapping[str, int] = field(default_factory=dict)
    stripped: int = 0
