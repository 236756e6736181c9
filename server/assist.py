"""MAIN PATH: a question -> search -> prompt -> completion -> checked citations -> the answer.

Events come as they happen: `Notice` (something the user must know), `Text` (a piece of the answer), then one `Done`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from indexer.index import IndexState, IndexUnavailable
from indexer.search import Passage
from server.citations import Citation, check, cited, renumber, standing_behind
from server.doors import Doors
from server.engine import EngineError
from server.extract import Quote, extract, spelled_out, write_extract
from server.generation import Finish, GenerationError, Model, Sampling
from server.grounding import Groundedness, Sources, measure
from server.prompt import Prompt, Question, Turn, render_prompt
from server.redact import Redactor
from server.retrieval import Found, retrieve, search_text

__all__ = ["AnswerEvent", "Done", "Doors", "Explanation", "Notice", "Text", "Wish", "answer", "search_text"]
log = logging.getLogger(__name__)

# What may still become a citation marker when the next piece comes: "[", " [1", ...
_OPEN_MARKER = re.compile(r"\s?\[\d{0,3}$|\s$")
MODELS_WORDS = "\n\nIn the model's words, which may be wrong where the code above is not:\n\n"
CODES_WORDS = "\n\nWhat the code says:\n\n"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user must know about this answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """The next piece of the answer."""

    delta: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an answer came about: all that the model read, what it wrote, and what was measured.

    `scores[i]` is that of `passages[i]`; `support` the share of the question's words in the passages; `groundedness`
    that of what the model wrote, None when no model did.
    """

    prompt: tuple[Turn, ...]
    written: str
    scores: tuple[float, ...]
    support: float
    groundedness: Groundedness | None


