"""The two ends that the language server stands between: an editor over stdio, and a backend over HTTP.

The server itself is always the real process. The backend in front of the slow engine is a real HTTP server that
speaks the contract from a script; with the engine behind it, tests/e2e asks the same questions.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]


@dataclass
class Script:
    """What the scripted backend says, changed by a test as it likes; and what it was asked."""

    pieces: list[str] = field(default_factory=lambda: ["Reads ", "one file ", "[1]."])
    notices: list[str] = field(default_factory=list)
    piece_wait_s: float = 0.0
    break_after: int | None = None
    error: str | None = None
    refuse: tuple[int, str] | None = None
    citations: list[Json] = field(default_factory=list)
    passages: list[Json] = field(default_factory=list)
    ready: Json = field(default_factory=dict)
    freshness: Json = field(default_factory=dict)
    adapters: Json = field(default_factory=lambda: {"in_service": None, "adapters": []})
    nights: Json = field(default_factory=dict)
    completion: str | Callable[[Json], str] = ""
    completion_wait_s: float = 0.0
    asked: list[Json] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    completions: list[Json] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    done: int = 0

    def answer(self) -> Json:
        freshness = {"commit": "abc1234def", "dirty_files": 1, "files": 3, "chunks": 9, "waiting_files": 0}
        freshness |= {"waiting_chunks": 0, "seconds_behind": 0.0} | self.freshness
        return {
            "answer": "".join(self.pieces), "citations": self.citations, "passages": self.passages,
            "freshness": freshness, "adapter": "2026-11-23-abc", "base_model": "scripted-1b",
            "notices": self.notices, "timings_ms": {"search": 3.0, "total": 9.0},
        }  # fmt: skip


class ScriptedBackend:
    """An HTTP server of one workspace: `backend.json` and `token` on disk, a bearer token on every route."""

    def __init__(self, workspace: Path, script: Script, token: str = "first-token") -> None:
        self.workspace, self.script, self.token = workspace, script, token
        self.stopped = False
        handler = type("Handler", (_Handler,), {"backend": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        state = workspace / ".nightschool"
        state.mkdir(exist_ok=True)
        (state / "token").write_text(token)
        (state / "backend.json").write_text(json.dumps({"pid": os.getpid(), "url": self.url, "started_at": "now"}))

    def stop(self, forget: bool = True) -> None:
        """Stop answering; `forget`: as an orderly end does, remove `backend.json`."""
        self.stopped = True  # also on the connections that are kept open
        self._server.shutdown()
        self._server.server_close()
        if forget:
            (self.workspace / ".nightschool" / "backend.json").unlink(missing_ok=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # As uvicorn and asyncio do: with Nagle's algorithm the second of two small writes waits 40 ms.
    disable_nagle_algorithm = True
    backend: ScriptedBackend

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, script = urlsplit(self.path), self.backend.script
        if not self._admits(path.path):
            return
        if path.path == "/healthz":
            self._say(200, {"ok": True, "workspace": str(self.backend.workspace)})
        elif path.path == "/readyz":
            ready = {
                "ready": True,
                "reasons": [],
                "engine": {"name": "ready", "reason": ""},
                "base_model": "scripted-1b",
            }
            ready |= {"workspace": str(self.backend.workspace), "adapter": "2026-11-23-abc"} | script.ready
            self._say(200 if ready["ready"] else 503, ready)
        elif path.path == "/freshness":
            self._say(200, script.answer()["freshness"])
        elif path.path == "/adapters":
            self._say(200, script.adapters)
        elif path.path == "/nights/last":
            self._say(200, {"last": None, "running": None} | script.nights)
        elif path.path == "/search":
            query = parse_qs(path.query)["q"][0]
            self._say(200, {"query": query, "took_ms": 1.5, "passages": script.passages})
        else:
            self._say(404, {"error": {"message": f"no {path.path}"}})

    def do_POST(self) -> None:
        script = self.backend.script
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._admits(self.path):
            return
        if self.path == "/ask":
            script.asked.append(body)
            self._stream(script)
        elif self.path == "/v1/completions":
            script.completions.append(body)
            time.sleep(script.completion_wait_s)
            text = script.completion if isinstance(script.completion, str) else script.completion(body)
            self._say(200, {"choices": [{"text": text}]})
        elif self.path == "/adapters/rollback":
            self._say(200, {"version": None})
        elif self.path == "/_script":
            self._change(body)
        else:
            self._say(404, {"error": {"message": f"no {self.path}"}})

    def _change(self, body: Json) -> None:
        """Change the script from another process: VS Code is driven from one."""
        stop = body.pop("stop", False)
        for name, value in body.items():
            setattr(self.backend.script, name, value)
        self._say(200, {})
        if stop:
            threading.Thread(target=self.backend.stop).start()

    def _admits(self, path: str) -> bool:
        if self.backend.stopped:
            self.close_connection = True
            return False
        self.backend.script.requests.append((self.command, path))
        if self.headers["Authorization"] == f"Bearer {self.backend.token}":
            return True
        self._say(401, {"error": {"message": "wrong token"}})
        return False

    def _say(self, status: int, body: Json) -> None:
        data = json.dumps(body).encode()
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def _stream(self, script: Script) -> None:
        if script.refuse is not None:
            return self._say(script.refuse[0], {"error": {"message": script.refuse[1]}})
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for notice in script.notices:
                self._event("notice", {"text": notice})
            for at, piece in enumerate(script.pieces):
                if at == script.break_after:
                    return None
                self._event("text", {"delta": piece})
                time.sleep(script.piece_wait_s)
            if script.error is not None:
                return self._event("error", {"message": script.error})
            self._event("done", script.answer())
            script.done += 1
        except OSError:
            script.left.set()
        return None

    def _event(self, name: str, data: Json) -> None:
        self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()


class Refused(Exception):
    """An error response."""

    def __init__(self, error: Json) -> None:
        super().__init__(error["message"])
        self.code = error["code"]


class Editor:
    """A language client over stdio that keeps all it is told. Requests of the server are granted and kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.notifications: list[Json] = []
        self.requests: list[Json] = []
        self.responses: list[Json] = []
        self.answers: dict[str, Any] = {"window/showDocument": {"success": True}}
        self.initialized: Json = {}
        self._waiting: dict[Any, asyncio.Future[Any]] = {}
        self._changed = asyncio.Event()
        self._ids = 0
        self._reader = asyncio.create_task(self._read())

    async def initialize(
        self, folder: Path | None, capabilities: Json | None = None, options: Json | None = None, **more: Any
    ) -> Json:
        uri = folder.as_uri() if folder else None
        params = {"processId": os.getpid(), "rootUri": uri, "capabilities": capabilities or {}, **more}
        if options is not None:
            params["initializationOptions"] = options
        self.initialized = await self.request("initialize", params)
        self.notify("initialized", {})
        return self.initialized

    def send(self, message: Any) -> None:
        self.send_bytes(json.dumps(message).encode())

    def send_bytes(self, body: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def notify(self, method: str, params: Any) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def begin(self, method: str, params: Any) -> tuple[int, asyncio.Future[Any]]:
        """Send a request without waiting: its id, and the future of its result."""
        self._ids += 1
        self._waiting[self._ids] = asyncio.get_running_loop().create_future()
        self.send({"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params})
        return self._ids, self._waiting[self._ids]

    async def request(self, method: str, params: Any, timeout_s: float = 20) -> Any:
        return await asyncio.wait_for(self.begin(method, params)[1], timeout_s)

    def cancel(self, request_id: int) -> None:
        self.notify("$/cancelRequest", {"id": request_id})

    def open(self, path: Path | str, text: str, language: str = "python", version: int = 1) -> str:
        uri = path if isinstance(path, str) else path.as_uri()
        item = {"uri": uri, "languageId": language, "version": version, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": item})
        return uri

    def told(self, method: str) -> list[Any]:
        return [n["params"] for n in self.notifications if n["method"] == method]

    def progress(self, token: Any) -> list[Any]:
        return [params["value"] for params in self.told("$/progress") if params["token"] == token]

    async def until(self, holds: Callable[[], Any], timeout_s: float = 10) -> Any:
        """What `holds` returns once it is true; looks whenever a message has come."""
        async with asyncio.timeout(timeout_s):
            while not (result := holds()):
                self._changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.05)
        return result

    async def close(self) -> int:
        """Leave as an editor does; the server's exit code."""
        if self.process.returncode is None:
            await self.request("shutdown", None)
            self.notify("exit", None)
        return await asyncio.wait_for(self.process.wait(), 10)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._reader.cancel()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        with suppress(asyncio.IncompleteReadError):
            while True:
                header = await self.process.stdout.readuntil(b"\r\n\r\n")
                length = int(header.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                self._take(json.loads(await self.process.stdout.readexactly(length)))

    def _take(self, message: Json) -> None:
        if "method" not in message:
            self.responses.append(message)
            future = self._waiting.pop(message["id"], None)
            if future is not None and not future.done():
                if "error" in message:
                    future.set_exception(Refused(message["error"]))
                else:
                    future.set_result(message["result"])
        elif "id" in message:
            self.requests.append(message)
            self.send({"jsonrpc": "2.0", "id": message["id"], "result": self.answers.get(message["method"])})
        else:
            self.notifications.append(message)
        self._changed.set()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A small repository with what text tests need: é, an emoji, a tab, CRLF, an empty file."""
    folder = tmp_path / "projet é"
    folder.mkdir()
    (folder / "nightschool.toml").write_text("")
    (folder / "reader.py").write_bytes('def read(path):\n\treturn open(path)  # é😀\n\n\nX = "𝒳"\n'.encode())
    (folder / "dos.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    (folder / "empty.py").write_bytes(b"")
    return folder


@pytest.fixture
def script(workspace: Path) -> Script:
    passage = {"index": 1, "path": "reader.py", "start_line": 1, "end_line": 2, "score": 0.9, "symbol": "read"}
    passage |= {"language": "python", "text": "def read(path):\n\treturn open(path)  # é😀\n", "sha256": "ab"}
    citation = {"index": 1, "path": "reader.py", "start_line": 1, "end_line": 2, "commit": "abc1234def"}
    return Script(citations=[citation | {"sha256": "ab", "verified": True}], passages=[passage])


@pytest.fixture
def backend(workspace: Path, script: Script) -> Iterator[ScriptedBackend]:
    backend = ScriptedBackend(workspace, script)
    yield backend
    with suppress(OSError):
        backend.stop()


@pytest.fixture
def new_backend() -> Iterator[Callable[..., ScriptedBackend]]:
    """Make further backends; all are stopped at the end."""
    made: list[ScriptedBackend] = []

    def make(*args: Any, **more: Any) -> ScriptedBackend:
        made.append(ScriptedBackend(*args, **more))
        return made[-1]

    yield make
    for backend in made:
        with suppress(OSError):
            backend.stop()


@pytest.fixture
async def start_editor() -> AsyncIterator[Callable[..., Any]]:
    """Start the language server as an editor does, not yet initialized."""
    editors: list[Editor] = []

    async def start(
        *arguments: str,
        environment: dict[str, str] | None = None,
        cwd: Path = ROOT,
        door: tuple[str, ...] = ("server.lsp",),
    ) -> Editor:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *door, *arguments, "--stdio", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=cwd, env=environment, start_new_session=True, limit=1 << 26,
        )  # fmt: skip
        editors.append(Editor(process))
        return editors[-1]

    yield start
    for editor in editors:
        editor.kill()
        await editor.process.wait()


@pytest.fixture
async def editor(start_editor: Callable[..., Any], workspace: Path, backend: ScriptedBackend) -> Editor:
    """An editor on the workspace, its backend running."""
    editor: Editor = await start_editor()
    await editor.initialize(workspace)
    return editor
