"""One editor session: its open folders and documents, a link to each workspace's backend, and what can be asked.

Imported after the editor's `initialize` was answered: it needs httpx, which takes a tenth of a second.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from lsprotocol import types

from indexer.workspace import Workspace
from server.client import BackendUnavailable
from server.lsp_actions import Actions
from server.lsp_ask import (
    MAX_BUFFER,
    Asked,
    answer_for_editor,
    ask_body,
    passage_for_editor,
    stream_answer,
    unsaved_text,
)
from server.lsp_backends import Kind, Link
from server.lsp_inline import Inline
from server.lsp_protocol import RequestFailed
from server.lsp_status import Watch, as_lines, read_status
from server.lsp_stream import DeltaStream
from server.lsp_text import Point
from server.lsp_types import (
    STATUS,
    AskParams,
    AskResult,
    DocumentId,
    InlineState,
    OpenParams,
    SearchParams,
    SearchResult,
    StatusParams,
    StatusResult,
    to_wire,
)

if TYPE_CHECKING:
    from server.lsp_server import NightschoolServer

log = logging.getLogger(__name__)

_SEVERITY = {
    "stopped": types.MessageType.Warning,
    "starting": types.MessageType.Info,
    "running": types.MessageType.Info,
    "failed": types.MessageType.Error,
}


class Session:
    """What the handlers of `lsp_server` delegate to. Raises `RequestFailed` with a message fit to show."""

    def __init__(self, server: NightschoolServer) -> None:
        self.server = server
        self.folders = server.folders
        self.documents = server.protocol.documents
        self.options = server.options
        self._links: dict[Workspace, Link] = {}
        self._watches: dict[Workspace, Watch] = {}
        self._statuses: dict[Workspace, StatusResult] = {}
        self.actions = Actions(self)
        self.inline = Inline(self)
        self.follow_folders()

    async def close(self) -> None:
        for watch in self._watches.values():
            watch.stop()
        for link in self._links.values():
            await link.close()

    # Workspaces

    def follow_folders(self) -> None:
        """One link and one watch for each open workspace."""
        wanted = self.folders.workspaces()
        for workspace in [w for w in self._links if w not in wanted]:
            self._watches.pop(workspace).stop()
            link = self._links.pop(workspace)
            self.server.in_background(link.close())
        for workspace in wanted:
            self.link(workspace)

    def link(self, workspace: Workspace) -> Link:
        if workspace not in self._links:
            link = Link(workspace, self._tell)
            self._links[workspace] = link
            self._watches[workspace] = Watch(lambda: self.look(link), self._on_status)
            if self.options.start_backend == "on-open":
                self.server.in_background(self._start(link))
        return self._links[workspace]

    def poke(self, uri: str) -> None:
        """Something has happened to this document that changes the status: a save."""
        place = self.folders.locate(uri)
        if place is not None and place.workspace in self._watches:
            self._watches[place.workspace].poke()

    def workspace_of(self, document: DocumentId | None) -> Workspace:
        """The workspace to ask about `document`; for one that lies in none, the first that is open."""
        place = self.folders.locate(document.uri) if document else None
        if place is not None:
            return place.workspace
        workspaces = self.folders.workspaces()
        if not workspaces:
            raise RequestFailed("no folder is open: open the folder of a repository to ask about it")
        return workspaces[0]

    # Asking

    async def ask(self, params: AskParams) -> AskResult:
        document = self.documents.get(params.text_document.uri) if params.text_document else None
        place = self.folders.locate(params.text_document.uri) if params.text_document else None
        asked = Asked(params, self.workspace_of(params.text_document), document, place)
        stream = DeltaStream(params.partial_result_token, self.server.protocol.notify_plain, self.server.backlog)
        body = await ask_body(asked)
        if "overlays" in self.link(asked.workspace).accepts:
            body["overlays"] = await self._overlays(asked)
        foreign = "This file is in no open folder: answered without your code." if asked.is_foreign else ""
        if foreign:
            stream.notice(foreign)
        async with self.server.work(params.work_done_token, "nightschool is answering"):
            try:
                events = self.link(asked.workspace).events(body, start=self.options.start_backend != "never")
                done = await stream_answer(events, stream)
            except BackendUnavailable as error:
                raise RequestFailed(str(error)) from error
        if foreign:
            done["notices"] = [foreign, *done["notices"]]
        return answer_for_editor(done, asked.workspace, self.folders.uri)

    async def _overlays(self, asked: Asked) -> dict[str, str]:
        """The other unsaved documents of the workspace, the last opened first, as many as a request may hold."""
        overlays: dict[str, str] = {}
        left = MAX_BUFFER
        for document in reversed(list(self.documents)):
            place = self.folders.locate(document.uri)
            if document is asked.document or place is None or place.workspace != asked.workspace:
                continue
            text = await unsaved_text(document, place)
            if text is not None and len(text) <= left:
                overlays[place.path] = text
                left -= len(text)
        return overlays

    async def search(self, params: SearchParams) -> SearchResult:
        workspace = self.workspace_of(params.text_document)
        try:
            found = await self.link(workspace).get("/search", q=params.query, k=params.k)
        except BackendUnavailable as error:
            raise RequestFailed(str(error)) from error
        passages = [
            passage_for_editor(passage, n, workspace, self.folders.uri)
            for n, passage in enumerate(found["passages"], 1)
        ]
        return SearchResult(tuple(passages), float(found["took_ms"]))

    async def open(self, params: OpenParams) -> bool:
        """Open a citation's lines in the editor; whether it did. Only files of an open folder."""
        if self.folders.locate(params.uri) is None:
            raise RequestFailed("only files of an open folder are opened")
        if not self.server.opens_documents():
            raise RequestFailed("this editor does not open documents when asked")
        start, end = (types.Position(at.line, at.character) for at in (params.range.start, params.range.end))
        shown = types.ShowDocumentParams(params.uri, take_focus=True, selection=types.Range(start, end))
        return (await self.server.window_show_document_async(shown)).success

    # Completions

    async def inline_completion(self, params: types.InlineCompletionParams) -> types.InlineCompletionList:
        invoked = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
        chosen = params.context.selected_completion_info
        if chosen is not None:
            return await self._after_choice(params.text_document.uri, chosen, invoked)
        text = await self._complete(params.text_document.uri, params.position, invoked)
        here = types.Range(params.position, params.position)
        return types.InlineCompletionList([types.InlineCompletionItem(text, range=here)] if text else [])

    async def _after_choice(
        self, uri: str, chosen: types.SelectedCompletionInfo, invoked: bool
    ) -> types.InlineCompletionList:
        """What follows the item that is selected in the editor's list: shown is only what begins with that item."""
        document = self.documents.get(uri)
        if document is None or "\n" in chosen.text or "\r" in chosen.text:
            return types.InlineCompletionList([])
        start, end = (document.text.point(at.line, at.character) for at in (chosen.range.start, chosen.range.end))
        cursor = Point(start.line, start.column + len(chosen.text))
        edited = document.edited(start, end, chosen.text)
        text = await self.inline.complete(edited, self.folders.locate(uri), cursor, invoked)
        item = types.InlineCompletionItem(chosen.text + text, range=chosen.range)
        return types.InlineCompletionList([item] if text else [])

    async def completion(self, params: types.CompletionParams) -> types.CompletionList:
        """The same text as a plain completion, for editors without ghost text."""
        text = await self._complete(params.text_document.uri, params.position, invoked=True)
        edit = types.TextEdit(types.Range(params.position, params.position), text)
        label = text.strip().split("\n")[0][:60]
        item = types.CompletionItem(label, detail="nightschool", text_edit=edit, filter_text=text, sort_text="~")
        return types.CompletionList(is_incomplete=True, items=[item] if text else [])

    async def _complete(self, uri: str, position: types.Position, invoked: bool) -> str:
        document = self.documents.get(uri)
        if document is None:
            return ""
        cursor = document.text.point(position.line, position.character)
        return await self.inline.complete(document, self.folders.locate(uri), cursor, invoked)

    # Status

    async def status(self, params: StatusParams) -> StatusResult:
        return await self.look(self.link(self.workspace_of(params.text_document)))

    async def look(self, link: Link) -> StatusResult:
        is_wanted = self.options.inline_completion or self.options.completion
        wanted = InlineState(is_wanted, "" if is_wanted else "switched off")
        status = await read_status(link, wanted)
        self._statuses[link.workspace] = status
        return status

    def last_status(self, workspace: Workspace) -> StatusResult | None:
        """What the last look found; None before the first."""
        return self._statuses.get(workspace)

    async def tell_status(self) -> None:
        """The status as a message, for editors that have no place for it."""
        for workspace in self.folders.workspaces():
            lines = as_lines(await self.look(self.link(workspace)))
            self.server.say(types.MessageType.Info, f"{workspace.root.name}: " + "; ".join(lines))

    async def start(self, params: StatusParams) -> StatusResult:
        """Start the backend of a workspace (or find it running)."""
        link = self.link(self.workspace_of(params.text_document))
        try:
            await link.reach(start=True)
        except BackendUnavailable as error:
            raise RequestFailed(str(error)) from error
        return await self.look(link)

    async def roll_back(self, params: StatusParams) -> Any:
        """Back to the adapter before the one in service."""
        link = self.link(self.workspace_of(params.text_document))
        try:
            done = await link.post("/adapters/rollback", {})
        except BackendUnavailable as error:
            raise RequestFailed(str(error)) from error
        self._watches[link.workspace].poke()
        return done

    async def _start(self, link: Link) -> None:
        try:
            await link.reach(start=True)
        except BackendUnavailable as error:
            log.warning("%s", error)

    def _tell(self, kind: Kind, text: str) -> None:
        self.server.say(_SEVERITY[kind], text)

    def _on_status(self, status: StatusResult, before: StatusResult | None) -> None:
        if status.engine == "failed" and (before is None or before.engine != "failed"):
            self.server.say(types.MessageType.Error, "nightschool: the engine failed: " + "; ".join(status.reasons))
        if before is not None and before.engine == "failed" and status.engine == "ready":
            self.server.say(types.MessageType.Info, "nightschool: the engine is back")
        if self.options.status:
            self.server.protocol.notify_plain(STATUS, to_wire(status))
        self.server.in_background(self.server.show_work(status))