@dataclass(frozen=True, slots=True)
class Done:
    """The whole answer and what it stands on. `adapter` None: the bare base model; `base_model` "" : no model at all.

    `passages[i]` is what `[i + 1]` refers to. `groundedness` (0..1) is how much of the answer stands on code.
    `timings_ms` has search, prompt, first_token and total; and first_words, when the quoted code came before the model.
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
    groundedness: float = 0.0
    explanation: Explanation | None = None


AnswerEvent = Notice | Text | Done


@dataclass(frozen=True, slots=True)
class Wish:
    """How it shall be answered: `adapter` is a version, "none" for the base model, None for what is in service."""

    retrieval: bool = True
    passages: int = 8
    adapter: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    explain: bool = False


@dataclass(slots=True)
class _Course:
    """What has come together so far for one answer."""

    question: Question
    wish: Wish
    doors: Doors
    has_index: bool = True
    has_quoted: bool = False
    found: Found = field(default_factory=lambda: Found(()))
    quotes: tuple[Quote, ...] = ()
    notices: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    prompt: tuple[Turn, ...] = ()
    written: str = ""
    is_pointing: bool = False  # a marker stands where a name should
    measured: Groundedness | None = None
    finish: Finish | None = None
    adapter: str | None = None
    base_model: str = ""
    started: float = field(default_factory=time.perf_counter)
    timings_ms: dict[str, float] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        self.timings_ms[name] = round((time.perf_counter() - self.started) * 1000, 1)

    def note(self, text: str) -> Notice:
        self.notices.append(text)
        return Notice(text)

    def say(self, text: str) -> Text:
        self.pieces.append(text)
        return Text(text)

    def quote(self, lead: str = "") -> Text:
        """The lines of code that answer."""
        self.has_quoted = True
        if not self.written:
            self.mark("first_words")
        return self.say(lead + write_extract(self.quotes))


async def answer(question: Question, wish: Wish, doors: Doors) -> AsyncGenerator[AnswerEvent]:
    """The events of one answer. Closing the iterator stops the model's work.

    Without an index it answers without passages, without an engine with the lines of code alone, and says so. Raises
    `GenerationError` when the engine breaks off in the middle, `UnknownAdapter`, and `ValueError` for a question that
    does not fit the model's window.
    """
    course = _Course(question, wish, doors)
    if wish.retrieval:
        async for notice in _search(course):
            yield notice
        if course.found.passages and not course.found.is_enough:
            yield course.say(_nothing_found(course.found))
            yield await _finish(course)
            return
    for sentence in course.found.disagreements:
        yield course.say(f"{sentence}\n\n")
    code_first = doors.code_first and bool(course.quotes)
    if code_first and wish.adapter in (None, "none"):  # a version may be unknown: that is an error, not half an answer
        yield course.quote()
    try:
        async with doors.borrow(wish.adapter or doors.adapter_for(course.found.passages)) as model:
            course.adapter, course.base_model = model.adapter, model.base_model
            if code_first and not course.has_quoted:
                yield course.quote()
            async with aclosing(_checked_words(model, course) if code_first else _model_words(model, course)) as events:
                async for event in events:
                    yield event
    except EngineError as error:
        course.base_model = ""
        async for event in _without_model(course, error):
            yield event
    yield await _finish(course)


async def _search(course: _Course) -> AsyncGenerator[Notice]:
    before, waits = course.doors.words_only(), course.doors.not_read()
    try:
        course.found = await retrieve(course.question, course.wish.passages, course.doors)
    except IndexUnavailable as error:
        log.warning("answering without passages: %s", error)
        course.has_index = False
        yield course.note(f"Answered without your code: {error}")
    else:
        if fault := before or course.doors.words_only():
            yield course.note(f"Searched by words only: {fault}.")
        for missing in course.doors.missing():
            yield course.note(f"Not asked: {missing}")
        if waits:
            yield course.note(f"Not all of the code is read yet ({waits}): ask again in a moment.")
        elif not course.found.passages:
            yield course.note("Nothing in the index matches the question.")
        elif course.found.unknown and course.found.is_enough:
            yield course.note(f"Nowhere in the index: {_named(course.found.unknown)}.")
        course.quotes = extract(search_text(course.question), course.found.passages)
    course.mark("search")


def _nothing_found(found: Found) -> str:
    """The whole answer to a question about what is not there."""
    if found.unknown:
        why = f"{_named(found.unknown)}: this stands nowhere in the indexed code."
    else:
        why = "Nothing in the indexed code answers this: its best passages hold too few of the question's words."
    nearest = ", ".join(f"`{p.path}` [{n}]" for n, p in enumerate(found.passages[:3], 1))
    return f"{why} The nearest is in {nearest}. Without retrieval the model answers from memory."


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:8])


async def _model_words(model: Model, course: _Course) -> AsyncGenerator[AnswerEvent]:
    """The completion as it is written; the lines of code after it when it does not stand on them, cites
    nothing, only points at them, or is of a small model."""
    async with aclosing(_write(model, course)) as texts:
        async for text in texts:
            yield course.say(text)
    if not course.found.passages:
        return
    measured = await _measure_words(course)
    is_grounded = measured.score >= course.doors.min_groundedness
    if not is_grounded and not course.is_pointing:
        yield course.note(f"Little of this stands on your code (groundedness {measured.score:.2f}).")
    stands_alone = course.doors.words_alone and is_grounded and measured.cited_sentences and not course.is_pointing
    if course.quotes and not stands_alone:
        yield course.quote(CODES_WORDS.lstrip("\n" if not course.written else ""))


async def _checked_words(model: Model, course: _Course) -> AsyncGenerator[AnswerEvent]:
    """The completion behind the lines of code, when it stands on code; else a notice that it was left out."""
    try:
        async with aclosing(_write(model, course)) as texts:
            written = "".join([text async for text in texts])
    except GenerationError as error:
        yield course.note(f"The model broke off ({error}); this is what the code says.")
        return
    measured = await _measure_words(course)
    if measured.score >= course.doors.min_groundedness or course.is_pointing:
        yield course.say(MODELS_WORDS + written)
    else:
        why = f"too little of them stands on your code (groundedness {measured.score:.2f})"
        yield course.note(f"The model's words are left out: {why}.")


async def _without_model(course: _Course, error: EngineError) -> AsyncGenerator[AnswerEvent]:
    what = "lines of code that answer best" if course.quotes else "passages found"
    shown = f" These are the {what}." if course.found.passages else ""
    yield course.note(f"No model answers now ({error}).{shown}")
    if course.quotes and not course.has_quoted:
        yield course.quote()


async def _write(model: Model, course: _Course) -> AsyncGenerator[str]:
    """The completion's pieces, without secrets, its markers those of `found.passages` or gone, and spelled out where
    they stand for a name; a piece that may be half of a marker waits for the next."""
    prompt = _render(model, course)
    numbers = _numbers(prompt.passages, course.found.passages)
    redactor, held = Redactor(), ""
    async with aclosing(model.generate(prompt.messages, course.wish.sampling)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Finish):
                course.finish = piece
                continue
            if "first_token" not in course.timings_ms:
                course.mark("first_token")
            held = renumber(prompt.without_fences(held + redactor.feed(piece)), numbers)
            open_marker = _OPEN_MARKER.search(held)
            cut = open_marker.start() if open_marker else len(held)
            if ready := held[:cut]:
                course.written += ready
                yield ready
            held = held[cut:]
    if held := renumber(prompt.without_fences(held + redactor.close()), numbers).rstrip():
        course.written += held
        yield held
    if missing := spelled_out(course.written, course.found.passages):
        course.is_pointing = True
        yield missing  # not what the model wrote: it would be found, whatever the model meant


def _render(model: Model, course: _Course) -> Prompt:
    room = model.context_tokens - min(course.wish.sampling.max_tokens, model.context_tokens // 2)
    prompt = render_prompt(course.question, course.found.passages, model.count_tokens, room)
    course.prompt = prompt.messages
    course.mark("prompt")
    return prompt


def _numbers(read: Sequence[Passage], found: Sequence[Passage]) -> dict[int, int]:
    """The prompt's number of a passage -> its number among all that were found: the prompt may leave some out."""
    places = {(p.path, p.start_line): n for n, p in enumerate(found, 1)}
    return {n: places[p.path, p.start_line] for n, p in enumerate(read, 1)}


