"""The events of an answer as a response: one by one as server-sent events, or the last of them alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from fastapi import Request
from fastapi.responses import StreamingResponse

from server.assist import AnswerEvent, Done
from server.generation import Finish
from server.leaving import unless_left

Events = AsyncGenerator[AnswerEvent]


async def streaming(
    request: Request, events: Events, shape: Callable[[Events], AsyncGenerator[bytes]]
) -> StreamingResponse:
    """A stream whose first event has come: what fails before it is an error status, not a broken stream."""
    first = await unless_left(request, _first(events))

    async def all_events() -> Events:
        # Closed from outside when the reader leaves, which must stop the engine's work at once.
        async with aclosing(events):
            yield first
            async for event in events:
                yield event

    async def lines() -> AsyncGenerator[bytes]:
        async with aclosing(all_events()) as every, aclosing(shape(every)) as shaped:
            async for line in shaped:
                yield line

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _first(events: Events) -> AnswerEvent:
    return await anext(events)


async def all_pieces(pieces: AsyncGenerator[str | Finish]) -> list[str | Finish]:
    """Everything that the engine writes."""
    async with aclosing(pieces):
        return [piece async for piece in pieces]


async def last_event(events: Events) -> Done:
    """The whole answer; its generator is closed, also when whoever waits for it leaves."""
    done: Done | None = None
    async with aclosing(events):
        async for event in events:
            done = event if isinstance(event, Done) else done
    assert done is not None
    return done
