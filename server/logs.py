"""What the backend writes to its log: one line an event, with the request's id. Never a question, code or a token."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

request_id: ContextVar[str] = ContextVar("request_id", default="-")
HEADER = b"x-request-id"
# What a client may call its request: nothing that could break a line of the log or a header.
_FIT = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# Asked every few seconds by Prometheus, editors and open pages (an editor's status alone would be 170,000 lines a day).
ASKED_OFTEN = frozenset(
    {"/healthz", "/readyz", "/metrics", "/freshness", "/adapters", "/nights/last", "/ui/render", "/ui/page/{name}"}
)
_NOISY = ("httpx", "chromadb", "sentence_transformers", "mcp")


def configure_logging(as_json: bool, level: int = logging.INFO) -> None:
    """Log to standard error from now on: text for people, or one JSON object a line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if as_json else TextLines())
    logging.basicConfig(level=level, handlers=[handler])
    hush()


def hush() -> None:
    """Libraries that log what is asked (httpx: whole URLs) speak only when something is wrong."""
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """`time level logger [request id]: message`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s [%(request_id)s]: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.request_id = request_id.get()
        return super().format(record)


class JsonLines(logging.Formatter):
    """One JSON object a line; what a record brings in `extra={"facts": {...}}` stands beside its message."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": request_id.get(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class RequestLog:
    """ASGI middleware, outermost: each request gets an id (its own, if it is fit), its answer too, and one line."""

    def __init__(self, app: ASGIApp, note: Callable[[str, int], None]) -> None:
        self._app = app
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(HEADER, b"")
        name = given if _FIT.fullmatch(given) else secrets.token_hex(8).encode()
        request_id.set(name.decode())
        status, started = 500, time.perf_counter()

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, name)]}
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        finally:
            self._tell(scope, status, time.perf_counter() - started)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's pattern, not the path: what somebody writes into a path is theirs.
        route = getattr(scope.get("route"), "path", "(none)")
        self._note(route, status)
        facts = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 4)}
        # 503 is what /readyz says while something is missing: an answer, not a failure.
        quiet = route in ASKED_OFTEN and (status < 500 or route == "/readyz")
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "%s %s %d in %.3f s", scope["method"], route, status, seconds, extra={"facts": facts},
        )  # fmt: skip