async def _measure_words(course: _Course) -> Groundedness:
    """How much of what the model wrote stands on code; kept for the explanation."""
    course.measured = measured = await _measure(course, course.written)
    return measured


async def _measure_whole(course: _Course, text: str) -> Groundedness:
    if course.measured is not None and text == course.written:
        return course.measured
    return await _measure(course, text)


async def _measure(course: _Course, text: str) -> Groundedness:
    passages, doors = course.found.passages, course.doors
    knows = doors.knows if course.has_index else lambda name: True

    def look() -> Groundedness:
        verified = [n for n in cited(text, passages) if doors.still_there(passages[n - 1])]
        return measure(text, course.question.text, Sources(passages, course.quotes, verified, knows))

    return await asyncio.to_thread(look)


async def _finish(course: _Course) -> Done:
    text, passages = "".join(course.pieces), course.found.passages
    numbers = cited(text, passages)
    if text and passages and not numbers:
        numbers = standing_behind(text, passages)
        course.note("The model marked no source; the citations are the passages that share its words.")
    freshness, whole = await asyncio.gather(course.doors.freshness(), _measure_whole(course, text))
    cited_in = {passages[n - 1].repository for n in numbers}
    commits = {name: await course.doors.commit_of(name) if name else freshness.commit or "" for name in cited_in}
    citations = check(numbers, passages, commits, course.doors.still_there)
    _note_doubts(course, citations, whole)
    course.mark("total")
    return Done(
        text,
        tuple(citations),
        passages,
        freshness,
        course.adapter,
        course.base_model,
        tuple(course.notices),
        course.timings_ms,
        course.finish,
        round(whole.score, 3),
        _explain(course) if course.wish.explain else None,
    )


def _note_doubts(course: _Course, citations: Sequence[Citation], measured: Groundedness) -> None:
    """What the reader must doubt: names that do not exist, lines that changed meanwhile, an answer that was cut."""
    if measured.unknown:
        course.note(f"Named in the answer, and nowhere in the index: {_named(measured.unknown)}.")
    for citation in citations:
        if not citation.verified:
            course.note(f"{citation.path} changed while this was written: [{citation.index}] is stale.")
    if course.finish and course.finish.reason == "length":
        course.note("The answer was cut at its longest length; ask for more with max_tokens.")


def _explain(course: _Course) -> Explanation:
    scores = tuple(passage.score for passage in course.found.passages)
    return Explanation(course.prompt, course.written, scores, course.found.support, course.measured)
