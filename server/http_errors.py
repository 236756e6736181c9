"""Every failure as an answer over HTTP: OpenAI's error shape, with a message that says what to do."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from indexer.index import IndexUnavailable
from server.adapter import AdapterError, UnknownAdapter
from server.answering import RETRY_AFTER_S, TooManyQuestions
from server.engine import EngineError
from server.feedback import FeedbackError, UnknownAnswer
from server.generation import GenerationError
from server.leaving import ClientLeft
from server.openai_api import RequestRefused, error_json


def add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape, with a message that says what to do."""

    def said(status: int, message: str, **more: Any) -> JSONResponse:
        kind = "invalid_request_error" if status < 500 else "server_error"
        return JSONResponse(error_json(message, kind, **more), status)

    @app.exception_handler(RequestRefused)
    async def refused(_: Request, error: RequestRefused) -> JSONResponse:
        return said(error.status, str(error), param=error.param, code=error.code)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return said(400, f"{where}: {first['msg']}", param=where)

    @app.exception_handler(UnknownAdapter)
    async def unknown(_: Request, error: UnknownAdapter) -> JSONResponse:
        return said(404, str(error), param="model", code="model_not_found")

    @app.exception_handler(TooManyQuestions)
    async def too_many(_: Request, error: TooManyQuestions) -> JSONResponse:
        response = said(429, str(error), code="queue_full")
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    @app.exception_handler(AdapterError)
    async def bad_adapter(_: Request, error: AdapterError) -> JSONResponse:
        return said(409, str(error))

    @app.exception_handler(UnknownAnswer)
    async def unknown_answer(_: Request, error: UnknownAnswer) -> JSONResponse:
        return said(404, str(error), param="id")

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        response = said(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ValueError)
    async def too_long(_: Request, error: ValueError) -> JSONResponse:
        return said(400, str(error))

    @app.exception_handler(ClientLeft)
    async def left(_: Request, error: ClientLeft) -> Response:
        return Response(status_code=499)  # nginx's word for it; nobody reads this

    @app.exception_handler(EngineError)
    @app.exception_handler(FeedbackError)
    @app.exception_handler(IndexUnavailable)
    @app.exception_handler(GenerationError)
    async def down(_: Request, error: Exception) -> JSONResponse:
        return said(503, str(error))
