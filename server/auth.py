"""Who may ask: a bearer token on every route, loopback names only, no foreign pages, no endless bodies. Pure ASGI."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexer.workspace import Workspace, write_atomically
from server.client import TOKEN_FILE

# Everything not named here (and in server.ui, for its files) asks for the token.
PUBLIC_PATHS = frozenset({"/healthz"})
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


class Gate:
    """ASGI middleware in front of every route. It answers in OpenAI's error shape, which all our clients read."""

    def __init__(self, app: ASGIApp, token: str, body_bytes: int, public: frozenset[str] = PUBLIC_PATHS) -> None:
        self._app = app
        self._public = public
        self._token = token.encode()
        self._body_bytes = body_bytes

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
        await self._app(scope, _Bounded(receive, self._body_bytes), send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, str, str] | None:
        # A page in the user's browser can reach loopback through a name that its owner points here (DNS rebinding):
        # the Host that it sends gives it away. An Origin that is not loopback is such a page too.
        if _hostname(headers.get(b"host", b"")) not in LOOPBACK_NAMES:
            return 421, "bad_host", "this server answers to 127.0.0.1 and localhost only"
        if (origin := headers.get(b"origin")) is not None and not self._is_ours(origin, headers[b"host"]):
            return 403, "bad_origin", "this server answers no page but its own"
        if path not in self._public and not self._is_authorised(headers.get(b"authorization", b"")):
            return 401, "invalid_api_key", "send `Authorization: Bearer TOKEN` with the token in .nightschool/token"
        if _length(headers) > self._body_bytes:
            return 413, "too_large", f"the body is longer than {self._body_bytes} bytes"
        return None

    def _is_authorised(self, header: bytes) -> bool:
        # Bytes, because compare_digest raises for text that is not ASCII.
        scheme, _, token = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)

    @staticmethod
    def _is_ours(origin: bytes, host: bytes) -> bool:
        return origin == b"http://" + host


class _Bounded:
    """`receive` that stops a body without a declared length from growing past the bound."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._left = most

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            return {"type": "http.disconnect"}
        return message


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
    if status == 401:
        headers = [*headers, (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": json.dumps(error).encode()})
