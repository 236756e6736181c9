"""Door to prometheus-client: what the backend counts and times, in a registry of its own. No question, no code."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from indexer.index import IndexState
from server.adapter import AdapterError
from server.assist import AnswerEvent, Done, Text
from server.generation import GenerationError

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
ENGINE_STATES = ("starting", "ready", "swapping", "degraded", "backoff", "failed")
_WAIT_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_SEARCH_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one, which no query of ours asks for


class Metrics:
    """Everything at `/metrics`. One object an application: tests make as many as they like."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()

        def times(name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"nightschool_{name}_seconds", meaning, labels, buckets=buckets, registry=registry)

        def count(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"nightschool_{name}", meaning, labels, registry=registry)

        def now(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"nightschool_{name}", meaning, labels, registry=registry)

        self._first_token = times("first_token", "From question to the first piece of its answer", _WAIT_S, "door")
        self._total = times("answer", "From question to the end of its answer", _WAIT_S, "door")
        self._search = times("search", "One search of the index", _SEARCH_S)
        # How an answer ends: answered, passages_only (no engine), refused (too long, no such adapter), failed, or left
        # (the reader went).
        self._answers = count("answers", "Answers by how they ended", "door", "outcome")
        self._requests = count("http_requests", "HTTP requests", "route", "status")
        self._tokens = count("tokens", "Tokens as the engine counted them", "kind")
        self._in_work = now("questions_in_work", "Questions in work or waiting")
        self._tasks = now("asyncio_tasks", "Tasks of the event loop; one that never ends is a leak")
        self._room = now("questions_limit", "Beyond so many questions the answer is 429")
        self._behind = now("index_seconds_behind", "Age of the oldest change that is not indexed")
        self._waiting = now("index_waiting", "What waits for the index", "kind")
        self._indexed = now("index_size", "What the index holds", "kind")
        self._words_only = now("search_by_words_only", "1 while Chroma does not answer and only words are searched")
        self._engine = now("engine_state", "1 for the state that the engine is in", "state")
        self._engines = now("engine_endpoint_state", "The same for each of several engines", "endpoint", "state")
        self._adapter = now("adapter_in_service", "1 for what answers", "adapter", "base_model")
        self._loaded = now("adapter_loaded", "1 for each adapter that the engine holds beside its weights", "adapter")
        self._swap = now("last_swap_seconds", "How long the last change of what answers took", "served")
        self._night = now("last_night_timestamp_seconds", "When the last night of this outcome ended", "outcome")

    async def observed(self, events: AsyncGenerator[AnswerEvent], door: str) -> AsyncGenerator[AnswerEvent]:
        """`events` as they are, counted and timed on their way. Closing it closes them."""
        started, outcome, is_first = time.perf_counter(), "left", True
        self._in_work.inc()
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Text) and is_first:
                        is_first = False
                        self._first_token.labels(door).observe(time.perf_counter() - started)
                    if isinstance(event, Done):
                        outcome = self._note_done(event)
                    yield event
            self._total.labels(door).observe(time.perf_counter() - started)
        except GenerationError:
            outcome = "failed"
            raise
        except (AdapterError, ValueError):
            outcome = "refused"
            raise
        finally:
            self._in_work.dec()
            self._answers.labels(door, outcome).inc()

    def _note_done(self, done: Done) -> str:
        if (search_ms := done.timings_ms.get("search")) is not None:
            self._search.observe(search_ms / 1000)
        if done.finish:
            self.note_tokens(done.finish.prompt_tokens, done.finish.completion_tokens)
        return "answered" if done.base_model else "passages_only"

    def note_tokens(self, prompt: int, completion: int) -> None:
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("completion").inc(completion)

    def note_search(self, seconds: float) -> None:
        self._search.observe(seconds)

    def note_request(self, route: str, status: int) -> None:
        """`route` is the route's pattern, never the path as asked."""
        self._requests.labels(route, str(status)).inc()

    def note_tasks(self, tasks: int) -> None:
        self._tasks.set(tasks)

    def note_limit(self, questions: int) -> None:
        self._room.set(questions)

    def note_index(self, state: IndexState) -> None:
        self._behind.set(state.seconds_behind)
        self._waiting.labels("files").set(state.waiting_files)
        self._waiting.labels("chunks").set(state.waiting_chunks)
        self._indexed.labels("files").set(state.files)
        self._indexed.labels("chunks").set(state.chunks)

    def note_words_only(self, words_only: bool) -> None:
        self._words_only.set(words_only)

    def note_engine(self, state: str, adapter: str | None, base_model: str) -> None:
        for name in ENGINE_STATES:
            self._engine.labels(name).set(name == state)
        self._adapter.clear()
        self._adapter.labels(adapter or "none", base_model).set(1)

    def note_adapters(self, loaded: Sequence[str], how: str, swap_s: float | None) -> None:
        """The adapters that the engine holds beside its weights; how what answers is served, and came there."""
        self._loaded.clear()
        for adapter in loaded:
            self._loaded.labels(adapter).set(1)
        self._swap.clear()
        if swap_s is not None:
            self._swap.labels(how).set(swap_s)

    def note_engines(self, states: Mapping[str, str]) -> None:
        """`states`: address -> state, of each of several engines."""
        for endpoint, state in states.items():
            for name in ENGINE_STATES:
                self._engines.labels(endpoint, name).set(name == state)

    def note_nights(self, folder: Path) -> None:
        """The nights' own records in `folder` (`.nightschool/nights`); without any, nothing is said."""
        for outcome, ended in last_nights(folder).items():
            self._night.labels(outcome).set(ended)

    def render(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)


def last_nights(folder: Path) -> dict[str, float]:
    """Outcome -> when the last night that ended so did; seconds since 1970, as its record was written."""
    ended: dict[str, float] = {}
    for record in folder.glob("*.json"):
        try:
            outcome = json.loads(record.read_text("utf-8")).get("outcome")
            when = record.stat().st_mtime
        except (OSError, ValueError, AttributeError):  # half written, gone, or another file
            continue
        if isinstance(outcome, str):
            ended[outcome] = max(when, ended.get(outcome, 0.0))
    return ended
