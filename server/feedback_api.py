"""`POST /feedback`, and writing answers down on their way to the reader, where the user has turned that on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, model_validator

from server.assist import AnswerEvent, Done
from server.feedback import Exchange, Feedback, FeedbackError
from server.prompt import Question

log = logging.getLogger(__name__)


class FeedbackBody(BaseModel):
    """What became of an answer: `id` is the answer's own; `kept` and `edited` as far as the user said."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(min_length=1, max_length=64)
    kept: bool | None = None
    edited: str | None = Field(None, max_length=200_000, description="what the user made of the answer")

    @model_validator(mode="after")
    def says_something(self) -> FeedbackBody:
        if self.kept is None and self.edited is None:
            raise ValueError("say what became of the answer: kept, or edited")
        return self


async def written_down(
    events: AsyncGenerator[AnswerEvent], feedback: Feedback, answer_id: str, question: Question, asked_by: str
) -> AsyncGenerator[AnswerEvent]:
    """`events` as they are; the answer is written down before its last event, so that its id holds from then on."""
    asked_at = datetime.now(UTC).isoformat(timespec="seconds")
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Done) and event.answer:
                what = (answer_id, asked_at, question.text, event.answer, question.path)
                exchange = Exchange(*what, event.freshness.commit or "", event.adapter, event.base_model)
                try:
                    await asyncio.to_thread(feedback.note_answer, exchange, asked_by)
                except FeedbackError as error:  # an answer is worth more than its record
                    log.error("an answer was not written down: %s", error)
            yield event
