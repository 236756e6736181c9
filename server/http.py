"""The HTTP edge: FastAPI routes over `assist`, the index and the adapters. No logic of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from indexer.fleet import FleetIndex
from indexer.index import IndexState, IndexUnavailable, UpdateReport
from server.adapter import promote, rollback
from server.answering import Answers, Ask, Queue, TooManyQuestions, named_events
from server.asker import Asker
from server.assist import AnswerEvent, Wish
from server.audit import AUDIT_FILE, Audit, AuditLog
from server.auth import Gate, Rules
from server.backend import Backend
from server.client import BackendUnavailable, Event
from server.engine_api import add_engine_routes
from server.feedback import Feedback
from server.feedback_api import FeedbackBody
from server.fleet_sync import status_json, update_one
from server.generation import Sampling
from server.http_errors import add_errors
from server.leaving import unless_left
from server.logs import RequestLog
from server.mcp import Doors as McpDoors
from server.mcp import McpSessions, own_client
from server.metrics import CONTENT_TYPE, Metrics
from server.openai_api import CHAT_ID_PREFIX, new_id
from server.openai_routes import add_openai_routes
from server.openapi import complete_openapi
from server.places import places_in
from server.prompt import Question, Turn
from server.reach import Reach, reach
from server.roster import Roster, SignOn
from server.serving import Serving
from server.shapes import Json, code_json, done_json, search_json
from server.streaming import last_event, streaming
from server.team import OWNER_NAME
from server.ui import add_ui_routes


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


class FleetUpdate(BaseModel):
    """Which repository."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=64)


def make_app(backend: Backend, token: str) -> FastAPI:
    """The whole HTTP application over an open backend."""
    # No /docs: FastAPI's page loads its scripts from outside the machine.
    sessions = McpSessions()
    app = FastAPI(title="nightschool", docs_url=None, redoc_url=None, lifespan=sessions.lifespan)
    app.openapi = partial(complete_openapi, app.openapi)  # type: ignore[method-assign]
    metrics, settings = Metrics(), backend.settings
    rules = Rules(settings.body_bytes, frozenset(settings.behind_tls), settings.requests_per_minute)
    roster = _roster(backend, token)
    app.add_middleware(Gate, rules=rules, roster=roster)
    audit = AuditLog(backend.workspace.logs / AUDIT_FILE)
    app.add_middleware(Audit, file=audit, is_on=roster.has_a_team)
    app.add_middleware(RequestLog, note=metrics.note_request)
    add_errors(app)
    _add_state_routes(app, backend, metrics)
    _add_index_routes(app, backend, metrics)
    _add_fleet_routes(app, backend)
    app.state.queue = Queue(backend.settings.queue)
    answers = Answers(backend, app.state.queue, metrics, Feedback(backend.workspace))
    _add_answer_routes(app, backend, answers)
    add_openai_routes(app, backend, answers)
    _add_adapter_routes(app, backend)
    add_engine_routes(app, backend)

    def doors_of(asker: Asker) -> McpDoors:
        return McpDoors(own_client(app, asker).get, partial(_ask_here, answers, asker))

    app.router.routes += sessions.routes(doors_of, backend.settings.body_bytes)
    add_ui_routes(app, backend, roster)
    return app


def _roster(backend: Backend, token: str) -> Roster:
    settings, workspace = backend.settings, backend.workspace
    header = settings.user_header.lower().encode()
    sign_on = SignOn(settings.trusted_proxy, header) if settings.trusted_proxy else None
    roster = Roster(workspace, token, sign_on, lambda: places_in(backend.keeper.index, workspace).groups)
    roster.members()  # what is wrong with the file is told now, and not when the first of the team asks
    return roster


def _of(request: Request, backend: Backend) -> Reach:
    """What the asker of `request` reaches, as the gate found out who they are."""
    return reach(backend, request.state.asker)


