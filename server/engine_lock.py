"""The lock on an engine: inside vLLM, before all its routes; only the backend that started it is answered.

vLLM's own key covers /v1, /v2, /inference and /cohere only. Left open are /invocations (a completion), /tokenize, and,
where adapters may be loaded at run time, POST /adapters, which loads one from any folder.
"""

from __future__ import annotations

import hmac
import os

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# What the backend asks for; all else is closed, with the key too.
PATHS = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"}
)


class EngineLock:
    """ASGI middleware for `--middleware`; the key is vLLM's own, from the environment that the backend gives it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._wanted = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_open_to(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await JSONResponse({"error": "this engine is its backend's"}, 401)(scope, receive, send)
        # A websocket is left without an answer, which ends it.

    def _is_open_to(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return scope["type"] == "http" and scope["path"] in PATHS and hmac.compare_digest(given, self._wanted)
