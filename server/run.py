"""`nightschool serve`: the backend behind uvicorn, from the first line of log to the last process ended."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import uvicorn
from starlette.types import ASGIApp
from uvicorn.loops.auto import auto_loop_factory

from indexer.workspace import Workspace, write_atomically
from server.allocator import give_memory_back
from server.auth import LOOPBACK_NAMES, read_or_make_token
from server.backend import Backend, open_backend
from server.client import BACKEND_FILE, page_address, read_backend
from server.console import err, say
from server.http import make_app
from server.logs import configure_logging
from server.settings import ServerSettings

log = logging.getLogger(__name__)

PORT_FILE = "port"
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - refused, but for a proxy with TLS in front


class CannotServe(Exception):
    """The backend cannot start; the message says what to do."""


def run_backend(workspace: Workspace, beside: Callable[[], Awaitable[None]] | None = None) -> None:
    """Serve `workspace` until SIGINT or SIGTERM; `beside` runs as long (what starts the nights), and is cancelled then.

    Raises `CannotServe` and what `open_backend` raises.
    """
    settings = ServerSettings.read(workspace)
    configure_logging(settings.log_json)
    check_host(settings)
    if (running := read_backend(workspace)) is not None and running.pid != os.getpid():
        raise CannotServe(f"a backend of {workspace.root} runs already: {running.url} (pid {running.pid})")
    give_memory_back()
    # uvloop where it is installed (vLLM brings it): 9.8 ms of CPU for an answer of 24 tokens that took 12.7.
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(_serve(workspace, settings, beside))


def check_host(settings: ServerSettings) -> None:
    """Raise `CannotServe` for an address at which others could reach us, and the token, without TLS in between."""
    if settings.host in LOOPBACK_NAMES:
        return
    if settings.host not in EVERYWHERE:
        raise CannotServe(f"[server] host {settings.host}: give 127.0.0.1, or 0.0.0.0 with behind_tls")
    if not settings.behind_tls:
        raise CannotServe(
            f"[server] host {settings.host} is not loopback: put a proxy with TLS in front of 127.0.0.1, "
            "or name the proxy's host in [server] behind_tls"
        )


async def _serve(workspace: Workspace, settings: ServerSettings, beside: Callable[[], Awaitable[None]] | None) -> None:
    token = read_or_make_token(workspace)
    with open_listener(settings, workspace.state / PORT_FILE) as listener:
        async with open_backend(workspace, say) as backend:
            server = _Server(uvicorn_config(make_app(backend, token)))
            _announce(backend, listener)
            try:
                async with _running(beside):
                    await server.serve(sockets=[listener])
            finally:
                (workspace.state / BACKEND_FILE).unlink(missing_ok=True)
                say("stopping")


def uvicorn_config(app: ASGIApp, port: int = 0) -> uvicorn.Config:
    """How the application is served. Who the peer is comes from its socket: uvicorn by itself believes X-Forwarded-For
    from loopback, where anybody could then write the address of `trusted_proxy`."""
    return uvicorn.Config(app, port=port, log_level="warning", lifespan="on", ws="none", proxy_headers=False)


@asynccontextmanager
async def _running(beside: Callable[[], Awaitable[None]] | None) -> AsyncIterator[None]:
    """Run `beside` while inside; that it fails is logged and ends nothing else."""

    async def run() -> None:
        try:
            if beside is not None:
                await beside()
        except Exception:  # the edge: the backend serves on
            log.exception("what starts the nights has ended")

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class _Server(uvicorn.Server):
    """uvicorn that ends open streams when asked to stop, instead of waiting for their readers, and lets us tidy up."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT, SIGTERM, and on SIGHUP (the terminal was closed). uvicorn's own raises them again when it has
        stopped, which would end us before the engine and `backend.json` are gone."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.force_exit = True
        await super().shutdown(sockets)
        await self.lifespan.shutdown()  # which uvicorn leaves out when it is forced


def open_listener(settings: ServerSettings, last: Path) -> socket.socket:
    """A listening socket on the port that the settings say; for 0 on the port in the file `last` if that is free.

    So addresses that somebody has kept, and what the browser keeps for the page, hold after a restart. Raises
    `CannotServe` when the port is in use.
    """
    for port in [settings.port] if settings.port else [_last_port(last), 0]:
        listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, port))
            # At once: a port that is bound and does not listen yet can be bound by another too.
            listener.listen()
        except OSError:
            listener.close()
            continue
        write_atomically(last, f"{listener.getsockname()[1]}\n")
        return listener
    raise CannotServe(f"port {settings.port} is in use: give another with --port, or 0 for a free one")


def _last_port(file: Path) -> int:
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        return 0
    return port if 1024 <= port <= 65535 else 0


def _announce(backend: Backend, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    host = "127.0.0.1" if host in EVERYWHERE else host  # our own clients come from here
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    about: dict[str, Any] = {"pid": os.getpid(), "process_started": psutil.Process().create_time(), "url": url}
    about["started_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_atomically(backend.workspace.state / BACKEND_FILE, json.dumps(about) + "\n")
    say(f"serving {backend.workspace.root} at {url} (token in {backend.workspace.state / 'token'})")
    # The address holds the token: on a terminal only, because elsewhere this line ends in a log.
    say(f"page: {page_address(backend.workspace, url) if err.is_terminal else 'nightschool ui opens it'}")
