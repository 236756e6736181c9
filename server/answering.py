"""How the edges begin an answer: counted against the queue, watched by the metrics, written down if asked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from server.asker import Asker
from server.assist import AnswerEvent, Done, Notice, Text, Wish, answer
from server.audit import note_answer
from server.backend import Backend
from server.client import Event
from server.feedback import Feedback
from server.feedback_api import written_down
from server.generation import GenerationError
from server.metrics import Metrics
from server.prompt import Question
from server.reach import reach
from server.shapes import done_json

RETRY_AFTER_S = 5
COMES_BACK_S = 2 * RETRY_AFTER_S  # so long a place is kept for who was told to come back
Ask = tuple[Question, Wish]
T = TypeVar("T")


class TooManyQuestions(Exception):
    """The queue is full; `RETRY_AFTER_S` says when to come back."""


class Queue:
    """How many questions are in work or waiting; the one too many is told to come back.

    While somebody else who was told so may still come, nobody takes more than an even share of the places.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._held: Counter[str] = Counter()
        self._refused_at: dict[str, float] = {}
        self._clock = clock

    async def held(self, events: AsyncGenerator[T], name: str) -> AsyncGenerator[T]:
        """`events`, counted for `name` while they run. Raises `TooManyQuestions` before the first."""
        self._take_place(name)
        try:
            # Closed with us: a reader that leaves must stop the model now, not when the collector comes by.
            async with aclosing(events):
                async for event in events:
                    yield event
        finally:
            self._held[name] -= 1

    def _take_place(self, name: str) -> None:
        waiting = {who for who, at in self._refused_at.items() if self._clock() - at < COMES_BACK_S}
        names = {name, *waiting, *(+self._held)}
        if self._held.total() >= self._most:
            refusal = f"{self._most} questions are waiting already"
        elif waiting - {name} and self._held[name] >= max(1, self._most // len(names)):
            refusal = f"others wait too, and {self._held[name]} of {self._most} places are yours"
        else:
            self._refused_at.pop(name, None)
            self._held[name] += 1
            return
        self._refused_at = {who: self._refused_at[who] for who in waiting} | {name: self._clock()}
        raise TooManyQuestions(refusal)


@dataclass(frozen=True, slots=True)
class Answers:
    """The way from an edge to the answering path."""

    backend: Backend
    queue: Queue
    metrics: Metrics
    feedback: Feedback

    def begin(self, ask: Ask, answer_id: str, door: str, asker: Asker) -> AsyncGenerator[AnswerEvent]:
        """The events of one answer; `door` is the edge's name in the metrics. Closing them stops the model."""
        question, wish = ask
        note_answer(answer_id)
        events = answer(question, wish, reach(self.backend, asker).doors)
        if self.backend.settings.feedback:
            events = written_down(events, self.feedback, answer_id, question, asker.name)
        return self.queue.held(self.metrics.observed(events, door), asker.name)


async def named_events(events: AsyncGenerator[AnswerEvent], answer_id: str) -> AsyncGenerator[Event]:
    """An answer's events as `/ask` names them. A failure in the middle is the last of them, an `error`."""
    try:
        async with aclosing(events):
            async for event in events:
                match event:
                    case Notice(text):
                        yield Event("notice", {"text": text})
                    case Text(delta):
                        yield Event("text", {"delta": delta})
                    case Done() as done:
                        yield Event("done", {"id": answer_id, **done_json(done)})
    except (GenerationError, ValueError) as error:
        yield Event("error", {"message": str(error)})
