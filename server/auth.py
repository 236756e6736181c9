"""Who may ask, and what: tokens, loopback names only, no foreign pages, no endless bodies. Pure ASGI."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexer.workspace import Workspace, write_atomically
from server.access import Who, find_route
from server.client import TOKEN_FILE
from server.roster import HOW_TO_ASK, Caller, Roster, Unknown

log = logging.getLogger(__name__)
# How often it is asked whether a user who is being answered still may be.
LOOK_EVERY_S = 0.5
Refusal = tuple[int, str, str, int]  # status, code, message, when to come back (s; 0: nothing is said)
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


def read_or_make_token(workspace: Workspace) -> str:
    """The workspace's token, made on first use: 256 random bits in a file that only its owner can read."""
    file = workspace.make_state_folder() / TOKEN_FILE
    try:
        if (mode := file.stat().st_mode & 0o777) & 0o077:
            log.warning(
                "%s could be read by others (mode %o): closed now; if somebody has, delete it and restart", file, mode
            )
        file.chmod(0o600)
        if token := file.read_text().strip():
            return token
    except FileNotFoundError:
        pass
    token = secrets.token_urlsafe(32)
    write_atomically(file, token + "\n", mode=0o600)
    return token


@dataclass(frozen=True, slots=True)
class Rules:
    """What the gate lets through.

    `behind_tls`: names under which a proxy that ends TLS reaches us; it must say that it did (`X-Forwarded-Proto:
    https`). `per_minute`: requests of the owner, and of each user who has no bound of their own; 0 for no bound.
    """

    body_bytes: int
    behind_tls: frozenset[str] = frozenset()
    per_minute: int = 0


class Gate:
    """ASGI middleware in front of every route. It answers in OpenAI's error shape, which all our clients read.

    Who asks stands in `scope["state"]["asker"]` behind it. A request that brings one was made in this process: no
    socket can write there.
    """

    def __init__(self, app: ASGIApp, rules: Rules, roster: Roster, look_every_s: float = LOOK_EVERY_S) -> None:
        self._app = app
        self._rules = rules
        self._roster = roster
        self._buckets: dict[str, Bucket] = {}
        self._look_every_s = look_every_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"no {scope['type']} here")
        try:
            caller = self._let_in(scope)
        except _Refused as error:
            await _refuse(send, *error.refusal)
            return
        bounded = _Bounded(receive, send, self._rules.body_bytes)
        if caller is None or caller.member is None:
            await self._app(scope, bounded.receive, bounded.send)
        else:
            await self._while_still(caller, scope, bounded)

    def _let_in(self, scope: Scope) -> Caller | None:
        """Who asks, noted in the scope; None where anyone may. Raises `_Refused`."""
        state = scope.setdefault("state", {})
        route = find_route(scope["method"], scope["path"])
        caller, who = None, route.who if route else None
        if "asker" in state:
            caller = Caller(state["asker"])
            _check_right(caller, who)
            return caller
        headers = {name.lower(): value for name, value in scope["headers"]}
        self._check_origin(headers)
        if who is not Who.ANYONE:
            caller = self._know(scope)
            state["asker"] = caller.asker
            self._check_rate(caller)
            _check_right(caller, who)
        if _length(headers) > self._rules.body_bytes:
            raise _Refused(*_too_long(self._rules.body_bytes))
        return caller

    def _know(self, scope: Scope) -> Caller:
        try:
            # The socket's other end, which nobody can forge. X-Forwarded-For is not asked, here nor by uvicorn.
            return self._roster.who((scope.get("client") or ("",))[0], scope["headers"])
        except Unknown as error:
            code = "invalid_api_key" if error.status == 401 else "not_in_the_team"
            raise _Refused(error.status, code, str(error)) from error

    def _check_rate(self, caller: Caller) -> None:
        name, own = caller.asker.name, caller.member.per_minute if caller.member else 0
        most = own or self._rules.per_minute
        bucket = self._buckets.get(name)
        if bucket is None or bucket.per_minute != most:
            bucket = self._buckets[name] = Bucket(most)
        if not bucket.take():
            text = f"more than {most} requests a minute"
            raise _Refused(429, "rate_limit_exceeded", text, math.ceil(bucket.wait_s()))

    async def _while_still(self, caller: Caller, scope: Scope, bounded: _Bounded) -> None:
        """The request, until it is done or its user may not read what they could: then it ends where it is."""
        work = asyncio.ensure_future(self._app(scope, bounded.receive, bounded.send))
        try:
            while not (await asyncio.wait({work}, timeout=self._look_every_s))[0]:
                if not self._roster.is_still(caller):
                    break
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        if not work.cancelled():
            work.result()
        elif not bounded.has_begun:
            await _refuse(bounded.send, 401, "invalid_api_key", HOW_TO_ASK)

    def _check_origin(self, headers: dict[bytes, bytes]) -> None:
        # A page in the user's browser can reach loopback through a name that its owner points here (DNS rebinding):
        # the Host that it sends gives it away. An Origin that is not ours is such a page too.
        host = headers.get(b"host", b"")
        scheme = b"http"
        if (name := _hostname(host)) not in LOOPBACK_NAMES:
            if name not in self._rules.behind_tls:
                raise _Refused(421, "bad_host", "this server answers to 127.0.0.1 and localhost only")
            if headers.get(b"x-forwarded-proto") != b"https":
                raise _Refused(
                    403, "no_tls", "the token must not travel in the clear: come through the proxy, with https"
                )
            scheme = b"https"
        if (origin := headers.get(b"origin")) is not None and origin != scheme + b"://" + host:
            raise _Refused(403, "bad_origin", "this server answers no page but its own")


