"""Our own methods: params and results as they go over the wire. `extension-proto/protocol.json` is made of these.

Frozen dataclasses, snake_case here and camelCase on the wire; positions in params and in `range` are LSP's (0-based,
client's code units), `start_line` and `end_line` are 1-based and inclusive as everywhere else in nightschool.
"""

from __future__ import annotations

import functools
import types as python_types
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Json = dict[str, Any]
T = TypeVar("T")

ASK = "nightschool/ask"
STATUS = "nightschool/status"
SEARCH = "nightschool/search"
COMMANDS = (
    "nightschool.ask",
    "nightschool.answer",
    "nightschool.open",
    "nightschool.status",
    "nightschool.start",
    "nightschool.rollback",
)


class BadParams(Exception):
    """Params that are not what the method takes; the message names the field."""


@dataclass(frozen=True, slots=True)
class Position:
    """LSP's: 0-based line, 0-based character in the negotiated code units."""

    line: int
    character: int


@dataclass(frozen=True, slots=True)
class Range:
    """LSP's: `end` is exclusive."""

    start: Position
    end: Position


@dataclass(frozen=True, slots=True)
class DocumentId:
    """LSP's TextDocumentIdentifier."""

    uri: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier message of the conversation."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class AskParams:
    """A question. `range` is what is selected in `text_document`; `conversation` is oldest first.

    With `partial_result_token` the answer's pieces come as `$/progress` (see Delta); the result is whole either way.
    `adapter` is a kept version, or "none" for the base model; None takes what is in service.
    """

    question: str
    text_document: DocumentId | None = None
    range: Range | None = None
    conversation: tuple[Turn, ...] = ()
    retrieval: bool = True
    k: int | None = None
    adapter: str | None = None
    max_tokens: int | None = None
    partial_result_token: str | int | None = None
    work_done_token: str | int | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """`value` of a `$/progress` on the partial result token: the next piece of the answer, or something to know of it.

    The pieces are the model's own words: show them as text, or sanitise them; `AskResult.markdown` is safe.
    """

    kind: Literal["delta", "notice"]
    text: str


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a statement stands: `index` is its marker [index]; `verified`: the lines on disk were still these."""

    index: int
    path: str
    start_line: int
    end_line: int
    commit: str
    sha256: str
    verified: bool
    uri: str
    range: Range


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of code that the answer was given to read (or that a search found)."""

    index: int
    path: str
    start_line: int
    end_line: int
    score: float
    symbol: str
    language: str
    text: str
    uri: str
    range: Range


@dataclass(frozen=True, slots=True)
class Freshness:
    """How current the index was. `commit` None or "": no git; `seconds_behind`: age of the oldest save not in it."""

    commit: str | None = None
    dirty_files: int = 0
    files: int = 0
    chunks: int = 0
    waiting_files: int = 0
    waiting_chunks: int = 0
    seconds_behind: float = 0.0


@dataclass(frozen=True, slots=True)
class AskResult:
    """A whole answer. `answer` is the model's words; `markdown` is the same, safe to render, markers linked.

    `groundedness`: how much of it stands on the code that was found, 0 to 1; None when nobody measured.
    """

    answer: str
    markdown: str
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    freshness: Freshness
    adapter: str | None
    base_model: str
    notices: tuple[str, ...]
    timings_ms: dict[str, float]
    groundedness: float | None


@dataclass(frozen=True, slots=True)
class SearchParams:
    """A search of the workspace that `text_document` lies in (without one: of the first)."""

    query: str
    k: int = 10
    text_document: DocumentId | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages, best first."""

    passages: tuple[Passage, ...]
    took_ms: float


@dataclass(frozen=True, slots=True)
class StatusParams:
    """Which workspace: the one that `text_document` lies in; without one, the first."""

    text_document: DocumentId | None = None


@dataclass(frozen=True, slots=True)
class OpenParams:
    """A place to open in the editor: a citation's `uri` and `range`."""

    uri: str
    range: Range


@dataclass(frozen=True, slots=True)
class InlineState:
    """Whether ghost text is offered; `reason` says why not, "" when it is."""

    enabled: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Night:
    """The night that ended last. `outcome` "trained": no night has, and this is the adapter trained last by hand.

    `version` is the adapter it made, "" for none; `ended_at` in ISO 8601; `verdict` is one sentence; losses on held-out
    files in nats a token, None where they were not measured.
    """

    outcome: Literal["promoted", "refused", "skipped", "failed", "trained"]
    version: str
    ended_at: str
    verdict: str
    in_service: bool
    loss_before: float | None
    loss_after: float | None


