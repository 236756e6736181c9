"""The language server's handlers: they translate and delegate. Every one is async and waits for nothing but I/O."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from server.lsp_documents import path_of
from server.lsp_hello import ACTION_KINDS, VERSION
from server.lsp_server import NightschoolServer
from server.lsp_types import (
    ASK,
    SEARCH,
    STATUS,
    AskParams,
    BadParams,
    OpenParams,
    SearchParams,
    StatusParams,
    from_wire,
    to_wire,
)
from server.lsp_wire import Framing


def make_server(fallback: Path | None = None) -> NightschoolServer:
    """A server with every handler. `fallback` is the folder for an editor that names none."""
    server = NightschoolServer(VERSION, fallback)
    _add_lifecycle(server)
    _add_own_methods(server)
    _add_commands(server)
    _add_code_actions(server)
    return server


def _add_lifecycle(server: NightschoolServer) -> None:
    @server.feature(types.INITIALIZE)
    def initialize(params: types.InitializeParams) -> None:
        try:
            server.begin(params)
        except BadParams as error:
            raise JsonRpcInvalidParams(str(error).replace("params", "initializationOptions", 1)) from error
        _add_completions(server)

    @server.feature(types.INITIALIZED)
    async def initialized(_: types.InitializedParams) -> None:
        server.in_background(server.watch_parent())
        await server.session()

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    async def did_save(params: types.DidSaveTextDocumentParams) -> None:
        (await server.session()).poke(params.text_document.uri)

    @server.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
    async def folders_changed(params: types.DidChangeWorkspaceFoldersParams) -> None:
        for change, folders in (
            (server.folders.remove, params.event.removed),
            (server.folders.add, params.event.added),
        ):
            for path in (path_of(folder.uri) for folder in folders):
                if path is not None:
                    change(path)
        (await server.session()).follow_folders()


def _add_own_methods(server: NightschoolServer) -> None:
    @server.feature(ASK)
    async def ask(params: Any) -> Any:
        session = await server.session()
        return await _answered(AskParams, params, session.ask)

    @server.feature(SEARCH)
    async def search(params: Any) -> Any:
        session = await server.session()
        return await _answered(SearchParams, params, session.search)

    @server.feature(STATUS)
    async def status(params: Any) -> Any:
        session = await server.session()
        return await _answered(StatusParams, params or {}, session.status)


def _add_commands(server: NightschoolServer) -> None:
    @server.command("nightschool.ask")
    async def ask(arguments: list[Any]) -> Any:
        asked = arguments[0] if arguments else {}
        session = await server.session()
        return await _answered(AskParams, {"question": asked} if isinstance(asked, str) else asked, session.ask)

    @server.command("nightschool.answer")
    async def answer(arguments: list[Any]) -> Any:
        session = await server.session()
        return await _answered(session.actions.params_type, arguments[0] if arguments else {}, session.actions.answer)

    @server.command("nightschool.open")
    async def open_place(arguments: list[Any]) -> Any:
        session = await server.session()
        return await _answered(OpenParams, arguments[0] if arguments else {}, session.open)

    @server.command("nightschool.status")
    async def status(arguments: list[Any]) -> None:
        await (await server.session()).tell_status()

    @server.command("nightschool.start")
    async def start(arguments: list[Any]) -> Any:
        session = await server.session()
        return await _answered(StatusParams, arguments[0] if arguments else {}, session.start)

    @server.command("nightschool.rollback")
    async def rollback(arguments: list[Any]) -> Any:
        session = await server.session()
        return await _answered(StatusParams, arguments[0] if arguments else {}, session.roll_back)


def _add_code_actions(server: NightschoolServer) -> None:
    options = types.CodeActionOptions(code_action_kinds=list(ACTION_KINDS), resolve_provider=True)

    @server.feature(types.TEXT_DOCUMENT_CODE_ACTION, options)
    async def code_actions(params: types.CodeActionParams) -> list[types.CodeAction]:
        return (await server.session()).actions.offered(params)  # type: ignore[no-any-return]

    @server.feature(types.CODE_ACTION_RESOLVE)
    async def resolve(action: types.CodeAction) -> types.CodeAction:
        session = await server.session()
        return await _valid(session.actions.resolve(action))  # type: ignore[no-any-return]


def _add_completions(server: NightschoolServer) -> None:
    """Ghost text, and the plain completions that stand in for it: only what the editor's options ask for."""
    if server.options.inline_completion:
        # Without options pygls advertises nothing.
        @server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
        async def inline(params: types.InlineCompletionParams) -> types.InlineCompletionList:
            return await (await server.session()).inline_completion(params)  # type: ignore[no-any-return]

    if server.options.completion:

        @server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions())
        async def completion(params: types.CompletionParams) -> types.CompletionList:
            return await (await server.session()).completion(params)  # type: ignore[no-any-return]

    # Copilot's names: editors that speak to its server send them.
    @server.feature("textDocument/didShowCompletion")
    async def shown(_: Any) -> None:
        (await server.session()).inline.shown += 1

    @server.feature("textDocument/didPartiallyAcceptCompletion")
    async def accepted(_: Any) -> None:
        (await server.session()).inline.accepted += 1


async def _answered(kind: type[Any], params: Any, method: Callable[[Any], Awaitable[Any]]) -> Any:
    return to_wire(await _valid(_call(kind, params, method)))


async def _call(kind: type[Any], params: Any, method: Callable[[Any], Awaitable[Any]]) -> Any:
    return await method(from_wire(kind, params))


async def _valid(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except BadParams as error:
        raise JsonRpcInvalidParams(str(error)) from error


def serve(fallback: Path | None, stdout: int, framing: Framing, first: bytes, is_answered: bool) -> int:
    """Serve one editor, whose `first` message was read (and, if so, answered) already; the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # pygls logs whole messages, which hold private code.
    logging.getLogger("pygls").setLevel(logging.CRITICAL)
    return asyncio.run(make_server(fallback).run(0, stdout, framing, first, is_answered))
