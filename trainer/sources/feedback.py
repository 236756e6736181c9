"""Questions that users asked and answers that they kept, as conversations; only where `[corpus] feedback` is on."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime

from indexer.secrets import mask_secrets
from indexer.workspace import Workspace
from server.feedback import Exchange, Feedback
from trainer.talk import Talk, ask

# Markers of passages that are not there any more would teach to cite nothing.
_MARKER = re.compile(r"\s?\[\d{1,3}\](?!\()")


def gather_feedback(workspace: Workspace, until: datetime | None) -> tuple[list[Talk], dict[str, int]]:
    """The answers that were kept, as their users left them, the newest of each question; and why others were left out.

    None that is newer than `until`, where there is one. Raises `FeedbackError`.
    """
    left_out: Counter[str] = Counter()
    kept: dict[str, Talk] = {}
    for exchange in Feedback(workspace).read():
        if not exchange.kept:
            left_out["feedback: not kept by its user"] += 1
        elif until is not None and datetime.fromisoformat(exchange.asked_at) > until:
            left_out["feedback: newer than the snapshot"] += 1
        else:
            kept[exchange.question] = _talk(exchange)
    return list(kept.values()), dict(left_out)


def _talk(exchange: Exchange) -> Talk:
    answer = exchange.edited or _MARKER.sub("", exchange.answer)
    return ask("feedback", f"feedback:{exchange.id}", exchange.question, mask_secrets(answer).text.strip())
