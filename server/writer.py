"""A model that writes many texts at a time for the night: our own engine with the bare base model, or an endpoint.

Nothing leaves the machine unless a URL that is not of this machine is set.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx

from indexer.workspace import Workspace
from server.base_model import BaseModel
from server.client import TOKEN_FILE, find_backend
from server.generation import Endpoint, Engine, Finish, GenerationError, ModelCard, Sampling, token_counter
from server.prompt import Turn
from server.serving import Serving
from server.settings import ServerSettings

log = logging.getLogger(__name__)

# Messages as OpenAI writes them, the most tokens to write, the JSON schema of what is wanted -> what was written.
Write = Callable[[Sequence[Mapping[str, str]], int, Mapping[str, Any] | None], Awaitable[str]]
# The base model's bare answer: without our passages and without the adapter in service.
_BARE = {"nightschool": {"retrieval": False}}


@asynccontextmanager
async def own_writer(workspace: Workspace, settings: ServerSettings, base_model: BaseModel) -> AsyncIterator[Write]:
    """The base model: of the backend where one runs, else an engine that is started for this and ended after it.

    Raises `EngineError` when it cannot be started.
    """
    backend = await find_backend(workspace)
    if backend is not None:
        async with backend:
            token = (workspace.state / TOKEN_FILE).read_text().strip()
            engine = _engine(f"{backend.url}/v1", token, base_model.name, _BARE)
            try:
                yield _writing(engine)
            finally:
                await engine.close()
        return
    serving = Serving(workspace, settings, base_model)
    try:
        async with serving.borrow("none") as engine:
            yield _writing(engine)
    finally:
        await serving.stop()


@asynccontextmanager
async def endpoint_writer(url: str, model: str, key: str) -> AsyncIterator[Write]:
    """The OpenAI-compatible endpoint at `url` (ends in /v1). Raises `GenerationError` when it is not there."""
    engine = _engine(url.rstrip("/"), key, model or await _first_model(url.rstrip("/"), key), {})
    try:
        yield _writing(engine)
    finally:
        await engine.close()


def _engine(url: str, key: str, name: str, extra: Mapping[str, Any]) -> Engine:
    return Engine(Endpoint(url, key, name, extra), ModelCard(name, None, 0, token_counter(None)))


async def _first_model(url: str, key: str) -> str:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with httpx.AsyncClient(headers=headers, timeout=30, trust_env=False) as http:
            found = (await http.get(f"{url}/models")).raise_for_status().json()
        return str(found["data"][0]["id"])
    except httpx.HTTPError as error:
        raise GenerationError(f"no model answers at {url}: {error or type(error).__name__}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise GenerationError(f"{url} does not list its models: set [corpus] generator_model") from error


def _writing(engine: Engine) -> Write:
    takes_schema = True

    async def write(messages: Sequence[Mapping[str, str]], max_tokens: int, schema: Mapping[str, Any] | None) -> str:
        nonlocal takes_schema
        turns = [Turn(message["role"], message["content"]) for message in messages]
        asked = schema if takes_schema else None
        try:
            return await _whole(engine, turns, Sampling(max_tokens, schema=asked))
        except GenerationError as error:
            # Not every endpoint knows response_format: then the words of the prompt have to do.
            if asked is None or "answered 4" not in str(error):
                raise
            log.info("asking without a JSON schema: %s", error)
            takes_schema = False
            return await _whole(engine, turns, Sampling(max_tokens))

    return write


async def _whole(engine: Engine, turns: Sequence[Turn], sampling: Sampling) -> str:
    async with aclosing(engine.generate(turns, sampling)) as pieces:
        return "".join([piece async for piece in pieces if not isinstance(piece, Finish)])
