"""The pieces of an answer on their way to the editor, joined so that a fast model does not flood a slow client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from server.lsp_types import Delta, Json, to_wire

# 20 a second is as fast as a reader sees. Seconds.
INTERVAL_S = 0.05
# Above this the client is not reading: wait, and let the pieces grow. Bytes.
_MAX_BACKLOG = 1 << 20

Notify = Callable[[str, Json], None]


class DeltaStream:
    """`$/progress` on one token. The first piece goes at once, the next ones at most every `INTERVAL_S`."""

    def __init__(self, token: str | int | None, notify: Notify, backlog: Callable[[], int]) -> None:
        self._token, self._notify, self._backlog = token, notify, backlog
        self._waiting = ""
        self._sent_at = -INTERVAL_S
        self._timer: asyncio.TimerHandle | None = None

    def notice(self, text: str) -> None:
        self.flush()
        self._send("notice", text)

    def text(self, delta: str) -> None:
        if self._token is None:
            return
        self._waiting += delta
        loop = asyncio.get_running_loop()
        wait = self._sent_at + INTERVAL_S - loop.time()
        if wait <= 0 and self._backlog() < _MAX_BACKLOG:
            self.flush()
        elif self._timer is None:
            self._timer = loop.call_later(max(wait, INTERVAL_S), self._on_timer)

    def flush(self) -> None:
        """Send what waits."""
        self.stop()
        if self._waiting:
            text, self._waiting = self._waiting, ""
            self._sent_at = asyncio.get_running_loop().time()
            self._send("delta", text)

    def stop(self) -> None:
        """Nothing more is sent by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._backlog() < _MAX_BACKLOG:
            self.flush()
        else:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._on_timer)

    def _send(self, kind: Literal["delta", "notice"], text: str) -> None:
        if self._token is not None:
            self._notify("$/progress", {"token": self._token, "value": to_wire(Delta(kind, text))})
