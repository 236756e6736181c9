"""The text of an open document, as the language server protocol counts it. Pure.

pygls' own documents split at form feeds and U+2028 and misplace positions after the last line (seen in 2.1.1); an
editor that counts differently corrupts every buffer behind such a character.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

# Only these end a line in LSP; str.splitlines() also splits at form feeds, U+0085, U+2028 and others.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")

CountUnits = Callable[[str], int]


def _utf16_units(text: str) -> int:
    return len(text) + sum(char > "\uffff" for char in text) if not text.isascii() else len(text)


def _utf8_units(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass")) if not text.isascii() else len(text)


COUNT_UNITS: dict[str, CountUnits] = {"utf-8": _utf8_units, "utf-16": _utf16_units, "utf-32": len}


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A place between two characters: 0-based line, 0-based column in code points."""

    line: int
    column: int


@dataclass(slots=True)
class Text:
    """Lines with their ends. Positions from outside are in the client's code units and are clamped to the text.

    `encoding` is utf-8, utf-16 or utf-32: what one unit of a client's `character` is.
    """

    lines: list[str]
    encoding: str = "utf-16"
    _joined: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, source: str, encoding: str = "utf-16") -> Text:
        return cls(split_lines(source), encoding)

    def __str__(self) -> str:
        if self._joined is None:
            self._joined = "".join(self.lines)
        return self._joined

    @property
    def end(self) -> Point:
        """The place after the last character; a text that ends with a line end has one more, empty line."""
        if not self.lines:
            return Point(0, 0)
        last = self.lines[-1]
        if last[-1] in "\r\n":
            return Point(len(self.lines), 0)
        return Point(len(self.lines) - 1, len(last))

    def point(self, line: int, character: int) -> Point:
        """Where a client's position is. Past the end of a line means its end, past the last line the text's end."""
        if line < 0:
            return Point(0, 0)
        if line >= len(self.lines):
            return self.end
        content = self.lines[line].rstrip("\r\n")
        return Point(line, _column(content, character, COUNT_UNITS[self.encoding]))

    def character(self, point: Point) -> int:
        """The column of `point` in the client's code units."""
        if point.line >= len(self.lines):
            return 0
        return COUNT_UNITS[self.encoding](self.lines[point.line][: point.column])

    def between(self, start: Point, end: Point) -> str:
        """The characters from `start` to `end`; "" when `end` is not after `start`."""
        if end <= start or start.line >= len(self.lines):
            return ""
        lines = self.lines[start.line : end.line + 1]
        if end.line < len(self.lines):
            lines[-1] = lines[-1][: end.column]
        lines[0] = lines[0][start.column :]
        return "".join(lines)

    def before(self, point: Point, most_lines: int) -> str:
        """What stands before `point`, at most its line and `most_lines` lines above."""
        return self.between(Point(max(0, point.line - most_lines), 0), point)

    def after(self, point: Point, most_lines: int) -> str:
        """What stands from `point` on, at most the rest of its line and `most_lines` lines below."""
        return self.between(point, min(Point(point.line + most_lines + 1, 0), self.end))

    def replace(self, start: Point, end: Point, new: str) -> None:
        """Put `new` where the characters from `start` to `end` are. Costs what changed, not the length of the text."""
        end = max(start, end)
        # The line before too: its \r and a \n that comes to stand first after it become one line end.
        first, last = max(0, start.line - 1), min(end.line + 1, len(self.lines) - 1)
        head = self.between(Point(first, 0), start)
        tail = self.between(end, min(Point(last + 1, 0), self.end))
        self.lines[first : last + 1] = split_lines(head + new + tail)
        self._joined = None


def split_lines(source: str) -> list[str]:
    """The lines of `source` with their ends, split at \\n, \\r\\n and \\r only; joined they are `source` again."""
    return _LINE.findall(source)


def _column(content: str, character: int, count: CountUnits) -> int:
    if content.isascii() or count is len:
        return min(max(character, 0), len(content))
    units = 0
    for column, char in enumerate(content):
        if units >= character:
            return column
        units += count(char)
    return len(content)
