"""A text -> parts of at most N tokens, cut between lines: before a symbol or a heading where one is near. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tokenizers import Tokenizer

from indexer.lines import split_lines


@dataclass(frozen=True, slots=True)
class Part:
    """Lines `[start_line, end_line]` (1-based, inclusive) of a file: the `number`th of `parts`, counted from 1."""

    text: str
    start_line: int
    end_line: int
    number: int
    parts: int


def cut(text: str, line_tokens: Sequence[int], max_tokens: int, borders: Collection[int] = ()) -> list[Part]:
    """`text` in parts of at most `max_tokens`, where line i has `line_tokens[i]`; no line is cut.

    A part ends before the last of `borders` (1-based lines at which something begins) in its second half; where there
    is none, at the last blank line there. A line that is too long by itself is left out with its number, which the gap
    between two parts' lines shows.
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
            end = _best_end(lines, start, end, borders)
        spans.append((start, end))
        start = end
    total = len(spans)
    return [Part("".join(lines[a:b]), a + 1, b, number, total) for number, (a, b) in enumerate(spans, 1)]


def _best_end(lines: Sequence[str], start: int, end: int, borders: Collection[int]) -> int:
    second_half = range(end, start + (end - start) // 2, -1)
    symbol = next((border for border in second_half if border + 1 in borders), None)
    blank = next((border for border in second_half if not lines[border - 1].strip()), None)
    return symbol or blank or end


def count_line_tokens(text: str, counter: Tokenizer) -> list[int]:
    """Tokens that begin in each line of `text`, which is tokenised as a whole."""
    ends = list(accumulate(len(line) for line in split_lines(text)))
    counts = [0] * len(ends)
    for start, _ in counter.encode(text, add_special_tokens=False).offsets:
        counts[min(bisect_left(ends, start + 1), len(ends) - 1)] += 1
    return counts
