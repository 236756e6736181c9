"""The HTTP edge: FastAPI routes over `assist`, the index and the adapters. No logic of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from indexer.index import IndexState, IndexUnavailable, UpdateReport
from server.adapter import AdapterError, UnknownAdapter, list_adapters, promote, rollback
from server.answering import RETRY_AFTER_S, Answers, Queue, TooManyQuestions, named_events
from server.assist import AnswerEvent, Done, Wish
from server.auth import PUBLIC_PATHS, Gate, Rules
from server.backend import Backend
from server.client import BackendUnavailable, Event
from server.embeddings_api import EmbeddingRequest, embeddings_json
from server.engine import EngineError
from server.feedback import Feedback, FeedbackError, UnknownAnswer
from server.feedback_api import FeedbackBody
from server.fim_api import CompletionRequest, read_completion, text_completion_json
from server.generation import Finish, GenerationError, Sampling
from server.leaving import ClientLeft, unless_left
from server.logs import RequestLog
from server.mcp import Doors as McpDoors
from server.mcp import McpSessions, own_client
from server.metrics import CONTENT_TYPE, Metrics
from server.openai_api import (
    CHAT_ID_PREFIX,
    MODEL_IN_SERVICE,
    ChatRequest,
    RequestRefused,
    completion_json,
    completion_stream,
    error_json,
    new_id,
    read_chat,
)
from server.openapi import complete_openapi
from server.prompt import Question, Turn
from server.shapes import Json, code_json, done_json, search_json
from server.ui import UI_PATHS, add_ui_routes


class AskTurn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: str = Field(pattern="^(user|assistant)$")
    content: str


class AskBody(BaseModel):
    """A question in nightschool's own shape."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(min_length=1, max_length=8_000)
    path: str | None = Field(None, max_length=4096, description="the open file, relative to the workspace")
    buffer: str | None = Field(None, description="the open file's unsaved text")
    selection: str = Field("", description="the marked part of it")
    conversation: list[AskTurn] = Field(default_factory=list, max_length=100, description="earlier turns, oldest first")
    retrieval: bool = True
    k: int | None = Field(None, ge=0, le=50, description="passages to search for")
    overlays: dict[str, str] = Field(default_factory=dict, max_length=50, description="other unsaved files: path, text")
    adapter: str | None = Field(None, description='a kept version, "none" for the bare base model')
    max_tokens: int | None = Field(None, ge=1, description="longest answer; tokens")
    explain: bool = Field(False, description="add the whole prompt, what the model wrote, scores and groundedness")


def make_app(backend: Backend, token: str) -> FastAPI:
    """The whole HTTP application over an open backend."""
    # No /docs: FastAPI's page loads its scripts from outside the machine.
    sessions = McpSessions()
    app = FastAPI(title="nightschool", docs_url=None, redoc_url=None, lifespan=sessions.lifespan)
    app.openapi = partial(complete_openapi, app.openapi)  # type: ignore[method-assign]
    metrics, settings = Metrics(), backend.settings
    names, per_minute = frozenset(settings.behind_tls), settings.requests_per_minute
    app.add_middleware(Gate, rules=Rules(token, settings.body_bytes, PUBLIC_PATHS | UI_PATHS, names, per_minute))
    app.add_middleware(RequestLog, note=metrics.note_request)
    _add_errors(app)
    _add_state_routes(app, backend, metrics)
    _add_index_routes(app, backend, metrics)
    app.state.queue = Queue(backend.settings.queue)
    answers = Answers(backend, app.state.queue, metrics, Feedback(backend.workspace))
    _add_answer_routes(app, backend, answers)
    _add_adapter_routes(app, backend)
    doors = McpDoors(own_client(app, token).get, partial(_ask_here, answers))
    app.router.routes += sessions.routes(doors, backend.settings.body_bytes)
    add_ui_routes(app, backend)
    return app