class _Refused(Exception):
    """The request goes no further; `refusal` is what is said."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.refusal: Refusal = (status, code, message, retry_after_s)


def _check_right(caller: Caller, who: Who | None) -> None:
    """What a user may not do is refused; what is not there for a user looks so. The router answers the owner itself."""
    if caller.is_owner or who is Who.TEAM:
        return
    if who is None:
        raise _Refused(404, "not_found", "Not Found")
    raise _Refused(403, "owner_only", "only the owner of this workspace may do that")


class Bucket:
    """How many requests are still good: full at the start, filled again at an even rate (a token bucket)."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._most = self._left = float(per_minute)
        self._clock = clock
        self._filled_at = clock()

    def take(self) -> bool:
        """Whether one more is good; without a bound always."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._filled_at) * self._most / 60)
        self._filled_at = now
        if self._most and self._left < 1:
            return False
        self._left -= 1
        return True

    def wait_s(self) -> float:
        """How long until one more is good, after `take` said no; seconds."""
        return (1 - self._left) * 60 / self._most


class _Bounded:
    """Stops a body without a declared length from growing past the bound, and says so in place of what the app says."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send = receive, send
        self._most = self._left = most
        self._has_refused = False
        self.has_begun = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        return message if self._left >= 0 else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._left >= 0:
            self.has_begun = True
            await self._send(message)
        elif not self._has_refused:
            self._has_refused = True
            await _refuse(self._send, *_too_long(self._most))


def _too_long(most: int) -> Refusal:
    return 413, "too_large", f"the body is longer than {most} bytes", 0


def _hostname(host: bytes) -> str:
    try:
        return urlsplit(f"//{host.decode('ascii')}").hostname or ""
    except ValueError:
        return ""


def _length(headers: dict[bytes, bytes]) -> int:
    try:
        return int(headers.get(b"content-length", b"0"))
    except ValueError:
        return 0


async def _refuse(send: Send, status: int, code: str, message: str, retry_after_s: int = 0) -> None:
    error = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    headers: Iterable[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
    if retry_after_s:
        headers = [*headers, (b"retry-after", str(retry_after_s).encode())]
    if status == 401:
        headers = [*headers, (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": json.dumps(error).encode()})
