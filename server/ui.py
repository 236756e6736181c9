"""The web page at /ui: its files, what it needs rendered, and the nights. The page holds nothing; every call asks.

The page is public, because a browser cannot send a token for it; what it shows comes through routes that ask for one.
"""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from server.adapter import VERSION_PATTERN
from server.backend import Backend
from server.markdown import highlight_lines, render_markdown
from server.nights import read_curve, read_last_night, read_nights, read_running_night
from server.reach import Reach, reach
from server.roster import Roster
from server.shapes import Json

# Nothing from outside the machine is ever loaded, and nothing in an answer runs: the browser itself holds it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A report is one file with its styles inside; it runs nothing and reaches nothing, not even us.
REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_FILES = {file.name: file for file in (Path(__file__).parent / "page").iterdir() if file.suffix in _TYPES}


class RenderBody(BaseModel):
    """An answer as the model wrote it, and how many passages its markers may refer to."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=200_000)
    passages: int = Field(0, ge=0, le=999)


class CodeBody(BaseModel):
    """A passage's text, and the path whose name says which language it is."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=200_000)
    path: str = Field(max_length=4096)


def add_ui_routes(app: FastAPI, backend: Backend, roster: Roster) -> None:
    """The page and the routes that only it needs."""
    _add_page(app)
    _add_rendering(app)
    _add_nights(app, backend, roster)


def _add_page(app: FastAPI) -> None:
    @app.get("/ui", summary="The web page", include_in_schema=False)
    async def page() -> Response:
        return _file("index.html", POLICY)

    @app.get("/ui/page/{name}", summary="A file of the web page", include_in_schema=False)
    async def part(name: str) -> Response:
        return _file(name, POLICY)


def _add_rendering(app: FastAPI) -> None:
    # Not async: they take milliseconds of CPU, which belong on a thread and not in the loop.
    @app.post("/ui/render", summary="An answer's Markdown as safe HTML")
    def render(body: RenderBody) -> Json:
        return {"html": render_markdown(body.text, body.passages)}

    @app.post("/ui/code", summary="Code as lines of highlighted HTML")
    def code(body: CodeBody) -> Json:
        return {"lines": highlight_lines(body.text, body.path)}


def _add_nights(app: FastAPI, backend: Backend, roster: Roster) -> None:
    # A link cannot send a token, so that of a report holds a key of its own, good for that report and whom it was shown
    # to, until we end or they may not read it any more.
    secret = secrets.token_bytes(32)

    def key(version: str, name: str) -> str:
        return hmac.new(secret, f"{version} {name}".encode(), sha256).hexdigest()[:32]

    def report_of(version: str, name: str) -> str | None:
        if not _report(backend, version).is_file():
            return None
        return "/ui/report?" + urlencode({"version": version, "for": name, "key": key(version, name)})

    @app.get("/nights", summary="The last nights: verdicts, four-way tables, loss curves")
    def nights(request: Request, most: Annotated[int, Query(ge=1, le=200)] = 30) -> Json:
        reached = reach(backend, request.state.asker)
        found = read_nights(backend.workspace, most) if reached.adapters_too else []
        about = [
            {
                **night.model_dump(),
                "curve": read_curve(backend.workspace, night.version) if _is_version(night.version) else [],
                "report": report_of(night.version, reached.asker.name) if _is_version(night.version) else None,
            }
            for night in found
        ]
        return {"nights": about} | now(reached)

    def now(reached: Reach) -> Json:
        if not reached.adapters_too:
            return {"last": None, "running": None}
        last, running = read_last_night(backend.workspace), read_running_night(backend.workspace)
        return {"last": last and last.model_dump(), "running": running and running.model_dump()}

    @app.get("/nights/last", summary="How the last night ended, and the one that runs now")
    def last_night(request: Request) -> Json:
        return now(reach(backend, request.state.asker))

    @app.get("/ui/report", summary="A night's report", include_in_schema=False)
    def report(
        request: Request,
        version: str,
        name: Annotated[str, Query(alias="for")],
        given: Annotated[str, Query(alias="key")],
    ) -> Response:
        asker = roster.asker(name) if hmac.compare_digest(given.encode(), key(version, name).encode()) else None
        is_theirs = asker is not None and reach(backend, asker).adapters_too
        if not (is_theirs and _is_version(version) and _report(backend, version).is_file()):
            raise HTTPException(404, "no such report: open it from the page of nights")
        request.state.asker = asker
        return _answer(_report(backend, version), REPORT_POLICY)


def _is_version(text: str) -> bool:
    return re.fullmatch(VERSION_PATTERN, text) is not None


def _report(backend: Backend, version: str) -> Path:
    return backend.workspace.adapters / version / "report.html"


def _file(name: str, policy: str) -> Response:
    if name not in _FILES:
        raise HTTPException(404, f"the page has no {name}")
    return _answer(_FILES[name], policy)


def _answer(file: Path, policy: str) -> Response:
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
    return Response(file.read_bytes(), media_type=_TYPES[file.suffix], headers=headers)
