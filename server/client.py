"""Door to a running backend: how the command line, the language server and scripts find it, start it and ask it.

Imports nothing heavy: the language server must be ready in half a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx
import psutil

from indexer.workspace import Workspace

Json = dict[str, Any]
BACKEND_FILE = "backend.json"
TOKEN_FILE = "token"  # noqa: S105 - a file's name


class BackendUnavailable(Exception):
    """No backend answers, or it refused; the message is fit to show."""


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event of `/ask`: `name` is notice, text, done or error."""

    name: str
    data: Json


class Backend:
    """A running backend of one workspace. An async context manager; every call raises `BackendUnavailable`."""

    def __init__(self, url: str, token: str, pid: int, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url
        self.pid = pid
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            # An answer may wait for an engine that takes two minutes to start; connecting never takes long on loopback.
            timeout=httpx.Timeout(600, connect=5),
            transport=transport,
            trust_env=False,  # a proxy variable must not send questions about private code elsewhere
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, /, **params: str | int) -> Json:
        return await self._call("GET", path, params=params)

    async def post(self, path: str, body: Json | None = None) -> Json:
        return await self._call("POST", path, json=body or {})

    async def ask(self, body: Json) -> AsyncGenerator[Event]:
        """The events of an answer. Closing the iterator drops the connection, which stops the generation."""
        try:
            async with self._http.stream(
                "POST", "/ask", json=body, headers={"Accept": "text/event-stream"}
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise BackendUnavailable(_refusal(response))
                async with aclosing(_server_sent_events(response)) as events:
                    async for event in events:
                        yield event
        except httpx.HTTPError as error:
            raise BackendUnavailable(f"the backend at {self.url} broke off: {error or type(error).__name__}") from error

    async def _call(self, method: str, path: str, **options: Any) -> Json:
        try:
            response = await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise BackendUnavailable(f"no backend answers at {self.url}: {error or type(error).__name__}") from error
        # /readyz says what is missing with 503: an answer, not a failure.
        if response.is_error and not (path == "/readyz" and response.status_code == 503):
            raise BackendUnavailable(_refusal(response))
        body: Json = response.json()
        return body


async def _server_sent_events(response: httpx.Response) -> AsyncGenerator[Event]:
    name = "message"
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield Event(name, json.loads(value))


def _refusal(response: httpx.Response) -> str:
    try:
        body = response.json()
        error = body.get("error") or body.get("detail") or body
        return str(error["message"] if isinstance(error, dict) and "message" in error else error)
    except (json.JSONDecodeError, AttributeError):
        return f"the backend answered {response.status_code}"


def page_address(workspace: Workspace, url: str) -> str:
    """Where the web page of the backend at `url` opens, with the token: for its user's eyes only, never for a log."""
    return f"{url}/ui#token={quote((workspace.state / TOKEN_FILE).read_text().strip())}"


def read_backend(workspace: Workspace) -> Backend | None:
    """The backend that says it serves `workspace` and whose process lives; None when there is none. Asks nobody."""
    try:
        about = json.loads((workspace.state / BACKEND_FILE).read_text())
        token = (workspace.state / TOKEN_FILE).read_text().strip()
        pid, url = int(about["pid"]), str(about["url"])
        started = about.get("process_started")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Backend(url, token, pid) if _is_alive(pid, started) else None


async def find_backend(workspace: Workspace) -> Backend | None:
    """The backend of `workspace` if it answers; None when there is none or what answers is somebody else."""
    backend = read_backend(workspace)
    if backend is None:
        return None
    try:
        alive = await backend.get("/readyz")
        if alive.get("workspace") == str(workspace.root):
            return backend
    except BackendUnavailable:
        pass
    await backend.close()
    return None


async def start_backend(
    workspace: Workspace, tell: Callable[[str], None] = lambda _: None, timeout_s: float = 60
) -> Backend:
    """Find the backend of `workspace` or start one that outlives us; wait until it answers, not until its engine does.

    What it writes goes to `.nightschool/logs/serve.log`. Raises `BackendUnavailable` with that log's last line.
    """
    if (found := await find_backend(workspace)) is not None:
        return found
    workspace.make_state_folder()
    workspace.logs.mkdir(exist_ok=True)
    log_file = workspace.logs / "serve.log"
    tell(f"starting the backend of {workspace.root} (log: {log_file})")
    process = await asyncio.to_thread(_spawn, workspace, log_file)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (found := await find_backend(workspace)) is not None:
            return found
        if process.poll() is not None:
            # Somebody else may have won the race to start it; theirs is then the one to use.
            if (found := await find_backend(workspace)) is not None:
                return found
            raise BackendUnavailable(f"the backend ended at once: {_last_line(log_file)}")
        await asyncio.sleep(0.1)
    raise BackendUnavailable(f"the backend did not answer within {timeout_s:.0f} s; see {log_file}")


def _spawn(workspace: Workspace, log_file: Path) -> subprocess.Popen[bytes]:
    with log_file.open("ab") as log:
        return subprocess.Popen(
            # -P: an editor starts us in the repository, whose own secrets.py or server/ would be imported for ours.
            [sys.executable, "-P", "-m", "nightschool", "serve", "--workspace", str(workspace.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _is_alive(pid: int, started: float | None = None) -> bool:
    """Whether the process lives, and is the one that `started` then (seconds since 1970): pids are used again."""
    try:
        process = psutil.Process(pid)
        is_it = started is None or abs(process.create_time() - started) < 2
        return bool(is_it and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _last_line(log_file: Path) -> str:
    lines = log_file.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"nothing in {log_file}"


def stop_backend(workspace: Workspace, timeout_s: float = 30) -> bool:
    """End the backend of `workspace` and wait until it is gone; False when none was running."""
    backend = read_backend(workspace)
    if backend is None:
        return False
    os.kill(backend.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while _is_alive(backend.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    if _is_alive(backend.pid):
        raise BackendUnavailable(f"the backend (pid {backend.pid}) does not end; see {workspace.logs / 'serve.log'}")
    return True
