"""The routes of OpenAI's API: chat completions with retrieval inside, completions, embeddings, models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from server.answering import Answers
from server.backend import Backend
from server.embeddings_api import EmbeddingRequest, embeddings_json
from server.fim_api import CompletionRequest, read_completion, text_completion_json
from server.generation import Finish
from server.leaving import unless_left
from server.openai_api import MODEL_IN_SERVICE, ChatRequest, completion_json, completion_stream, new_id, read_chat
from server.reach import reach
from server.shapes import Json
from server.streaming import all_pieces, last_event, streaming


def add_openai_routes(app: FastAPI, backend: Backend, answers: Answers) -> None:
    """Add them to the application."""
    _add_chat(app, backend, answers)
    _add_completions(app, backend, answers)
    _add_embeddings_and_models(app, backend)


def _add_chat(app: FastAPI, backend: Backend, answers: Answers) -> None:
    @app.post("/v1/chat/completions", summary="OpenAI's chat completions, with retrieval inside")
    async def chat(body: ChatRequest, request: Request) -> Response:
        asked, answer_id = read_chat(body, backend.serving.base_model.name, backend.settings), new_id()
        events = answers.begin(asked, answer_id, "chat", request.state.asker)
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            shape = partial(completion_stream, answer_id=answer_id, model=body.model, usage=usage)
            return await streaming(request, events, shape)
        return JSONResponse(completion_json(await unless_left(request, last_event(events)), answer_id, body.model))


def _add_completions(app: FastAPI, backend: Backend, answers: Answers) -> None:
    @app.post("/v1/completions", summary="Fill in the middle, for editors")
    async def completions(body: CompletionRequest, request: Request) -> Json:
        prompt, sampling = read_completion(body, backend.serving.base_model, backend.settings)

        async def complete() -> AsyncGenerator[str | Finish]:
            async with (
                reach(backend, request.state.asker).borrow(None) as engine,
                aclosing(engine.complete(prompt, sampling)) as pieces,
            ):
                async for piece in pieces:
                    yield piece

        pieces = answers.queue.held(complete(), request.state.asker.name)
        whole = text_completion_json(await unless_left(request, all_pieces(pieces)), body.model)
        answers.metrics.note_tokens(whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"])
        return whole


def _add_embeddings_and_models(app: FastAPI, backend: Backend) -> None:
    @app.post("/v1/embeddings", summary="Embeddings by the index's embedder")
    async def embeddings(body: EmbeddingRequest) -> Json:
        index = backend.keeper.index
        texts = body.texts(index.embedder_name)
        return embeddings_json(await asyncio.to_thread(index.embed, texts), body, index.embedder_name)

    @app.get("/v1/models", summary="The adapter in service, the kept versions, the base model")
    async def models(request: Request) -> Json:
        base, reached = backend.serving.base_model.name, reach(backend, request.state.asker)
        adapters = await asyncio.to_thread(reached.adapters)
        about: list[Json] = [{"id": MODEL_IN_SERVICE, "root": reached.adapter or base, "parent": base}]
        about += [{"id": adapter.version, "root": adapter.version, "parent": base} for adapter in adapters]
        about.append({"id": base, "root": base, "parent": None})
        return {
            "object": "list",
            "data": [{"object": "model", "created": 0, "owned_by": "nightschool", **m} for m in about],
        }
