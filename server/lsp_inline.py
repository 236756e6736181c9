"""Ghost text: what could stand at the cursor, in time or not at all."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.client import BackendUnavailable
from server.lsp_ask import clean
from server.lsp_documents import Document, Place
from server.lsp_text import Point

if TYPE_CHECKING:
    from server.lsp_session import Session

log = logging.getLogger(__name__)

_LINES_BEFORE, _LINES_AFTER = 120, 40
_CACHED = 64
# Between these we wait for the next key, in seconds; half the writer's usual time between two keys.
_MIN_WAIT_S, _MAX_WAIT_S = 0.03, 0.25
_PAUSE_S = 1.0
# Of the time limit: what the search for context may take, in seconds.
_SEARCH_S = 0.15
_CONTEXT_LINES = 40
_MAX_WINDOW_LINES = 4000
Window = tuple[frozenset[str], str]
_WORD = re.compile(r"[A-Za-z_]\w{2,}")
_HASH, _SLASHES = "#", "//"
_COMMENT = {
    "python": _HASH,
    "ruby": _HASH,
    "shellscript": _HASH,
    "yaml": _HASH,
    "toml": _HASH,
    "r": _HASH,
    "perl": _HASH,
}
_COMMENT |= {"lua": "--", "sql": "--", "haskell": "--", "clojure": ";", "elisp": ";", "scheme": ";"}


@dataclass(frozen=True, slots=True)
class Suggested:
    """A suggestion, where it began, and the text of the line before it: valid while that stands."""

    uri: str
    start: Point
    above: str
    text: str

    def rest(self, document: Document, cursor: Point) -> str:
        """What is left of it after what was typed since; "" when something else was typed."""
        if cursor < self.start or document.text.before(self.start, 2) != self.above:
            return ""
        typed = document.text.between(self.start, cursor)
        return self.text[len(typed) :] if self.text.startswith(typed) else ""


class Pace:
    """How fast the user types, and so how long to wait for the next key."""

    def __init__(self) -> None:
        self._gap_s = 0.2
        self._last = float("-inf")

    def wait_s(self, now: float) -> float:
        gap, self._last = now - self._last, now
        if gap < _PAUSE_S:
            self._gap_s = 0.7 * self._gap_s + 0.3 * gap
        return min(_MAX_WAIT_S, max(_MIN_WAIT_S, self._gap_s / 2))


class Inline:
    """The completions of one session: one at a time, the newest."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._suggested: deque[Suggested] = deque(maxlen=_CACHED)
        self._pace = Pace()
        self._windows: dict[str, tuple[int, list[Window]]] = {}
        self._newest = 0
        self._running: asyncio.Task[str] | None = None
        self.shown = self.accepted = 0

    async def complete(self, document: Document, place: Place | None, cursor: Point, invoked: bool) -> str:
        """The text to offer at `cursor`, "" for none: too late, overtaken, switched off, or nothing sensible."""
        self._newest = mine = self._newest + 1
        # Looking takes its time; a newer request may have come by then.
        if place is None or not await self._is_on(place) or mine != self._newest:
            return ""
        if rest := self._known(document, cursor):
            return rest
        if self._running is not None:
            self._running.cancel()
        wait_s = 0.0 if invoked else self._pace.wait_s(asyncio.get_running_loop().time())
        self._running = asyncio.create_task(self._generate(document, place, cursor, wait_s))
        running = self._running
        try:
            return await asyncio.wait_for(asyncio.shield(running), self._session.options.inline_timeout_s + wait_s)
        except TimeoutError:
            return ""
        except asyncio.CancelledError:
            # Overtaken by the next one is an empty answer; cancelled by the editor is a cancelled request.
            if running.cancelled() and not _is_being_cancelled():
                return ""
            raise
        finally:
            running.cancel()

    def _known(self, document: Document, cursor: Point) -> str:
        rests = (s.rest(document, cursor) for s in reversed(self._suggested) if s.uri == document.uri)
        return next((rest for rest in rests if rest), "")

    async def _is_on(self, place: Place) -> bool:
        session = self._session
        status = session.last_status(place.workspace)
        if status is None:
            status = await session.look(session.link(place.workspace))
        return status.inline_completion.enabled

    async def _generate(self, document: Document, place: Place, cursor: Point, wait_s: float) -> str:
        await asyncio.sleep(wait_s)
        text = document.text
        before, after = text.before(cursor, _LINES_BEFORE), text.after(cursor, _LINES_AFTER)
        above = text.before(cursor, 2)
        context = await self._context(document, place, before)
        body = {"prompt": clean(context + before), "suffix": clean(after), "temperature": 0, "stop": ["\n\n\n"]}
        body["max_tokens"] = self._session.options.inline_max_tokens
        try:
            answer = await self._session.link(place.workspace).post("/v1/completions", body)
        except BackendUnavailable as error:
            log.info("no completion: %s", error)
            return ""
        suggestion = trimmed(str(answer["choices"][0]["text"]), after)
        if suggestion:
            self._suggested.append(Suggested(document.uri, cursor, above, suggestion))
        return suggestion

    async def _context(self, document: Document, place: Place, before: str) -> str:
        """Code like this one, from the index and the other open documents, as comments above the file's own text."""
        lines = [line for line in before.splitlines() if line.strip()][-3:]
        pieces = [*await self._found(place, "\n".join(lines)), *await self._open_buffers(document, before)]
        comment = _COMMENT.get(document.language, _SLASHES)
        return "".join(f"{comment} {line}\n" for piece in pieces for line in piece.splitlines()[:_CONTEXT_LINES])

    async def _found(self, place: Place, query: str) -> list[str]:
        if not query.strip():
            return []
        try:
            link = self._session.link(place.workspace)
            async with asyncio.timeout(_SEARCH_S):
                found = await link.get("/search", q=clean(query)[:2000], k=3)
        except (BackendUnavailable, TimeoutError):
            return []
        others = [p for p in found["passages"] if p["path"] != place.path]
        return [f"{p['path']}\n{p['text']}" for p in others[:2]]

    async def _open_buffers(self, document: Document, before: str) -> list[str]:
        words = frozenset(_WORD.findall(before[-2000:]))
        others = [d for d in self._session.documents if d.uri != document.uri and d.language == document.language]
        found = [most_alike(words, await self._windows_of(other)) for other in others[-4:]]
        best = max(found, default=(0.0, ""))
        return [best[1]] if best[0] > 0.1 else []

    async def _windows_of(self, document: Document) -> list[Window]:
        """Cut once a version, off the event loop: 4,000 lines take a tenth of a second on a busy machine."""
        version, windows = self._windows.get(document.uri, (None, []))
        if version != document.version:
            windows = await asyncio.to_thread(cut_windows, document.text.lines[:_MAX_WINDOW_LINES])
            self._windows[document.uri] = (document.version, windows)
            while len(self._windows) > _CACHED:
                del self._windows[next(iter(self._windows))]
        return windows