def _add_state_routes(app: FastAPI, backend: Backend, metrics: Metrics) -> None:
    @app.get("/healthz", summary="Alive")
    async def healthz() -> Json:
        return {"ok": True}

    @app.get("/readyz", summary="Ready, or what is missing (503)")
    async def readyz(request: Request) -> JSONResponse:
        body = _of(request, backend).readiness()
        return JSONResponse(body, 200 if body["ready"] else 503)

    @app.get("/metrics", summary="For Prometheus")
    async def tell_metrics() -> Response:
        metrics.note_limit(backend.settings.queue)
        metrics.note_tasks(len(asyncio.all_tasks()))
        serving = backend.serving
        metrics.note_engine(serving.state.name, serving.adapter, serving.base_model.name)
        if isinstance(serving, Serving):
            metrics.note_adapters(serving.loaded, serving.how, serving.swap_s)
        metrics.note_words_only(bool(backend.doors.words_only()))
        metrics.note_engines({url: state.name for url, state in backend.engines().items()})
        with suppress(IndexUnavailable):  # what it said last stands; /readyz says why
            metrics.note_index(await backend.doors.freshness())
        await asyncio.to_thread(metrics.note_nights, backend.workspace.state / "nights")
        return Response(metrics.render(), media_type=CONTENT_TYPE)


def _add_index_routes(app: FastAPI, backend: Backend, metrics: Metrics) -> None:
    @app.get("/freshness", summary="How current the index is")
    async def freshness(request: Request) -> IndexState:
        return await _of(request, backend).doors.freshness()

    @app.get("/search", summary="Passages for a query")
    async def search(
        request: Request,
        q: Annotated[str, Query(min_length=1, max_length=8_000)],
        k: Annotated[int, Query(ge=1, le=200)] = 10,
    ) -> Json:
        doors = _of(request, backend).doors
        started, before = time.perf_counter(), doors.words_only()
        passages = await doors.search(q, k, {})
        seconds = time.perf_counter() - started
        metrics.note_search(seconds)
        return search_json(q, seconds * 1000, passages, doors.missing(), before or doors.words_only())

    @app.get("/code", summary="Lines of an indexed file as it is now, secrets masked")
    async def code(
        request: Request,
        path: Annotated[str, Query(min_length=1, max_length=4096)],
        start_line: Annotated[int, Query(ge=1)] = 1,
        end_line: Annotated[int | None, Query(ge=1, description="inclusive; default: the last line")] = None,
    ) -> Json:
        text = await asyncio.to_thread(_of(request, backend).read, path)
        if text is None:
            raise HTTPException(404, f"{path} is not in the index; /index/explain?path= says why")
        return code_json(path, text, start_line, end_line)

    @app.post("/index", summary="Bring the index up to the working tree now")
    async def index() -> UpdateReport:
        return await asyncio.to_thread(backend.keeper.update)

    @app.get("/index/explain", summary="Why a file is or is not in the index")
    async def explain(path: str, request: Request) -> Json:
        return {"path": path, "why": await asyncio.to_thread(_of(request, backend).explain, path)}


def _add_fleet_routes(app: FastAPI, backend: Backend) -> None:
    def fleet() -> FleetIndex:
        index = backend.keeper.index
        if not isinstance(index, FleetIndex):
            raise HTTPException(404, "this workspace is no fleet: `nightschool fleet add`, then start the backend anew")
        return index

    @app.get("/fleet", summary="Every repository of the fleet: how fresh it is, or why it cannot be asked")
    async def status() -> Json:
        return await asyncio.to_thread(status_json, fleet())

    @app.post("/fleet/reload", summary="Read [fleet] anew; what is gone from it is deleted")
    async def reload() -> Json:
        await asyncio.to_thread(fleet().reload, True)
        return {"repositories": list(fleet().names)}

    @app.post("/fleet/update", summary="Read [fleet] anew and bring the index of one repository up to date")
    async def update(body: FleetUpdate) -> Json:
        await asyncio.to_thread(fleet().reload)
        return await asyncio.to_thread(update_one, fleet(), body.name)


