"""How the edges begin an answer: counted against the queue, watched by the metrics, written down if asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

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
Ask = tuple[Question, Wish]


class TooManyQuestions(Exception):
    """The queue is full; `RETRY_AFTER_S` says when to come back."""


class Queue:
    """How many questions are in work or waiting; the one too many is told to come back."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    async def held(self, events: AsyncGenerator[AnswerEvent]) -> AsyncGenerator[AnswerEvent]:
        """`events`, counted while they run. Raises `TooManyQuestions` before the first when there are too many."""
        if self._held >= self._most:
            raise TooManyQuestions(f"{self._most} questions are waiting already")
        self._held += 1
        try:
            # Closed with us: a reader that leaves must stop the model now, not when the collector comes by.
            async with aclosing(events):
                async for event in events:
                    yield event
        finally:
            self._held -= 1


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
        return self.queue.held(self.metrics.observed(events, door))


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
