"""A file's text -> parts of at most N tokens, cut at line borders, preferably before a blank-line border. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.lines import split_lines


@dataclass(frozen=True, slots=True)
class Part:
    """Lines `[start_line, end_line]` (1-based, inclusive) of a file: the `number`th of `parts`, counted from 1."""

    text: str
    start_line: int
    end_line: int
    number: int
    parts: int


def cut(text: str, line_tokens: Sequence[int], max_tokens: int) -> list[Part]:
    """`text` in parts of at most `max_tokens`, where line i has `line_tokens[i]`; no line is cut.

    A part ends at the last blank line of its second half, where there is one: the next one then starts with
    something. A line that is too long by itself is left out with its number, which the gap between two parts' lines
    shows.
    """
    lines = split_lines(text)
    assert len(lines) == len(line_tokens)
    spans: list[tuple[int, int]] = []
    start = 0
    while start < len(lines):
        end, used = start, 0
        while end < len(lines) and used + line_tokens[end] <= max_tokens:
            used += line_tokens[end]
            end += 1
        if end == start:
            start += 1
            continue
        if end < len(lines):
            end = _blank_border(lines, start, end)
        spans.append((start, end))
        start = end
    total = len(spans)
    return [Part("".join(lines[a:b]), a + 1, b, number, total) for number, (a, b) in enumerate(spans, 1)]


def _blank_border(lines: Sequence[str], start: int, end: int) -> int:
    for border in range(end, start + (end - start) // 2, -1):
        if not lines[border - 1].strip():
            return border
    return end
