"""Code actions: listed from what the editor says alone, run only when chosen. The questions behind them are here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from indexer.workspace import Workspace, write_atomically
from server.lsp_ask import whole_markdown
from server.lsp_protocol import RequestFailed
from server.lsp_text import Point, Text, split_lines
from server.lsp_types import AskParams, AskResult, BadParams, DocumentId, Json, Range, from_wire

if TYPE_CHECKING:
    from server.lsp_session import Session

ANSWER = "nightschool.answer"
# Answers shown as files are kept until there are this many.
_KEPT_ANSWERS = 20
_MAX_DIAGNOSTICS = 2_000
_CODE_BLOCK = re.compile(r"^(`{3,}|~{3,})[^\r\n]*\r?\n(.*?)^\1[`~]*[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Kind:
    """One code action: its title, and the question that it asks about the selection."""

    title: str
    question: str


KINDS = {
    "explain": Kind(
        "Explain", "Explain what the marked code does and how it works together with the rest of the repository."
    ),
    "ask": Kind("Ask about this", "Where is the marked code used, and what must one know before changing it?"),
    "review": Kind(
        "Review against this repository's conventions",
        "Review the marked code against the conventions of this repository: name each place where it differs, and show "
        "how it would be written here.",
    ),
    "test": Kind("Write a test", "Write a test of the marked code in the style of this repository's own tests."),
    "fix": Kind(
        "Suggest a fix",
        "Suggest a fix for the marked code. Write all of the marked code again, mended, in one code block; then why.",
    ),
}


@dataclass(frozen=True, slots=True)
class ActionParams:
    """What a code action carries: which kind, about what. `question` replaces the kind's own."""

    kind: str
    text_document: DocumentId
    range: Range
    diagnostics: tuple[str, ...] = ()
    question: str | None = None
    partial_result_token: str | int | None = None
    work_done_token: str | int | None = None


class Actions:
    """The code actions of one session."""

    params_type = ActionParams

    def __init__(self, session: Session) -> None:
        self._session = session

    def offered(self, params: types.CodeActionParams) -> list[types.CodeAction]:
        """What can be done with a selection or diagnostic."""
        return list_actions(params, self._confirms_edits())

    def _confirms_edits(self) -> bool:
        """Whether the editor asks for the edit when an action is chosen, and shows it before it applies it."""
        capabilities = self._session.server.client_capabilities
        actions = capabilities.text_document and capabilities.text_document.code_action
        edits = capabilities.workspace and capabilities.workspace.workspace_edit
        resolves = actions and actions.resolve_support and "edit" in actions.resolve_support.properties
        return bool(resolves and edits and edits.change_annotation_support and edits.document_changes)

    async def answer(self, params: ActionParams) -> AskResult:
        """Run a chosen action; the answer is also opened as a document, where the editor can and wants it."""
        result = await self._ask(params)
        if self._session.options.show_documents:
            workspace = self._session.workspace_of(params.text_document)
            await self._show(workspace, KINDS[params.kind].title, result)
        return result

    async def resolve(self, action: types.CodeAction) -> types.CodeAction:
        """Ask for the fix and put it into the action, to be confirmed by the user before it is applied."""
        if not isinstance(action.data, dict) or action.command is not None or action.edit is not None:
            return action
        params = from_wire(ActionParams, action.data)
        document = self._session.documents.get(params.text_document.uri)
        if document is None:
            raise RequestFailed("the document is not open any more")
        before = str(document.text)
        result = await self._ask(params)
        if str(document.text) != before:
            raise RequestFailed("the code changed while the fix was written: ask again")
        suggestion = code_block(result.answer)
        if suggestion is None:
            raise RequestFailed("the model suggested no code; ask for an explanation instead")
        action.edit = _edit(params, document.text, document.version, suggestion, result)
        return action

    async def _ask(self, params: ActionParams) -> AskResult:
        if params.kind not in KINDS:
            raise BadParams(f"params.kind must be one of {', '.join(KINDS)}")
        question = params.question or KINDS[params.kind].question
        if params.diagnostics:
            question += "\nThe editor reports:\n" + "\n".join(params.diagnostics)[:_MAX_DIAGNOSTICS]
        ask = AskParams(
            question,
            params.text_document,
            params.range,
            partial_result_token=params.partial_result_token,
            work_done_token=params.work_done_token,
        )
        return await self._session.ask(ask)

    async def _show(self, workspace: Workspace, title: str, result: AskResult) -> None:
        """Open the answer through the editor, where it can; else say it as a message."""
        server = self._session.server
        if server.opens_documents():
            path = await asyncio.to_thread(_write_answer, workspace, whole_markdown(title, result))
            uri = self._session.folders.uri(workspace, path.relative_to(workspace.root).as_posix())
            server.in_background(self._open_or_say(uri, result.answer))
        else:
            server.say(types.MessageType.Info, result.answer)

    async def _open_or_say(self, uri: str, answer: str) -> None:
        """Open the document; an editor that does not after all gets the answer as a message."""
        server = self._session.server
        try:
            shown = await server.window_show_document_async(types.ShowDocumentParams(uri, take_focus=True))
        except JsonRpcException:
            shown = types.ShowDocumentResult(success=False)
        if not shown.success:
            server.say(types.MessageType.Info, answer)


