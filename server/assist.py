"""MAIN PATH: a question -> search -> prompt -> completion -> checked citations -> the answer.

Events come as they happen: `Notice` (something the user must know), `Text` (a piece of the answer), then one `Done`.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field

from indexer.index import IndexState, IndexUnavailable
from indexer.search import Passage
from server.citations import Citation, check, cited, remove_unknown_markers, standing_behind
from server.engine import EngineError
from server.generation import Finish, Model, Sampling
from server.prompt import Prompt, Question, render_prompt

log = logging.getLogger(__name__)

# What may still become a citation marker when the next piece comes: "[", " [1", ...
_OPEN_MARKER = re.compile(r"\s?\[\d{0,3}$|\s$")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user must know about this answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """The next piece of the answer."""

    delta: str


@dataclass(frozen=True, slots=True)
class Done:
    """The whole answer and what it stands on. `adapter` None: the bare base model; `base_model` "" : no model at all.

    `passages[i]` is what `[i + 1]` refers to. `timings_ms` has search, prompt, first_token and total.
    """

    answer: str
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    freshness: IndexState
    adapter: str | None
    base_model: str
    notices: tuple[str, ...]
    timings_ms: Mapping[str, float]
    finish: Finish | None = None


AnswerEvent = Notice | Text | Done
Search = Callable[[str, int, Mapping[str, str]], Awaitable[Sequence[Passage]]]


@dataclass(frozen=True, slots=True)
class Doors:
    """What answering needs of the world, opened at the edge: the index, and a model by version (None: in service)."""

    search: Search
    still_there: Callable[[Passage], bool]
    freshness: Callable[[], Awaitable[IndexState]]
    borrow: Callable[[str | None], AbstractAsyncContextManager[Model]]


@dataclass(frozen=True, slots=True)
class Wish:
    """How it shall be answered: `adapter` is a version, "none" for the base model, None for what is in service."""

    retrieval: bool = True
    passages: int = 8
    adapter: str | None = None
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(slots=True)
class _Course:
    """What has come together so far for one answer."""

    notices: list[str] = field(default_factory=list)
    found: Sequence[Passage] = ()
    pieces: list[str] = field(default_factory=list)
    finish: Finish | None = None
    started: float = field(default_factory=time.perf_counter)
    timings_ms: dict[str, float] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        self.timings_ms[name] = round((time.perf_counter() - self.started) * 1000, 1)


async def answer(question: Question, wish: Wish, doors: Doors) -> AsyncGenerator[AnswerEvent]:
    """The events of one answer. Closing the iterator stops the model's work.

    Without an index it answers without passages, without an engine with the passages alone, and says so. Raises
    `GenerationError` when the engine breaks off in the middle, `UnknownAdapter`, and `ValueError` for a question that
    does not fit the model's window.
    """
    course = _Course()
    if wish.retrieval:
        async for notice in _search(question, wish, doors, course):
            yield notice
    try:
        async with doors.borrow(wish.adapter) as model:
            prompt = _render(question, wish, model, course)
            async with aclosing(_write(prompt, wish, model, course)) as texts:
                async for text in texts:
                    yield text
            yield await _finish(course, prompt.passages, model.adapter, model.base_model, doors)
    except EngineError as error:
        yield _noted(course, f"No model answers now ({error}). These are the passages found.")
        yield await _finish(course, tuple(course.found), None, "", doors)


async def _search(question: Question, wish: Wish, doors: Doors, course: _Course) -> AsyncGenerator[Notice]:
    overlays = dict(question.overlays)
    if question.path and question.buffer is not None:
        overlays[question.path] = question.buffer
    try:
        course.found = await doors.search(search_text(question), wish.passages, overlays)
    except IndexUnavailable as error:
        log.warning("answering without passages: %s", error)
        yield _noted(course, f"Answered without your code: {error}")
    else:
        if not course.found:
            yield _noted(course, "Nothing in the index matches the question.")
    course.mark("search")


def search_text(question: Question) -> str:
    """What to search for: the question, and in a conversation also the user's turn before it, which it may refer to."""
    earlier = [turn.content for turn in question.conversation if turn.role == "user"][-1:]
    return "\n".join([question.text, *earlier])


def _render(question: Question, wish: Wish, model: Model, course: _Course) -> Prompt:
    room = model.context_tokens - min(wish.sampling.max_tokens, model.context_tokens // 2)
    prompt = render_prompt(question, course.found, model.count_tokens, room)
    course.mark("prompt")
    return prompt


async def _write(prompt: Prompt, wish: Wish, model: Model, course: _Course) -> AsyncGenerator[Text]:
    """The completion, without markers that refer to nothing; a piece that may be half a marker waits for the next."""
    held = ""
    async with aclosing(model.generate(prompt.messages, wish.sampling)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Finish):
                course.finish = piece
                continue
            if "first_token" not in course.timings_ms:
                course.mark("first_token")
            held = remove_unknown_markers(held + piece, len(prompt.passages))
            open_marker = _OPEN_MARKER.search(held)
            cut = open_marker.start() if open_marker else len(held)
            if ready := held[:cut]:
                course.pieces.append(ready)
                yield Text(ready)
            held = held[cut:]
    if held := held.rstrip():
        course.pieces.append(held)
        yield Text(held)


async def _finish(
    course: _Course, passages: tuple[Passage, ...], adapter: str | None, base_model: str, doors: Doors
) -> Done:
    text = "".join(course.pieces)
    numbers = cited(text, passages)
    if text and passages and not numbers:
        numbers = standing_behind(text, passages)
        course.notices.append("The model marked no source; the citations are the passages that share its words.")
    freshness = await doors.freshness()
    citations = check(numbers, passages, freshness.commit or "", doors.still_there)
    course.notices += [
        f"{c.path} changed while this was written: [{c.index}] is stale." for c in citations if not c.verified
    ]
    if course.finish and course.finish.reason == "length":
        course.notices.append("The answer was cut at its longest length; ask for more with max_tokens.")
    course.mark("total")
    return Done(
        text,
        tuple(citations),
        passages,
        freshness,
        adapter,
        base_model,
        tuple(course.notices),
        course.timings_ms,
        course.finish,
    )


def _noted(course: _Course, text: str) -> Notice:
    course.notices.append(text)
    return Notice(text)