def cut_windows(lines: Sequence[str], size: int = 20) -> list[Window]:
    """Overlapping windows of `size` lines, each with the words in it."""
    texts = ("".join(lines[start : start + size]) for start in range(0, len(lines), size // 2))
    return [(frozenset(_WORD.findall(text)), text) for text in texts]


def most_alike(words: frozenset[str], windows: Sequence[Window]) -> tuple[float, str]:
    """How much the window that shares most words with `words` shares (Jaccard, 0 to 1), and its text."""
    scored = ((len(words & own) / (len(words | own) or 1), text) for own, text in windows)
    return max(scored, default=(0.0, ""))


def trimmed(completion: str, after: str) -> str:
    """`completion` without what stands after the cursor already; "" when nothing is left."""
    rest_of_line = re.split(r"[\r\n]", after, maxsplit=1)[0].strip()
    text = completion.rstrip()
    if rest_of_line:
        # In the middle of a line only that line can be filled in.
        text = re.split(r"[\r\n]", text, maxsplit=1)[0]
        if text.endswith(rest_of_line):
            text = text[: -len(rest_of_line)]
    following = [line.strip() for line in after.splitlines()[1:] if line.strip()][:1]
    lines = text.splitlines()
    # A model that goes on into the code below would write its first line twice.
    if following and lines and lines[-1].strip() == following[0]:
        text = "\n".join(lines[:-1]).rstrip()
    return text if text.strip() else ""


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
