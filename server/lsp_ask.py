"""A question from the editor: what goes to the backend with it, and its answer in the editor's terms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.fleet_paths import file_of
from indexer.workspace import Workspace
from server.client import BackendUnavailable, Event
from server.lsp_documents import Document, Place
from server.lsp_markdown import safe_markdown
from server.lsp_stream import DeltaStream
from server.lsp_types import AskParams, AskResult, BadParams, Citation, Freshness, Json, Passage, Position, Range

MAX_QUESTION = 8_000
# Of a request body of 1 MiB; JSON may double it. Characters.
MAX_BUFFER = 400_000
_MAX_SELECTION = 32_000

UriOf = Callable[[Workspace, str], str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and where it was asked: `place` None for a document that lies in no open folder."""

    params: AskParams
    workspace: Workspace
    document: Document | None
    place: Place | None

    @property
    def is_foreign(self) -> bool:
        """Whether it is about a file that is not part of the workspace (a new, unnamed document is part of it)."""
        document = self.params.text_document
        return self.place is None and document is not None and not document.uri.startswith("untitled:")


async def ask_body(asked: Asked) -> Json:
    """The body of POST /ask. Raises `BadParams` for a question that is empty or too long."""
    params = asked.params
    question = clean(params.question).strip()
    if not 0 < len(question) <= MAX_QUESTION:
        raise BadParams(f"a question has 1 to {MAX_QUESTION} characters, this one has {len(question)}")
    turns = [{"role": turn.role, "content": clean(turn.content)} for turn in params.conversation[-100:]]
    body: Json = {"question": question, "conversation": turns, "selection": selection_of(asked)}
    body["retrieval"] = params.retrieval and not asked.is_foreign
    if asked.place is not None:
        body["path"] = asked.place.path
        if (buffer := await unsaved_text(asked.document, asked.place)) is not None:
            body["buffer"] = buffer
    wishes = {"k": params.k, "adapter": params.adapter, "max_tokens": params.max_tokens}
    return body | {name: value for name, value in wishes.items() if value is not None}


def selection_of(asked: Asked) -> str:
    """The text that is selected, "" when nothing is."""
    place = asked.params.range
    if asked.document is None or place is None:
        return ""
    text = asked.document.text
    start = text.point(place.start.line, place.start.character)
    return clean(text.between(start, text.point(place.end.line, place.end.character))[:_MAX_SELECTION])


async def unsaved_text(document: Document | None, place: Place) -> str | None:
    """What the editor shows, when the disk holds something else and it is not too long to send."""
    if document is None:
        return None
    shown = clean(str(document.text))
    saved = await asyncio.to_thread(_read, file_of(place.workspace, place.path))
    return None if saved == shown.encode() or len(shown) > MAX_BUFFER else shown


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


async def stream_answer(events: AsyncIterator[Event], stream: DeltaStream) -> Json:
    """Read an answer to its end, its pieces into `stream`; the `done` event's object. Raises `BackendUnavailable`."""
    try:
        async with aclosing(events) as reading:  # type: ignore[type-var]
            async for event in reading:
                match event.name:
                    case "text":
                        stream.text(str(event.data["delta"]))
                    case "notice":
                        stream.notice(str(event.data["text"]))
                    case "error":
                        raise BackendUnavailable(str(event.data["message"]))
                    case "done":
                        stream.flush()
                        return event.data
    finally:
        stream.stop()
    raise BackendUnavailable("the backend ended the answer in the middle")


def answer_for_editor(done: Mapping[str, Any], workspace: Workspace, uri_of: UriOf) -> AskResult:
    """The backend's answer with URIs, ranges and safe Markdown."""

    def spot(found: Mapping[str, Any]) -> Json:
        start, end = int(found["start_line"]), int(found["end_line"])
        return {"uri": uri_of(workspace, found["path"]), "range": Range(Position(start - 1, 0), Position(end, 0))}

    citations = tuple(Citation(**_known(Citation, found), **spot(found)) for found in done["citations"])
    passages = tuple(Passage(**_known(Passage, found), **spot(found)) for found in done["passages"])
    links = {c.index: link(c.uri, c.start_line) for c in citations}
    return AskResult(
        answer=done["answer"],
        markdown=safe_markdown(done["answer"], links),
        citations=citations,
        passages=passages,
        freshness=Freshness(**_known(Freshness, done["freshness"])),
        adapter=done["adapter"],
        base_model=done["base_model"],
        notices=tuple(done["notices"]),
        timings_ms=dict(done["timings_ms"]),
        groundedness=done.get("groundedness"),
    )


def passage_for_editor(found: Mapping[str, Any], index: int, workspace: Workspace, uri_of: UriOf) -> Passage:
    place = Range(Position(int(found["start_line"]) - 1, 0), Position(int(found["end_line"]), 0))
    known = _known(Passage, found) | {"index": index}
    return Passage(**known, uri=uri_of(workspace, found["path"]), range=place)


def freshness_of(found: Mapping[str, Any]) -> Freshness:
    return Freshness(**_known(Freshness, found))


def freshness_line(freshness: Freshness) -> str:
    """How current the code was, in one line."""
    commit = f"commit {freshness.commit[:10]}" if freshness.commit else "no commit"
    dirty = (
        f", {freshness.dirty_files} changed file{'s' * (freshness.dirty_files != 1)}" if freshness.dirty_files else ""
    )
    lag = f", {freshness.seconds_behind:.0f} s behind" if freshness.seconds_behind >= 1 else ", up to date"
    return f"{commit}{dirty}{lag}"


def link(uri: str, line: int) -> str:
    return f"{uri}#L{line}"


def whole_markdown(title: str, result: AskResult) -> str:
    """An answer as a document of its own: the answer, its sources, what must be known of it."""
    sources = [
        f"- [{c.index}] [`{c.path}:{c.start_line}-{c.end_line}`]({link(c.uri, c.start_line)})"
        + ("" if c.verified else " (changed since)")
        for c in result.citations
    ]
    notices = [f"> {safe_markdown(notice, {})}" for notice in result.notices]
    model = f"{result.base_model or 'no model'}{f', adapter {result.adapter}' if result.adapter else ''}"
    parts = [f"# {safe_markdown(title, {})}", result.markdown.strip(), *notices]
    parts += ["**Sources**\n" + "\n".join(sources)] if sources else []
    parts.append(f"*{freshness_line(result.freshness)}; {model}*")
    return "\n\n".join(part for part in parts if part) + "\n"


def clean(text: str) -> str:
    """`text` without half surrogates, which JSON may hold and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _known(kind: type, found: Mapping[str, Any]) -> Json:
    """What `kind` has fields for; a newer backend may say more."""
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return {name: value for name, value in found.items() if name in names}
