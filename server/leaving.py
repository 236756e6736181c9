"""A client that leaves stops the work on its request, also before the first byte of an answer was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from starlette.requests import Request

T = TypeVar("T")


class ClientLeft(Exception):
    """Nobody waits for this answer any more."""


async def unless_left(request: Request, work: Coroutine[None, None, T]) -> T:
    """What `work` gives. When the client leaves first, `work` is cancelled and `ClientLeft` raised.

    Starlette itself looks for a disconnect only once a stream has begun, and at a whole answer never: the engine would
    go on writing for nobody. The request's body must have been read.
    """
    task, left = asyncio.create_task(work), asyncio.create_task(_has_left(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeft
    finally:
        task.cancel()
        left.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _has_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
