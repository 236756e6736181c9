"""The engine's sleep over HTTP: a night asks for it before it trains, and says when it needs the memory no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from server.backend import Backend
from server.serving import Serving
from server.shapes import Json


class SleepBody(BaseModel):
    """For how long, about: what users are told meanwhile."""

    model_config = ConfigDict(extra="forbid")
    minutes: float = Field(gt=0, le=24 * 60)


def add_engine_routes(app: FastAPI, backend: Backend) -> None:
    """Add them to the application."""

    def serving() -> Serving:
        if not isinstance(backend.serving, Serving):
            raise HTTPException(409, "the engine is not ours: [server] engine_url names one that others run")
        return backend.serving

    @app.post("/engine/sleep", summary="Free the engine's memory while a night runs; returns when it is free")
    async def sleep(body: SleepBody) -> Json:
        if not await serving().sleep(datetime.now(UTC) + timedelta(minutes=body.minutes)):
            raise HTTPException(409, "no night is running: the engine sleeps for one only")
        return {"asleep": True}

    @app.post("/engine/wake", summary="The night needs the engine's memory no more")
    async def wake() -> Json:
        serving().nap.end()
        return {"asleep": False}
