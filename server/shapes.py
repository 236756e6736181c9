"""The JSON shapes of nightschool's own HTTP answers and of `--json`: one place, so that all doors say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from indexer.search import Passage
from server.assist import Done

Json = dict[str, Any]


def passage_json(passage: Passage) -> Json:
    return asdict(passage)


def search_json(query: str, took_ms: float, passages: Sequence[Passage]) -> Json:
    """What `search` answers for one query; `took_ms` is the search itself, query embedding included."""
    return {"query": query, "took_ms": round(took_ms, 2), "passages": [passage_json(passage) for passage in passages]}


def done_json(done: Done) -> Json:
    """A whole answer, as `ask --json` prints it."""
    return {
        "answer": done.answer,
        "citations": [asdict(citation) for citation in done.citations],
        "passages": [{"index": n, **passage_json(passage)} for n, passage in enumerate(done.passages, 1)],
        "freshness": asdict(done.freshness),
        "adapter": done.adapter,
        "base_model": done.base_model,
        "notices": list(done.notices),
        "timings_ms": dict(done.timings_ms),
        "groundedness": done.groundedness,
        **({"explanation": asdict(done.explanation)} if done.explanation else {}),
    }
