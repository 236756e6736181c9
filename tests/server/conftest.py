"""Small things that do the job of the index and the engine: passages by hand, a model that reads from a script."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn

from indexer.index import IndexState
from indexer.search import Passage
from indexer.workspace import Workspace
from server.assist import Doors
from server.auth import read_or_make_token
from server.backend import Backend, IndexKeeper
from server.backoff import EngineState
from server.generation import Finish, Sampling
from server.http import make_app
from server.prompt import Turn
from server.run import uvicorn_config
from server.settings import ServerSettings

SCRIPT = Path(__file__).with_name("bad_engine.py")
URL = "http://127.0.0.1:8000"


def make_passage(path: str = "app.py", text: str = "def run():\n    return 1\n", start_line: int = 1) -> Passage:
    lines = text.count("\n") + (not text.endswith("\n"))
    digest = sha256(text.encode()).hexdigest()
    return Passage(path, start_line, start_line + lines - 1, 1.0, "run", "python", text, digest)


@dataclass
class ScriptedModel:
    """Writes its script, piece by piece; raises what is an exception in it, waits for what is an event.

    `stopped` counts closings.
    """

    script: Sequence[str | Exception | asyncio.Event] = ("It is in ", "run [1].")
    adapter: str | None = "2026-01-01-0000-abc"
    base_model: str = "scripted"
    context_tokens: int = 4096
    seen: list[Sequence[Turn]] = field(default_factory=list)
    stopped: int = 0

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def generate(self, messages: Sequence[Turn], sampling: Sampling) -> AsyncIterator[str | Finish]:
        self.seen.append(messages)
        try:
            for piece in self.script:
                await asyncio.sleep(0)
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                else:
                    yield piece
            yield Finish("stop", 10, len(self.script))
        finally:
            self.stopped += 1


class SlowModel:
    """Never ends; `stopped` is set when it is told to."""

    adapter = None
    base_model = "slow"
    context_tokens = 4096

    def __init__(self, writes_at_once):
        self.writes_at_once = writes_at_once
        self.begun, self.stopped = asyncio.Event(), asyncio.Event()

    def count_tokens(self, text):
        return len(text.split())

    async def generate(self, messages, sampling):
        try:
            self.begun.set()
            if self.writes_at_once:
                yield "word "
            while True:
                await asyncio.sleep(3600)
        finally:
            self.stopped.set()


def make_doors(
    model: ScriptedModel | Exception,
    passages: Sequence[Passage] | Exception = (),
    is_there: bool = True,
    **more: object,
) -> Doors:
    """The doors to `model` and to `passages`; `more` are fields of `Doors`."""

    async def search(query: str, k: int, overlays: object) -> Sequence[Passage]:
        if isinstance(passages, Exception):
            raise passages
        return passages[:k]

    async def freshness() -> IndexState:
        return IndexState("c0ffee", 0, 1, 1, 0, 0, 0.0)

    @asynccontextmanager
    async def borrow(version: str | None) -> AsyncIterator[ScriptedModel]:
        if isinstance(model, Exception):
            raise model
        yield model

    return replace(Doors(search, lambda _: is_there, freshness, borrow), **more)


@pytest.fixture
def passage() -> Callable[..., Passage]:
    return make_passage


@pytest.fixture
def scripted() -> type[ScriptedModel]:
    return ScriptedModel


@pytest.fixture
def slow_model() -> type[SlowModel]:
    return SlowModel


@pytest.fixture
def doors() -> Callable[..., Doors]:
    return make_doors


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def make_backend(workspace):
    """Makes a backend over a model (or the failure to have one) and one passage; fields of the settings by name."""

    def make(model=None, passages=None, index=None, doors=None, **settings):
        serving = SimpleNamespace(
            state=EngineState("ready"),
            adapter="2026-01-01-0000-abc",
            base_model=SimpleNamespace(name="scripted", fim=None),
        )
        found = [make_passage()] if passages is None else passages
        opened = make_doors(ScriptedModel() if model is None else model, found, **(doors or {}))
        return Backend(workspace, ServerSettings(**settings), IndexKeeper(index, reason=""), serving, opened)

    return make


@pytest.fixture
def client(workspace, make_backend):
    """Makes a client of the application over a model (or the failure to have one)."""

    def make(model=None, authorised=True, **settings):
        token = read_or_make_token(workspace)
        headers = {"Authorization": f"Bearer {token}"} if authorised else {}
        app = make_app(make_backend(model, **settings), token)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=URL, headers=headers)

    return make


@pytest.fixture
def live_app():
    """Serves an application on a real socket: `async with live_app(app) as url`."""

    @asynccontextmanager
    async def serve(app):
        server = uvicorn.Server(uvicorn_config(app))
        server.capture_signals = nullcontext
        running = asyncio.create_task(server.serve())
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        await running

    return serve


@pytest.fixture
def live(workspace, make_backend, live_app):
    """Serves an application over a scripted model: `async with live(model, **settings) as http`."""

    @asynccontextmanager
    async def serve(model=None, **settings):
        token = read_or_make_token(workspace)
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            live_app(make_app(make_backend(model, **settings), token)) as url,
            httpx.AsyncClient(timeout=10, base_url=url, headers=headers, trust_env=False) as http,
        ):
            yield http

    return serve


class Played:
    """The server in a process of its own: `mode` can be set at any time, `heard` is what it heard."""

    def __init__(self, folder):
        self._mode, self._log = folder / "mode", folder / "log"
        self.mode = "well"
        self._log.touch()
        self.process = None
        self.port = 0

    def start(self):
        command = [sys.executable, str(SCRIPT), str(self.port), str(self._mode), str(self._log)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.port = int(self.process.stdout.readline())
        return self.process

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    @property
    def mode(self):
        return self._mode.read_text()

    @mode.setter
    def mode(self, mode):
        self._mode.write_text(mode)

    @property
    def heard(self):
        """What it heard, in order: asked, left."""
        return [word for word in self._log.read_text().split() if "=" not in word]

    @property
    def models(self):
        """The model that each request named."""
        return [word.split("=")[1] for word in self._log.read_text().split() if "=" in word]


@pytest.fixture
def start_played():
    """Starts such servers, each in a folder of its own."""
    servers = []

    def start(folder):
        folder.mkdir(parents=True, exist_ok=True)
        servers.append(Played(folder))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def client_of():
    """A client of the application over a made backend whose engines are those of `serving`."""

    @asynccontextmanager
    async def open_client(make_backend, serving, **made):
        backend = make_backend(**made)
        backend = replace(backend, serving=serving, doors=replace(backend.doors, borrow=serving.borrow))
        token = read_or_make_token(backend.workspace)
        transport = httpx.ASGITransport(make_app(backend, token))
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(transport=transport, base_url=URL, headers=headers) as http:
            yield http

    return open_client
