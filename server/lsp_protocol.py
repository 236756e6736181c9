"""pygls 2.1.1 mended: what its protocol class gets wrong, overridden here and nowhere else.

Each override names what it mends; tests/editor/test_lsp_protocol.py holds one test for each, so that an upgrade that
breaks or obsoletes one is seen. It overrides private methods: pyproject.toml pins pygls.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.protocol import JsonRPCNotification, JsonRPCRequestMessage, LanguageServerProtocol, lsp_method
from pygls.protocol.json_rpc import JsonRPCResponseMessage

from server.lsp_documents import Documents
from server.lsp_hello import capabilities

if TYPE_CHECKING:
    from cattrs import Converter

    from server.lsp_server import NightschoolServer

log = logging.getLogger(__name__)

Json = dict[str, Any]
_PARSE_ERROR, _INVALID_REQUEST, _INVALID_PARAMS = -32700, -32600, -32602
_NOT_INITIALIZED = -32002


class RequestFailed(JsonRpcException):
    """A valid request that could not be done; the message is fit to show."""

    CODE = -32803  # LSP: RequestFailed
    MESSAGE = "Request failed"


class MendedProtocol(LanguageServerProtocol):
    """pygls' protocol, in which every request is answered exactly once and nothing is kept of what is done."""

    _server: NightschoolServer

    def __init__(self, server: NightschoolServer, converter: Converter) -> None:
        super().__init__(server, converter)
        self.documents = Documents()
        self._initialized = False
        # The requests that show work-done progress, by its token: the user may stop them there.
        self.working: dict[int | str, asyncio.Task[Any]] = {}
        self._answered_early: int | str | None = None
        # Requests that we sent. pygls keeps them with the client's own, so that a client's response could hit either.
        self._sent: set[int | str] = set()

    # What comes in. Mends: invalid params that nobody answers; `object_hook`, which breaks a message at any nested
    # object with a key "jsonrpc" and turns custom params into tuples with lost keys; silence after `shutdown`.

    def receive(self, body: bytes) -> None:
        """Handle one message. Whatever it holds, a request is answered, and nothing is raised."""
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            return self._refuse(None, _PARSE_ERROR, "not JSON")
        if not isinstance(message, dict):
            return self._refuse(None, _INVALID_REQUEST, "a message is one object")
        if "method" in message:
            return self._receive_call(message)
        if "result" in message or "error" in message:
            return self._receive_response(message)
        return self._refuse(_usable_id(message), _INVALID_REQUEST, "neither a method nor a result")

    def receive_first(self, body: bytes, is_answered: bool) -> None:
        """Handle the first message; one that `lsp_hello` has answered already gets no second answer."""
        if not is_answered:
            return self.receive(body)
        message = json.loads(body)
        self._answered_early = message["id"]
        try:
            params = self._structure(message)
        except JsonRpcException:
            # Capabilities that lsprotocol does not understand are taken for none; the rest holds.
            params = self._structure({**message, "params": _understood(message["params"])})
        self._run(types.INITIALIZE, self._answered_early, params)
        return None

    def _receive_call(self, message: Json) -> None:
        method, is_request, msg_id = message["method"], "id" in message, _usable_id(message)
        if is_request and (fault := self._fault(message, msg_id)) is not None:
            return self._refuse(msg_id, *fault)
        if not isinstance(method, str) or message.get("jsonrpc") != self.VERSION:
            return None
        if not is_request and not self._takes_notifications(method):
            return None
        try:
            params = self._structure(message)
        except JsonRpcException:
            log.info("params of %s do not fit", method)
            return self._refuse(msg_id, _INVALID_PARAMS, f"these are no params of {method}") if is_request else None
        self._run(method, msg_id if is_request else None, params)
        return None

    def _fault(self, message: Json, msg_id: int | str | None) -> tuple[int, str] | None:
        method = message["method"]
        if msg_id is None:
            return _INVALID_REQUEST, "an id is a string or an integer"
        if message.get("jsonrpc") != self.VERSION or not isinstance(method, str):
            return _INVALID_REQUEST, "not a JSON-RPC 2.0 request"
        if self._shutdown:
            return _INVALID_REQUEST, "the server is shutting down"
        if self._initialized == (method == types.INITIALIZE):
            return (
                (_INVALID_REQUEST, "initialized twice")
                if self._initialized
                else (_NOT_INITIALIZED, "initialize comes first")
            )
        if msg_id in self._request_futures:
            return _INVALID_REQUEST, f"request {msg_id!r} is still being worked on"
        return None

    def _takes_notifications(self, method: str) -> bool:
        return method == types.EXIT or (self._initialized and not self._shutdown)

    def _structure(self, message: Json) -> Any:
        """The params as lsprotocol's type, or, for a method of ours, as the plain JSON that was sent."""
        kind = self.get_message_type(message["method"])
        if kind is None:
            return message.get("params")
        try:
            return self._converter.structure(message, kind).params
        except Exception as error:  # cattrs raises anything that a hostile message can bring about
            raise JsonRpcInvalidParams() from error

    def _run(self, method: str, msg_id: int | str | None, params: Any) -> None:
        context = contextvars.copy_context()
        if msg_id is None:
            context.run(self._handle_notification, method, params)
        else:
            context.run(self._handle_request, msg_id, method, params)

    def _receive_response(self, message: Json) -> None:
        msg_id = message.get("id")
        if not isinstance(msg_id, (int, str)) or msg_id not in self._sent:
            return
        self._sent.discard(msg_id)
        future, result_type = self._request_futures.pop(msg_id, None), self._result_types.pop(msg_id, None)
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(RequestFailed(str(message["error"])))
            return
        try:
            future.set_result(self._converter.structure(message, result_type or JsonRPCResponseMessage).result)
        except Exception as error:
            future.set_exception(error)

    def _send_response(self, msg_id: int | str, result: Any = None, error: types.ResponseError | None = None) -> None:
        if msg_id == self._answered_early:
            self._answered_early = None
            return
        super()._send_response(msg_id, result, error)

    def _handle_cancel_notification(self, msg_id: Any) -> None:
        # lsprotocol lets any JSON through as an id; and only the client's own requests are its to cancel.
        if isinstance(msg_id, (int, str)) and msg_id not in self._sent:
            super()._handle_cancel_notification(msg_id)

    def _refuse(self, msg_id: int | str | None, code: int, why: str) -> None:
        self._send_data({"jsonrpc": self.VERSION, "id": msg_id, "error": {"code": code, "message": why}})

    # What is kept. Mends: one future kept for every notification and every step of a built-in handler.

    def _execute_handler(
        self,
        msg_id: int | str,
        handler: Callable[..., Any],
        callback: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        super()._execute_handler(msg_id, handler, callback, args, kwargs)
        future = self._request_futures.get(msg_id)
        if future is not None:
            future.add_done_callback(lambda done: self._forget(msg_id, done))

    def _run_generator(self, future: Any, *, gen: Any, result_future: Any) -> None:
        # A step that was cancelled is a result too; pygls lets its CancelledError out into the event loop.
        if future is not None and future.cancelled():
            gen.close()
            result_future.cancel()
            return
        super()._run_generator(future, gen=gen, result_future=result_future)

    def _forget(self, msg_id: int | str, done: object) -> None:
        if self._request_futures.get(msg_id) is done:
            del self._request_futures[msg_id]

    def send_request(
        self, method: str, params: Any = None, callback: Any = None, msg_id: int | str | None = None
    ) -> Any:
        future = super().send_request(method, params, callback, msg_id)
        self._sent.update(key for key, kept in self._request_futures.items() if kept is future)
        return future

    def notify_plain(self, method: str, params: Json) -> None:
        """A notification with params that are JSON already: a fifth of the cost, for the deltas of an answer."""
        self._send_data({"jsonrpc": self.VERSION, "method": method, "params": params})

    @property
    def in_flight(self) -> int:
        return len(self._request_futures)

    # Built-in methods. Mends: a cancelled command runs on; `shutdown` changes the table it iterates over; `exit`
    # waits for a thread that reads stdin; documents (see lsp_text).

    @lsp_method(types.WORKSPACE_EXECUTE_COMMAND)
    async def lsp_workspace__execute_command(self, params: types.ExecuteCommandParams) -> Any:  # type: ignore[override]
        command = self.fm.commands.get(params.command)
        if command is None:
            raise JsonRpcInvalidParams(f"there is no command {params.command}")
        return await command(list(params.arguments or []))

    @lsp_method(types.SHUTDOWN)
    async def lsp_shutdown(self, *_: Any) -> None:  # type: ignore[override]
        self._shutdown = True
        this: Any = asyncio.current_task()
        for future in list(self._request_futures.values()):
            if future is not this:
                future.cancel()
        await self._server.close()

    @lsp_method(types.WINDOW_WORK_DONE_PROGRESS_CANCEL)
    def lsp_work_done_progress_cancel(self, params: types.WorkDoneProgressCancelParams) -> None:
        if isinstance(params.token, (int, str)) and (task := self.working.get(params.token)) is not None:
            task.cancel()

    @lsp_method(types.EXIT)
    def lsp_exit(self, *_: Any) -> None:  # type: ignore[override]
        self._server.stop(0 if self._shutdown else 1)

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        document = params.text_document
        encoding = str(getattr(self.workspace.position_encoding, "value", self.workspace.position_encoding))
        self.documents.open(document.uri, document.language_id, document.version, document.text, encoding)

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        document = self.documents.get(params.text_document.uri)
        if document is None:
            log.info("a change of a document that is not open is ignored")
            return
        for change in params.content_changes:
            if isinstance(change, types.TextDocumentContentChangePartial):
                place = change.range
                start = document.text.point(place.start.line, place.start.character)
                document.text.replace(start, document.text.point(place.end.line, place.end.character), change.text)
            else:
                document.set_text(change.text)
        document.version = params.text_document.version

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        self.documents.close(params.text_document.uri)

    @lsp_method(types.INITIALIZE)
    def lsp_initialize(self, params: types.InitializeParams) -> Any:
        result = yield from super().lsp_initialize(params)
        self._initialized = True
        encoding = str(getattr(self.workspace.position_encoding, "value", self.workspace.position_encoding))
        return {
            "capabilities": capabilities(encoding, self._server.options),
            "serverInfo": _to_json(result.server_info),
        }


def _understood(params: Json) -> Json:
    """What of `initialize` can be read whatever else is in it."""
    pid, root, folders = (params.get(name) for name in ("processId", "rootUri", "workspaceFolders"))
    named = (
        [f for f in folders if isinstance(f, dict) and isinstance(f.get("uri"), str)]
        if isinstance(folders, list)
        else []
    )
    return {
        "processId": pid if isinstance(pid, int) else None,
        "rootUri": root if isinstance(root, str) else None,
        "workspaceFolders": [{"uri": folder["uri"], "name": ""} for folder in named],
        "initializationOptions": params.get("initializationOptions"),
        "capabilities": {},
    }


def _to_json(info: types.ServerInfo | None) -> Json:
    return {"name": info.name, "version": info.version} if info else {}


def _usable_id(message: Json) -> int | str | None:
    msg_id = message.get("id")
    return msg_id if isinstance(msg_id, (int, str)) and not isinstance(msg_id, bool) else None


__all__ = ["JsonRPCNotification", "JsonRPCRequestMessage", "MendedProtocol", "RequestFailed"]
