"""A real engine on an adapter that is not in service: does it load, does it answer, how fast?"""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass

from indexer.workspace import Workspace
from server.adapter import Adapter
from server.base_model import BaseModel
from server.engine import EngineError
from server.generation import Finish, GenerationError, Model, Sampling
from server.prompt import Turn
from server.serving import Serving
from server.settings import ServerSettings

_TOKENS = 64
_PROMPT = "Explain in some sentences what a version control system is good for."


@dataclass(frozen=True, slots=True)
class Trial:
    """`fault` is why the adapter cannot be served, "" when it can; then seconds to the first token of one short
    question, and tokens a second from there on."""

    fault: str
    first_token_s: float | None = None
    tokens_per_s: float | None = None


async def try_adapter(workspace: Workspace, settings: ServerSettings, base_model: BaseModel, adapter: Adapter) -> Trial:
    """Start an engine of its own on `adapter`, let it answer, and end it."""
    serving = Serving(workspace, settings, base_model)
    try:
        async with serving.borrow(adapter.version) as engine:
            return await time_engine(engine)
    except (EngineError, GenerationError) as error:
        return Trial(str(error))
    finally:
        await serving.stop()


async def time_engine(engine: Model) -> Trial:
    """One answer, timed. An engine that ends without a token cannot serve. Raises `GenerationError`."""
    began, first = time.perf_counter(), None
    tokens = 0
    async with aclosing(engine.generate([Turn("user", _PROMPT)], Sampling(max_tokens=_TOKENS))) as pieces:
        async for piece in pieces:
            if isinstance(piece, Finish):
                tokens = piece.completion_tokens
            elif first is None:
                first = time.perf_counter()
    if first is None:
        return Trial("the engine writes nothing with it: its first token is the end")
    rest_s = time.perf_counter() - first
    rate = (tokens - 1) / rest_s if tokens > 1 and rest_s > 0 else None
    return Trial("", round(first - began, 3), rate and round(rate, 1))