def list_actions(params: types.CodeActionParams, can_resolve_edits: bool) -> list[types.CodeAction]:
    """The actions for a selection or diagnostic. No model, no disk; none for a bare cursor that asked for nothing."""
    context = params.context
    invoked = context.trigger_kind != types.CodeActionTriggerKind.Automatic
    if params.range.start == params.range.end and not context.diagnostics and not invoked:
        return []
    actions = [_action(kind, params, can_resolve_edits) for kind in KINDS]
    return [action for action in actions if _is_wanted(action, context.only)]


def _action(kind: str, params: types.CodeActionParams, can_resolve_edits: bool) -> types.CodeAction:
    messages = [diagnostic.message for diagnostic in params.context.diagnostics]
    place = {"start": to_json(params.range.start), "end": to_json(params.range.end)}
    data: Json = {
        "kind": kind,
        "textDocument": {"uri": params.text_document.uri},
        "range": place,
        "diagnostics": messages,
    }
    title = f"nightschool: {KINDS[kind].title}"
    if kind == "fix" and can_resolve_edits:
        sort = types.CodeActionKind.QuickFix if messages else types.CodeActionKind.RefactorRewrite
        fixes = list(params.context.diagnostics) or None
        return types.CodeAction(title, kind=sort, diagnostics=fixes, data=data)
    command = types.Command(title, ANSWER, arguments=[data])
    return types.CodeAction(title, kind="nightschool", command=command)


def to_json(position: types.Position) -> Json:
    return {"line": position.line, "character": position.character}


def _is_wanted(action: types.CodeAction, only: Sequence[Any] | None) -> bool:
    if only is None:
        return True
    kind = str(getattr(action.kind, "value", action.kind))
    wanted = [str(getattr(prefix, "value", prefix)) for prefix in only]
    return any(prefix == "" or kind == prefix or kind.startswith(prefix + ".") for prefix in wanted)


def code_block(answer: str) -> str | None:
    """The first fenced block of an answer; None when it has none."""
    match = _CODE_BLOCK.search(answer)
    return match[2] if match and match[2].strip() else None


def _edit(params: ActionParams, text: Text, version: int, suggestion: str, result: AskResult) -> types.WorkspaceEdit:
    """Replace the marked lines, whole; the editor shows it and asks before it applies it."""
    start = Point(text.point(params.range.start.line, 0).line, 0)
    stop = text.point(params.range.end.line, params.range.end.character)
    last = stop.line - (stop.column == 0 and stop.line > start.line)
    end = min(Point(last + 1, 0), text.end)
    new = fitted(suggestion, text.between(start, end))
    place = types.Range(types.Position(start.line, 0), types.Position(end.line, text.character(end)))
    why = types.ChangeAnnotation(
        "nightschool's suggestion", needs_confirmation=True, description=result.base_model or None
    )
    edit = types.AnnotatedTextEdit("nightschool", place, new)
    document = types.OptionalVersionedTextDocumentIdentifier(params.text_document.uri, version)
    return types.WorkspaceEdit(
        document_changes=[types.TextDocumentEdit(document, [edit])], change_annotations={"nightschool": why}
    )


def fitted(suggestion: str, replaced: str) -> str:
    """`suggestion` with the indentation, the line ends and the last line end of the code that it replaces."""
    missing = len(_indent(replaced)) - len(_indent(suggestion))
    pad = _indent(replaced)[:missing] if missing > 0 else ""
    newline = "\r\n" if "\r\n" in replaced else "\n"
    lines = [line.rstrip("\r\n") for line in split_lines(suggestion)]
    new = newline.join(pad + line if line.strip() else "" for line in lines)
    return new + newline if replaced.endswith(("\n", "\r")) else new


def _indent(code: str) -> str:
    first = next((line for line in split_lines(code) if line.strip()), "")
    return first[: len(first) - len(first.lstrip(" \t"))]


def _write_answer(workspace: Workspace, markdown: str) -> Path:
    folder = workspace.make_state_folder() / "answers"
    folder.mkdir(exist_ok=True)
    kept = sorted(folder.glob("answer-*.md"), key=lambda file: file.stat().st_mtime_ns)
    for old in kept[: max(0, len(kept) - _KEPT_ANSWERS + 1)]:
        old.unlink(missing_ok=True)
    taken = {file.name for file in folder.iterdir()}
    number = next(n for n in range(1, _KEPT_ANSWERS + 2) if f"answer-{n}.md" not in taken)
    path = folder / f"answer-{number}.md"
    write_atomically(path, markdown, 0o600)
    return path
