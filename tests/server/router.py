"""A small real HTTP router in front of several backends: in turn, and at the next one when one breaks off.

What a proxy in front of a team's backends does (docs/operate.md), as an ASGI application. Everything that it passes on
only reads, so it may be asked twice. Who cannot be reached by any of them gets a 502.
"""

from __future__ import annotations

import json
from itertools import count

import httpx

PASSED_ON = (b"authorization", b"content-type", b"accept")


class Router:
    """`targets`: the addresses of the backends. `broken`: how many requests a backend broke off or did not take."""

    def __init__(self, targets):
        self._targets = targets
        self._turn = count()
        self._http = httpx.AsyncClient(timeout=30, trust_env=False, limits=httpx.Limits(max_connections=200))
        self.broken = 0

    async def close(self):
        await self._http.aclose()

    async def __call__(self, scope, receive, send):
        assert scope["type"] == "http"
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        first = next(self._turn)
        for number in range(len(self._targets)):
            target = self._targets[(first + number) % len(self._targets)]
            try:
                answer = await self._ask(target, scope, body)
            except httpx.TransportError:
                self.broken += 1
                continue
            await reply(send, answer.status_code, answer.content, target)
            return
        await reply(send, 502, json.dumps({"error": {"message": "no backend answers"}}).encode(), "")

    async def _ask(self, target, scope, body):
        headers = [(name, value) for name, value in scope["headers"] if name in PASSED_ON]
        url = f"{target}{scope['path']}?{scope['query_string'].decode()}"
        return await self._http.request(scope["method"], url, headers=headers, content=body)


async def reply(send, status, body, target):
    headers = [(b"content-type", b"application/json"), (b"x-backend", target.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
