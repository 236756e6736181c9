"""Who may ask: a bearer token on every route, loopback names only, no foreign pages, no endless bodies. Pure ASGI."""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexer.workspace import Workspace, write_atomically
from server.client import TOKEN_FILE

# Everything not named here (and in server.ui, for its files) asks for the token.
PUBLIC_PATHS = frozenset({"/healthz"})
Refusal = tuple[int, str, str]  # status, code, message
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


def read_or_make_token(workspace: Workspace) -> str:
    """The workspace's token, made on first use: 256 random bits in a file that only its owner can read."""
    file = workspace.make_state_folder() / TOKEN_FILE
    try:
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

    `public`: paths without a token. `behind_tls`: names under which a proxy that ends TLS reaches us; it must say
    that it did (`X-Forwarded-Proto: https`). `per_minute`: requests with the token, 0 for no bound.
    """

    token: str
    body_bytes: int
    public: frozenset[str] = PUBLIC_PATHS
    behind_tls: frozenset[str] = frozenset()
    per_minute: int = 0


class Gate:
    """ASGI middleware in front of every route. It answers in OpenAI's error shape, which all our clients read."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules
        self._token = rules.token.encode()
        self._bucket = Bucket(rules.per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"no {scope['type']} here")
        headers = {name.lower(): value for name, value in scope["headers"]}
        if (refusal := self._refusal(scope["path"], headers)) is not None:
            await _refuse(send, *refusal)
            return
        bounded = _Bounded(receive, send, self._rules.body_bytes)
        await self._app(scope, bounded.receive, bounded.send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> Refusal | None:
        if (refusal := self._of_origin(headers)) is not None:
            return refusal
        if path not in self._rules.public:
            if not self._is_authorised(headers.get(b"authorization", b"")):
                return 401, "invalid_api_key", "send `Authorization: Bearer TOKEN` with the token in .nightschool/token"
            if not self._bucket.take():
                return 429, "rate_limit_exceeded", f"more than {self._rules.per_minute} requests a minute"
        if _length(headers) > self._rules.body_bytes:
            return _too_long(self._rules.body_bytes)
        return None

    def _of_origin(self, headers: dict[bytes, bytes]) -> Refusal | None:
        # A page in the user's browser can reach loopback through a name that its owner points here (DNS rebinding):
        # the Host that it sends gives it away. An Origin that is not ours is such a page too.
        host = headers.get(b"host", b"")
        scheme = b"http"
        if (name := _hostname(host)) not in LOOPBACK_NAMES:
            if name not in self._rules.behind_tls:
                return 421, "bad_host", "this server answers to 127.0.0.1 and localhost only"
            if headers.get(b"x-forwarded-proto") != b"https":
                return 403, "no_tls", "the token must not travel in the clear: come through the proxy, with https"
            scheme = b"https"
        if (origin := headers.get(b"origin")) is not None and origin != scheme + b"://" + host:
            return 403, "bad_origin", "this server answers no page but its own"
        return None

    def _is_authorised(self, header: bytes) -> bool:
        # Bytes, because compare_digest raises for text that is not ASCII.
        scheme, _, token = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


class Bucket:
    """How many requests are still good: full at the start, filled again at an even rate (a token bucket)."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
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


class _Bounded:
    """Stops a body without a declared length from growing past the bound, and says so in place of what the app says."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send = receive, send
        self._most = self._left = most
        self._has_refused = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        return message if self._left >= 0 else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._left >= 0:
            await self._send(message)
        elif not self._has_refused:
            self._has_refused = True
            await _refuse(self._send, *_too_long(self._most))


def _too_long(most: int) -> Refusal:
    return 413, "too_large", f"the body is longer than {most} bytes"


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


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    error = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    headers: Iterable[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
    if status == 429:
        headers = [*headers, (b"retry-after", b"5")]
    if status == 401:
        headers = [*headers, (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": json.dumps(error).encode()})
