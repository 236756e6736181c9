"""Ask a running backend and show the answer: what `ask` and `demo` do."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

from server.client import Backend, BackendUnavailable, Json
from server.console import print_answer, progress


async def wait_until_ready(backend: Backend, adapter: str | None = None) -> None:
    """Return when the backend can answer (with `adapter`, if given), or when its engine has failed: it says so then."""
    with progress("getting ready") as advance:
        while True:
            state = await backend.get("/readyz")
            if state["engine"]["name"] == "failed":
                raise BackendUnavailable(state["engine"]["reason"])
            if state["ready"] and (adapter is None or state["adapter"] == adapter):
                return
            advance("; ".join(state["reasons"]) or state["engine"]["reason"], 0, None)
            await asyncio.sleep(0.5)


async def ask_and_show(backend: Backend, body: Json, as_json: bool) -> None:
    """Show the answer as it is written and what it stands on, or the whole of it as JSON."""
    written = False
    async with aclosing(backend.ask(body)) as events:
        async for event in events:
            if event.name == "text" and not as_json:
                written = True
                print(event.data["delta"], end="", flush=True)
            elif event.name == "error":
                raise BackendUnavailable(event.data["message"])
            elif event.name == "done" and as_json:
                print(json.dumps(event.data))
            elif event.name == "done":
                print()
                print_answer(event.data, written)
