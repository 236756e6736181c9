"""Who read from what: one JSON line a request in `.nightschool/logs/audit.jsonl`, readable by its owner only.

Time, user, route, status, the repositories that something was read from, the answer's and the request's id. Never a
question, code, a path or a token. Written while there is a team.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access import Who, find_route
from server.logs import ASKED_OFTEN, request_id

log = logging.getLogger(__name__)

AUDIT_FILE = "audit.jsonl"
# The newest file and four before it: about 300,000 requests at 170 bytes each.
FILE_BYTES = 10 << 20
FILES_BEFORE = 4


@dataclass(slots=True)
class _Record:
    """What a request has read so far."""

    repositories: set[str] = field(default_factory=set)
    answer_id: str | None = None


# A new one for each request; what a request starts (tasks, threads, a stream's generator) sees and fills the same.
_record: ContextVar[_Record | None] = ContextVar("audit_record", default=None)


def note_read(repositories: Iterable[str]) -> None:
    """The request that is being answered has read from these."""
    if (record := _record.get()) is not None:
        record.repositories.update(repositories)


def note_answer(answer_id: str) -> None:
    """The request that is being answered gets the answer of this id."""
    if (record := _record.get()) is not None:
        record.answer_id = answer_id


class AuditLog:
    """The file, rotated by size. Safe to use from several threads."""

    def __init__(self, file: Path, most_bytes: int = FILE_BYTES) -> None:
        self._file = file
        self._most_bytes = most_bytes
        self._lock = threading.Lock()

    def write(self, line: Mapping[str, object]) -> None:
        """Append one line. What cannot be written is told in the log: a full disk must not lock everybody out."""
        try:
            with self._lock:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                # Opened each time, so that whoever moves the file away gets a new one. Never readable for others.
                descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                    os.fchmod(descriptor, 0o600)
                    file.write(json.dumps(line) + "\n")
                    is_full = file.tell() >= self._most_bytes
                if is_full:
                    self._rotate()
        except OSError as error:
            log.error("a line of the audit log was not written: %s", error)

    def _rotate(self) -> None:
        for number in range(FILES_BEFORE, 0, -1):
            older = self._file if number == 1 else self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self._file.with_name(f"{self._file.name}.{number}")


class Audit:
    """ASGI middleware outside the gate: what was refused is written down too."""

    def __init__(self, app: ASGIApp, file: AuditLog, is_on: Callable[[], bool]) -> None:
        self._app = app
        self._file = file
        self._is_on = is_on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._is_on():
            await self._app(scope, receive, send)
            return
        record, status = _Record(), 500
        _record.set(record)

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._tell(scope, status, record)

    def _tell(self, scope: Scope, status: int, record: _Record) -> None:
        # The route's pattern, not the path: what somebody writes into a path is theirs.
        route = find_route(scope["method"], scope["path"])
        pattern, asker = route.pattern if route else "(none)", scope.get("state", {}).get("asker")
        is_for_nobody = route is not None and route.who is Who.ANYONE and asker is None
        # What is asked every few seconds reads no code; refused, it is worth a line.
        if is_for_nobody or (pattern in ASKED_OFTEN and (status < 400 or status == 503)):
            return
        self._file.write(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "user": asker.name if asker else None,
                "method": scope["method"],
                "route": pattern,
                "status": status,
                "repositories": sorted(record.repositories),
                "answer": record.answer_id,
                "request": request_id.get(),
            }
        )
