"""The language server: pygls' server class, its life over stdio, and the handlers, which translate and delegate.

Its import must stay light (pygls alone): an editor waits for `initialize`. What needs HTTP is in `lsp_session`.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.protocol import default_converter

from server.lsp_documents import Folders, path_of
from server.lsp_progress import BackendProgress, request_progress
from server.lsp_protocol import MendedProtocol, RequestFailed
from server.lsp_types import Options, StatusResult, from_wire
from server.lsp_wire import Framing, StdinReader, StdoutWriter

log = logging.getLogger(__name__)

Kind = TypeVar("Kind")
# How often we look whether the process that started us lives, beside the end of stdin. Seconds.
_PARENT_POLL_S = 2.0
_INTERNAL_ERROR = -32603
# Helix opens documents from 24.07 on and says so only from 2025-11 on (helix-editor/helix#14892).
_OPEN_DOCUMENTS_UNSAID = frozenset({"helix"})


class NightschoolServer(LanguageServer):
    """One editor's server. `session` is what the handlers delegate to; it comes with the first need of it."""

    protocol: MendedProtocol

    def __init__(self, version: str, fallback: Path | None) -> None:
        super().__init__("nightschool", version, protocol_cls=MendedProtocol, converter_factory=default_converter)
        self.folders = Folders()
        self.options = Options()
        self.client_name = ""
        self._fallback = fallback
        self._session: asyncio.Task[Any] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._work: dict[str, BackendProgress] = {}
        self._stopped: asyncio.Future[int] | None = None
        self._writer: StdoutWriter | None = None

    # Life

    async def run(self, stdin: int, stdout: int, framing: Framing, first: bytes, is_answered: bool) -> int:
        """Serve until `exit`, the end of stdin, a client that died or a broken stdout; the exit code.

        `first` is the first message, read already together with what `framing` holds, and answered if `is_answered`.
        """
        loop = asyncio.get_running_loop()
        self._stopped = loop.create_future()
        self._writer = StdoutWriter(stdout, lambda: self._stop_soon(loop))
        self.protocol.set_writer(self._writer)
        self.protocol.receive_first(first, is_answered)
        StdinReader(stdin, framing, loop, self.protocol.receive, lambda: self.stop(1))
        code = await self._stopped
        await self.close()
        self._writer.close()
        return code

    def _stop_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """From another thread: stdout is broken."""
        with suppress(RuntimeError):  # the loop has gone before
            loop.call_soon_threadsafe(self.stop, 1)

    def stop(self, code: int) -> None:
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(code)

    async def close(self) -> None:
        """End everything that runs in the background."""
        session, self._session = self._session, None
        if session is not None and session.done() and not session.cancelled():
            await session.result().close()
        for task in [*self._background, *([session] if session is not None else [])]:
            task.cancel()

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("in the background: %r", task.exception())

    async def session(self) -> Any:
        """What the handlers delegate to (`lsp_session.Session`), imported off the event loop at the first need."""
        if self._session is None:
            self._session = asyncio.create_task(self._open_session())
        return await asyncio.shield(self._session)

    async def _open_session(self) -> Any:
        module = await asyncio.to_thread(importlib.import_module, "server.lsp_session")
        return module.Session(self)

    # To the editor

    def backlog(self) -> int:
        """Bytes that the editor has not read yet."""
        return self._writer.backlog if self._writer is not None else 0

    def say(self, severity: types.MessageType, text: str) -> None:
        self.window_show_message(types.ShowMessageParams(severity, text))

    def work(self, token: str | int | None, title: str) -> AbstractAsyncContextManager[None]:
        return request_progress(self.protocol, token, title)

    def opens_documents(self) -> bool:
        """Whether the editor opens a document when asked to (`window/showDocument`)."""
        window = self.client_capabilities.window
        says_so = bool(window and window.show_document and window.show_document.support)
        return says_so or self.client_name in _OPEN_DOCUMENTS_UNSAID

    async def show_work(self, status: StatusResult) -> None:
        work = self._work.setdefault(status.workspace, BackendProgress(self.protocol, self._shows_progress))
        await work.show(status)

    def _shows_progress(self) -> bool:
        window = self.client_capabilities.window
        return bool(window and window.work_done_progress)

    def report_server_error(self, error: Exception, source: Any) -> None:
        # pygls shows these to the user and logs what was in the message; a name is enough for us.
        level = (
            logging.INFO if isinstance(error, JsonRpcException) and error.code != _INTERNAL_ERROR else logging.WARNING
        )
        log.log(level, "%s: %s", getattr(source, "__name__", source), type(error).__name__)

    # From the editor

    def begin(self, params: types.InitializeParams) -> None:
        """Take over what `initialize` says: folders, options, whose child we are."""
        self.options = from_wire(Options, params.initialization_options or {})
        self.client_name = params.client_info.name if params.client_info else ""
        named = [folder.uri for folder in params.workspace_folders or []]
        if not named and params.root_uri:
            named = [params.root_uri]
        paths = [path for uri in named if (path := path_of(uri)) is not None]
        if not paths and params.root_path:
            paths = [Path(params.root_path)]
        for path in paths or ([self._fallback] if self._fallback is not None else []):
            self.folders.add(path)

    async def watch_parent(self) -> None:
        """Stop when the editor's process has gone without closing stdin (a shell between us may hold it open)."""
        parent = self.process_id
        while parent is not None and _is_alive(parent):
            await asyncio.sleep(_PARENT_POLL_S)
        if parent is not None:
            self.stop(1)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


Handler = Callable[..., Coroutine[Any, Any, Any]]
__all__ = ["NightschoolServer", "RequestFailed"]