@dataclass(frozen=True, slots=True)
class Training:
    """A night that runs now. `step` of `steps` of its training, 0 of 0 before it; `left_s`: the rest of that."""

    version: str
    step: int
    steps: int
    left_s: float


@dataclass(frozen=True, slots=True)
class StatusResult:
    """What stands behind the editor now, for one workspace; also what the notification of the same name carries.

    `backend` is stopped (asking starts it), starting, running or failed; `engine` is the backend's word for the model's
    state (starting, ready, swapping, backoff, failed), "" while no backend runs; `reasons` is what is missing.
    """

    workspace: str
    backend: Literal["stopped", "starting", "running", "failed"]
    engine: str
    ready: bool
    reasons: tuple[str, ...]
    adapter: str | None
    base_model: str
    freshness: Freshness | None
    night: Night | None
    training: Training | None
    inline_completion: InlineState


@dataclass(frozen=True, slots=True)
class Options:
    """`initializationOptions`. `start_backend` "never": only find a running one; "on-ask": start it for a question;
    "on-open": start it with the editor. Times in seconds.

    `status`: send `nightschool/status` when it changes. `inline_completion`: offer ghost text where the model can.
    `completion`: offer the same as `textDocument/completion`, for editors without ghost text. `inline_timeout_s`:
    after that, nothing is better than late. `show_documents`: open answers of code actions through the editor.
    """

    start_backend: Literal["never", "on-ask", "on-open"] = "on-ask"
    status: bool = False
    inline_completion: bool = True
    completion: bool = False
    inline_timeout_s: float = 1.5
    inline_max_tokens: int = 64
    show_documents: bool = True


METHODS: dict[str, tuple[type, type]] = {
    ASK: (AskParams, AskResult),
    SEARCH: (SearchParams, SearchResult),
    STATUS: (StatusParams, StatusResult),
}
PROGRESS: dict[str, type] = {ASK: Delta}
NOTIFICATIONS: dict[str, type] = {STATUS: StatusResult}


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def to_wire(value: Any) -> Any:
    """`value` as JSON, camelCase."""
    if is_dataclass(value):
        return {camel(f.name): to_wire(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_wire(item) for item in value]
    return value


def from_wire(kind: type[T], data: Any) -> T:
    """`data` as a `kind`. Keys that it does not know are ignored, as LSP asks. Raises `BadParams`."""
    result: T = _read(kind, data, "params")
    return result


def _read(kind: Any, data: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _read_object(kind, data, where)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, python_types.UnionType):
        return _read_union(parts, data, where)
    if origin is Literal:
        return _expect(data in parts, data, where, f"one of {', '.join(map(str, parts))}")
    if origin is tuple:
        _expect(isinstance(data, list), data, where, "a list")
        return tuple(_read(parts[0], item, f"{where}[{at}]") for at, item in enumerate(data))
    if origin is dict:
        return _expect(isinstance(data, dict), data, where, "an object")
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    fits = isinstance(data, kind) and (kind is bool or not isinstance(data, bool))
    return _expect(fits, data, where, f"a {kind.__name__}")


def _read_object(kind: Any, data: Any, where: str) -> Any:
    _expect(isinstance(data, dict), data, where, "an object")
    given = {}
    for f, hint in _fields(kind):
        if camel(f.name) in data and not (data[camel(f.name)] is None and f.default is not MISSING):
            given[f.name] = _read(hint, data[camel(f.name)], f"{where}.{camel(f.name)}")
        elif f.default is MISSING:
            raise BadParams(f"{where}.{camel(f.name)} is missing")
    return kind(**given)


def _read_union(parts: tuple[Any, ...], data: Any, where: str) -> Any:
    for part in parts:
        if part is type(None):
            if data is None:
                return None
            continue
        try:
            return _read(part, data, where)
        except BadParams:
            if len([p for p in parts if p is not type(None)]) == 1:
                raise
    raise BadParams(f"{where} is none of what it may be")


def _expect(holds: bool, data: Any, where: str, wanted: str) -> Any:
    if not holds:
        raise BadParams(f"{where} must be {wanted}")
    return data


@functools.cache
def _fields(kind: Any) -> list[tuple[Any, Any]]:
    hints = get_type_hints(kind)
    return [(f, hints[f.name]) for f in fields(kind)]