def _add_state_routes(app: FastAPI, backend: Backend, metrics: Metrics) -> None:
    @app.get("/healthz", summary="Alive")
    async def healthz() -> Json:
        return {"ok": True}

    @app.get("/readyz", summary="Ready, or what is missing (503)")
    async def readyz() -> JSONResponse:
        missing = backend.missing()
        state = backend.serving.state
        body = {
            "ready": not missing,
            "reasons": missing,
            "engine": asdict(state),
            "workspace": str(backend.workspace.root),
        }
        body |= {"adapter": backend.serving.adapter, "base_model": backend.serving.base_model.name}
        body["index"] = {"reason": backend.keeper.reason}
        body["accepts"] = ["overlays"]
        body["feedback"] = backend.settings.feedback
        body["fim"] = backend.serving.base_model.fim is not None
        return JSONResponse(body, 503 if missing else 200)

    @app.get("/metrics", summary="For Prometheus")
    async def tell_metrics() -> Response:
        metrics.note_limit(backend.settings.queue)
        metrics.note_tasks(len(asyncio.all_tasks()))
        serving = backend.serving
        metrics.note_engine(serving.state.name, serving.adapter, serving.base_model.name)
        with suppress(IndexUnavailable):  # what it said last stands; /readyz says why
            metrics.note_index(await backend.doors.freshness())
        await asyncio.to_thread(metrics.note_nights, backend.workspace.state / "nights")
        return Response(metrics.render(), media_type=CONTENT_TYPE)


def _add_index_routes(app: FastAPI, backend: Backend, metrics: Metrics) -> None:
    @app.get("/freshness", summary="How current the index is")
    async def freshness() -> IndexState:
        return await backend.doors.freshness()

    @app.get("/search", summary="Passages for a query")
    async def search(
        q: Annotated[str, Query(min_length=1, max_length=8_000)], k: Annotated[int, Query(ge=1, le=200)] = 10
    ) -> Json:
        started = time.perf_counter()
        passages = await backend.doors.search(q, k, {})
        seconds = time.perf_counter() - started
        metrics.note_search(seconds)
        return search_json(q, seconds * 1000, passages)

    @app.get("/code", summary="Lines of an indexed file as it is now, secrets masked")
    async def code(
        path: Annotated[str, Query(min_length=1, max_length=4096)],
        start_line: Annotated[int, Query(ge=1)] = 1,
        end_line: Annotated[int | None, Query(ge=1, description="inclusive; default: the last line")] = None,
    ) -> Json:
        text = await asyncio.to_thread(backend.keeper.index.read, path)
        if text is None:
            raise HTTPException(404, f"{path} is not in the index; /index/explain?path= says why")
        return code_json(path, text, start_line, end_line)

    @app.post("/index", summary="Bring the index up to the working tree now")
    async def index() -> UpdateReport:
        return await asyncio.to_thread(backend.keeper.update)

    @app.get("/index/explain", summary="Why a file is or is not in the index")
    async def explain(path: str) -> Json:
        return {"path": path, "why": await asyncio.to_thread(backend.keeper.index.explain, path)}


