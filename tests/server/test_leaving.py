"""A client that leaves stops the engine within a second: before the first piece, in a stream, and at a whole answer."""

import asyncio

import httpx
import pytest


@pytest.mark.parametrize("writes_at_once", [True, False])
@pytest.mark.parametrize(
    ("path", "body", "accept"),
    [
        ("/ask", {"question": "q?"}, "application/json"),
        ("/ask", {"question": "q?"}, "text/event-stream"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "q?"}]}, "*/*"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "q?"}], "stream": True}, "*/*"),
    ],
)
async def test_a_client_that_leaves_stops_the_model(path, body, accept, writes_at_once, live, slow_model):
    model = slow_model(writes_at_once)
    async with live(model) as http:
        request = asyncio.create_task(http.post(path, json=body, headers={"Accept": accept}))
        await asyncio.wait_for(model.begun.wait(), 5)
        request.cancel()
        await asyncio.wait_for(model.stopped.wait(), 1)
        with pytest.raises((asyncio.CancelledError, httpx.HTTPError)):
            await request
