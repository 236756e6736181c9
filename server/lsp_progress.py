"""Work-done progress: of one request (its own token), and of what the backend does by itself (a token that we make)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from lsprotocol import types

from server.lsp_protocol import MendedProtocol
from server.lsp_types import Json, StatusResult, Training


@asynccontextmanager
async def request_progress(protocol: MendedProtocol, token: str | int | None, title: str) -> AsyncIterator[None]:
    """Begin and end on the token that came with a request; nothing without one."""
    if token is None:
        yield
        return
    if (task := asyncio.current_task()) is not None:
        protocol.working[token] = task
    _send(protocol, token, {"kind": "begin", "title": title, "cancellable": True})
    try:
        yield
    finally:
        protocol.working.pop(token, None)
        _send(protocol, token, {"kind": "end"})


class BackendProgress:
    """Shows one workspace's engine start, indexing or training as long as it lasts."""

    def __init__(self, protocol: MendedProtocol, is_supported: Callable[[], bool]) -> None:
        self._protocol, self._is_supported = protocol, is_supported
        self._token: str | None = None
        self._title = self._shown = ""

    async def show(self, status: StatusResult) -> None:
        title, message = work_of(status)
        if title != self._title:
            self._end()
            self._title = title
            if title and self._is_supported():
                await self._begin(title, message)
        if self._token is not None and message != self._shown:
            _send(self._protocol, self._token, {"kind": "report", "message": message})
            self._shown = message

    async def _begin(self, title: str, message: str) -> None:
        token = str(uuid.uuid4())
        params = types.WorkDoneProgressCreateParams(token)
        await self._protocol.send_request_async(types.WINDOW_WORK_DONE_PROGRESS_CREATE, params)
        if self._title == title:
            self._token, self._shown = token, message
            _send(self._protocol, token, {"kind": "begin", "title": title, "message": message})

    def _end(self) -> None:
        if self._token is not None:
            _send(self._protocol, self._token, {"kind": "end"})
            self._token = None


def work_of(status: StatusResult) -> tuple[str, str]:
    """What the backend is busy with, as title and message; ("", "") when with nothing that one waits for."""
    if status.freshness is not None and status.freshness.waiting_files:
        return "nightschool: indexing", f"{status.freshness.waiting_files} files wait"
    if status.engine in ("starting", "swapping"):
        what = "a new adapter comes in" if status.engine == "swapping" else "the model is loading"
        return "nightschool: engine", what
    if status.training is not None:
        return "nightschool: training", training_line(status.training)
    return "", ""


def training_line(training: Training) -> str:
    """How far a night is, in words."""
    if not training.steps:
        return "a night is running"
    return f"step {training.step} of {training.steps}, about {max(1, round(training.left_s / 60))} min of training left"


def _send(protocol: MendedProtocol, token: str | int, value: Json) -> None:
    protocol.notify_plain("$/progress", {"token": token, "value": value})
