"""Lines as editors count them."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate

# Not str.splitlines(): that also splits at form feeds and U+2028, which editors do not (LSP: only \n, \r\n and \r end
# a line), so every line number after one would be off.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")


def split_lines(text: str) -> list[str]:
    """The lines of `text`, each with its own line end; joined they are `text` again. No line for an empty text."""
    return _LINE.findall(text)


def cut_lines(text: str, start_line: int, end_line: int) -> str | None:
    """Lines `start_line`..`end_line` (1-based, inclusive) of `text`; None when it has not that many."""
    if "\r" not in text and start_line >= 1:  # 30 times faster, and nearly every file
        return _cut_plain_lines(text, start_line, end_line)
    lines = split_lines(text)
    if not 1 <= start_line <= end_line <= len(lines):
        return None
    return "".join(lines[start_line - 1 : end_line])


def _cut_plain_lines(text: str, start_line: int, end_line: int) -> str | None:
    lines = text.split("\n")
    count = len(lines) - (not lines[-1])
    if not start_line <= end_line <= count:
        return None
    cut = "\n".join(lines[start_line - 1 : end_line])
    return cut if end_line == len(lines) else cut + "\n"


class LineTable:
    """Byte offset in the UTF-8 of a text -> line, 0-based. tree-sitter's own rows end at \\n only."""

    def __init__(self, lines: list[str]) -> None:
        self._starts = [0, *accumulate(len(line.encode()) for line in lines)]

    def line_at(self, offset: int) -> int:
        """The 0-based line that holds byte `offset`; the last line for an offset behind the end."""
        return max(0, min(bisect_right(self._starts, offset) - 1, len(self._starts) - 2))
