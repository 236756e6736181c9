"""The JSON shapes of nightschool's own HTTP answers and of `--json`: one place, so that all doors say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from indexer.lines import split_lines
from indexer.search import Passage
from server.assist import Done

Json = dict[str, Any]


def passage_json(passage: Passage) -> Json:
    return asdict(passage)


def search_json(
    query: str, took_ms: float, passages: Sequence[Passage], missing: Sequence[str] = (), words_only: str = ""
) -> Json:
    """What `search` answers for one query; `took_ms` is the search itself, query embedding included.

    `missing`: the repositories of a fleet that could not be asked, with the reason; left out where there are none.
    There is a `notice` only while the search finds by words only.
    """
    found: Json = {"query": query, "took_ms": round(took_ms, 2), "passages": list(map(passage_json, passages))}
    found |= {"missing": list(missing)} if missing else {}
    return found | ({"notice": f"searched by words only: {words_only}"} if words_only else {})


def code_json(path: str, text: str, start_line: int, end_line: int | None) -> Json:
    """Lines of a file as `/code` gives them; `end_line` is the last line that there is. Raises `ValueError`."""
    lines = split_lines(text)
    last = min(end_line or len(lines), len(lines))
    if not start_line <= max(last, 1):
        raise ValueError(f"{path} has {len(lines)} lines: no lines {start_line} to {end_line or len(lines)}")
    part = "".join(lines[start_line - 1 : last])
    return {"path": path, "start_line": start_line, "end_line": last, "lines": len(lines), "text": part}


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
