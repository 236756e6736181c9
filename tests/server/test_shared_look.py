"""A look that several want is taken once for them, and never one that began before they asked."""

import asyncio
import threading

from server.backend import shared


async def test_who_asks_while_one_runs_gets_the_next_together():
    begun, may_end, looks = threading.Event(), threading.Event(), []

    def look():
        looks.append(len(looks))
        begun.set()
        assert may_end.wait(10)
        return looks[-1]

    asked = shared(look)
    first = asyncio.create_task(asked())
    await asyncio.to_thread(begun.wait, 10)
    later = [asyncio.create_task(asked()) for _ in range(3)]
    await asyncio.sleep(0)
    later[0].cancel()  # who leaves does not end it for the others
    may_end.set()
    assert await first == 0
    assert [await task for task in later[1:]] == [1, 1]
    assert looks == [0, 1]
