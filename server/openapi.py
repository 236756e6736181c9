"""The OpenAPI description, completed: who may ask, and every way in which a request is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.access import ROUTES, Who

Schema = dict[str, Any]
METHODS = ("get", "post", "put", "delete", "patch")
_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
# Every route stands behind the gate, and may find its index or its engine down.
_REFUSALS = {
    "400": "The request is wrong; the message says where",
    "401": "No token, or a wrong one",
    "403": "A foreign page, no TLS, only the owner's, or switched off here",
    "404": "There is no such thing",
    "409": "The adapter cannot be served",
    "413": "The body is too long",
    "421": "A foreign Host",
    "429": "Too many questions or requests; Retry-After says when to come back",
    "503": "The engine or the index is down; the message says why",
}
_STREAMS = {"/ask", "/v1/chat/completions"}


def complete_openapi(make: Callable[[], Schema]) -> Schema:
    """FastAPI's description with the token, the refusals and the streams; made once, as FastAPI keeps it."""
    schema = make()
    if "securitySchemes" in schema.setdefault("components", {}):
        return schema
    schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schema["components"].setdefault("schemas", {})["Error"] = _ERROR
    for unused in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(unused, None)
    for path, item in schema["paths"].items():
        for method in (method for method in METHODS if method in item):
            _complete(path, item[method], ROUTES.get(f"{method.upper()} {path}", Who.OWNER))
    return schema


def _complete(path: str, operation: Schema, who: Who) -> None:
    responses = operation["responses"]
    responses.pop("422", None)  # we say 400, in OpenAI's shape
    for status, meaning in _REFUSALS.items():
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        responses.setdefault(status, {"description": meaning, "content": content})
    if path == "/readyz":
        responses["503"] = {"description": "Not ready; `reasons` say why", "content": {"application/json": {}}}
    if path == "/metrics":
        responses["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    if path in _STREAMS:
        responses["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    if who is not Who.ANYONE:
        operation["security"] = [{"token": []}]