def _add_answer_routes(app: FastAPI, backend: Backend, answers: Answers) -> None:
    @app.post("/feedback", status_code=204, summary="What became of an answer: kept or not, edited")
    async def note_feedback(body: FeedbackBody) -> None:
        if not backend.settings.feedback:
            raise HTTPException(403, "nothing is written down here: set [server] feedback = true, then ask again")
        answer_id = body.id.removeprefix(CHAT_ID_PREFIX)
        await asyncio.to_thread(answers.feedback.note_verdict, answer_id, body.kept, body.edited)

    @app.post("/ask", summary="A grounded answer, as JSON or as server-sent events")
    async def ask(body: AskBody, request: Request) -> Response:
        question, wish = _read_ask(body, backend)
        answer_id = new_id()
        events = answers.begin(question, wish, answer_id, "ask")
        if "text/event-stream" in request.headers.get("accept", ""):
            return await _streaming(request, events, lambda events: _ask_stream(events, answer_id))
        return JSONResponse({"id": answer_id, **done_json(await unless_left(request, _last(events)))})

    @app.post("/v1/chat/completions", summary="OpenAI's chat completions, with retrieval inside")
    async def chat(body: ChatRequest, request: Request) -> Response:
        question, wish = read_chat(body, backend.serving.base_model.name, backend.settings)
        answer_id = new_id()
        events = answers.begin(question, wish, answer_id, "chat")
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            shape = partial(completion_stream, answer_id=answer_id, model=body.model, usage=usage)
            return await _streaming(request, events, shape)
        return JSONResponse(completion_json(await unless_left(request, _last(events)), answer_id, body.model))

    @app.post("/v1/completions", summary="Fill in the middle, for editors")
    async def completions(body: CompletionRequest, request: Request) -> Json:
        prompt, sampling = read_completion(body, backend.serving.base_model, backend.settings)

        async def complete() -> list[str | Finish]:
            async with backend.serving.borrow() as engine, aclosing(engine.complete(prompt, sampling)) as pieces:
                return [piece async for piece in pieces]

        whole = text_completion_json(await unless_left(request, complete()), body.model)
        answers.metrics.note_tokens(whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"])
        return whole

    @app.post("/v1/embeddings", summary="Embeddings by the index's embedder")
    async def embeddings(body: EmbeddingRequest) -> Json:
        index = backend.keeper.index
        texts = body.texts(index.embedder_name)
        return embeddings_json(await asyncio.to_thread(index.embed, texts), body, index.embedder_name)

    @app.get("/v1/models", summary="The adapter in service, the kept versions, the base model")
    async def models() -> Json:
        base = backend.serving.base_model.name
        adapters = await asyncio.to_thread(list_adapters, backend.workspace.adapters)
        about: list[Json] = [{"id": MODEL_IN_SERVICE, "root": backend.serving.adapter or base, "parent": base}]
        about += [{"id": adapter.version, "root": adapter.version, "parent": base} for adapter in adapters]
        about.append({"id": base, "root": base, "parent": None})
        return {
            "object": "list",
            "data": [{"object": "model", "created": 0, "owned_by": "nightschool", **m} for m in about],
        }


def _add_adapter_routes(app: FastAPI, backend: Backend) -> None:
    folder = backend.workspace.adapters

    @app.get("/adapters", summary="The kept adapters and the one in service")
    async def adapters() -> Json:
        kept = await asyncio.to_thread(list_adapters, folder)
        return {"in_service": backend.serving.adapter, "adapters": jsonable_encoder([a.manifest for a in kept])}

    @app.post("/adapters/rollback", summary="Back to the adapter before this one")
    async def roll_back() -> Json:
        adapter = await asyncio.to_thread(rollback, folder)
        return {"version": adapter.version if adapter else None}

    @app.post("/adapters/{version}/promote", summary="Put a kept adapter in service")
    async def promote_version(version: str) -> Json:
        adapter = await asyncio.to_thread(promote, folder, version)
        return {"version": adapter.version}


def _read_ask(body: AskBody, backend: Backend) -> tuple[Question, Wish]:
    settings = backend.settings
    turns = tuple(Turn(turn.role, turn.content) for turn in body.conversation)
    overlays = tuple(body.overlays.items())
    question = Question(body.question, body.path, body.buffer, body.selection, turns, overlays=overlays)
    passages = settings.passages if body.k is None else body.k
    sampling = Sampling(body.max_tokens or settings.max_tokens, settings.temperature)
    return question, Wish(body.retrieval, passages, body.adapter, sampling, explain=body.explain)


async def _ask_here(answers: Answers, body: Json) -> AsyncGenerator[Event]:
    """`/ask` for what stands in this process."""
    question, wish = _read_ask(AskBody.model_validate(body), answers.backend)
    answer_id = new_id()
    try:
        async with aclosing(named_events(answers.begin(question, wish, answer_id, "mcp"), answer_id)) as events:
            async for event in events:
                yield event
    except TooManyQuestions as error:
        raise BackendUnavailable(str(error)) from error


async def _ask_stream(events: AsyncGenerator[AnswerEvent], answer_id: str) -> AsyncGenerator[bytes]:
    async with aclosing(named_events(events, answer_id)) as named:
        async for event in named:
            yield _sse(event.name, event.data)


async def _streaming(request: Request, events: AsyncGenerator[AnswerEvent], shape: Any) -> StreamingResponse:
    """A stream whose first event has come: what fails before it is an error status, not a broken stream."""
    first = await unless_left(request, _first(events))

    async def all_events() -> AsyncGenerator[AnswerEvent]:
        # Closed from outside when the reader leaves, which must stop the engine's work at once.
        async with aclosing(events):
            yield first
            async for event in events:
                yield event

    async def lines() -> AsyncGenerator[bytes]:
        async with aclosing(all_events()) as every, aclosing(shape(every)) as shaped:
            async for line in shaped:
                yield line

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _first(events: AsyncGenerator[AnswerEvent]) -> AnswerEvent:
    return await anext(events)


async def _last(events: AsyncGenerator[AnswerEvent]) -> Done:
    done: Done | None = None
    async with aclosing(events):
        async for event in events:
            done = event if isinstance(event, Done) else done
    assert done is not None
    return done


def _sse(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _add_errors(app: FastAPI) -> None:
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