def _add_answer_routes(app: FastAPI, backend: Backend, answers: Answers) -> None:
    @app.post("/feedback", status_code=204, summary="What became of an answer: kept or not, edited")
    async def note_feedback(body: FeedbackBody, request: Request) -> None:
        if not backend.settings.feedback:
            raise HTTPException(403, "nothing is written down here: set [server] feedback = true, then ask again")
        answer_id = body.id.removeprefix(CHAT_ID_PREFIX)
        name = request.state.asker.name
        asked_by = None if name == OWNER_NAME else name
        await asyncio.to_thread(answers.feedback.note_verdict, answer_id, body.kept, body.edited, asked_by)

    @app.post("/ask", summary="A grounded answer, as JSON or as server-sent events")
    async def ask(body: AskBody, request: Request) -> Response:
        answer_id = new_id()
        events = answers.begin(_read_ask(body, backend), answer_id, "ask", request.state.asker)
        if "text/event-stream" in request.headers.get("accept", ""):
            return await streaming(request, events, lambda events: _ask_stream(events, answer_id))
        return JSONResponse({"id": answer_id, **done_json(await unless_left(request, last_event(events)))})


def _add_adapter_routes(app: FastAPI, backend: Backend) -> None:
    folder = backend.workspace.adapters

    @app.get("/adapters", summary="The kept adapters and the one in service")
    async def adapters(request: Request) -> Json:
        reached = _of(request, backend)
        kept = await asyncio.to_thread(reached.adapters)
        return {"in_service": reached.adapter, "adapters": jsonable_encoder([a.manifest for a in kept])}

    @app.get(
        "/adapters/served", summary="How the adapter in service is served, and what it changes there, measured now"
    )
    async def served() -> Json:
        serving = backend.serving
        if not isinstance(serving, Serving):
            raise HTTPException(404, "the engine is somebody else's: what it serves is not known here")
        about: Json = {"adapter": serving.adapter, "served": serving.how, "loaded": serving.loaded}
        return about | {"difference": await serving.difference()}

    @app.post("/adapters/rollback", summary="Back to the adapter before this one")
    async def roll_back() -> Json:
        adapter = await asyncio.to_thread(rollback, folder)
        return {"version": adapter.version if adapter else None}

    @app.post("/adapters/{version}/promote", summary="Put a kept adapter in service")
    async def promote_version(version: str) -> Json:
        adapter = await asyncio.to_thread(promote, folder, version)
        return {"version": adapter.version}


def _read_ask(body: AskBody, backend: Backend) -> Ask:
    settings = backend.settings
    turns = tuple(Turn(turn.role, turn.content) for turn in body.conversation)
    overlays = tuple(body.overlays.items())
    question = Question(body.question, body.path, body.buffer, body.selection, turns, overlays=overlays)
    passages = settings.passages if body.k is None else body.k
    sampling = Sampling(body.max_tokens or settings.max_tokens, settings.temperature)
    return question, Wish(body.retrieval, passages, body.adapter, sampling, explain=body.explain)


async def _ask_here(answers: Answers, asker: Asker, body: Json) -> AsyncGenerator[Event]:
    """`/ask` for what stands in this process, on behalf of who asks it."""
    asked, answer_id = _read_ask(AskBody.model_validate(body), answers.backend), new_id()
    try:
        async with aclosing(named_events(answers.begin(asked, answer_id, "mcp", asker), answer_id)) as events:
            async for event in events:
                yield event
    except TooManyQuestions as error:
        raise BackendUnavailable(str(error)) from error


async def _ask_stream(events: AsyncGenerator[AnswerEvent], answer_id: str) -> AsyncGenerator[bytes]:
    async with aclosing(named_events(events, answer_id)) as named:
        async for event in named:
            yield _sse(event.name, event.data)


def _sse(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
