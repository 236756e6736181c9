"""Positions and edits against a slow but plain model of what LSP says."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from server.lsp_text import Point, Text, split_lines

TEXTS = st.text(alphabet=st.sampled_from("ab\t\r\n\x0c\u2028é😀𝒳\x85"), max_size=40)
ENCODED = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}


def offset(source: str, line: int, character: int, encoding: str) -> int:
    """The index into `source` of a client's position, counted in bytes of the encoding itself."""
    codec, width = ENCODED[encoding]
    lines = split_lines(source)
    if line >= len(lines):
        return len(source)
    before = sum(len(text) for text in lines[:line])
    content = lines[line].rstrip("\r\n")
    column = next(
        (n for n in range(len(content) + 1) if len(content[:n].encode(codec)) // width >= character), len(content)
    )
    return before + column


@settings(deadline=None)
@given(TEXTS)
def test_lines_joined_are_the_text_and_only_lsp_line_ends_split(source):
    lines = split_lines(source)
    assert "".join(lines) == source
    assert all(line.rstrip("\r\n") == line[: len(line) - (2 if line.endswith("\r\n") else 1)] for line in lines[:-1])
    assert len(lines) == len(source.replace("\r\n", "\n").replace("\r", "\n").split("\n")) - (
        source == "" or source[-1] in "\r\n"
    )


POSITION = st.tuples(st.integers(0, 12), st.integers(0, 12))


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.lists(st.tuples(POSITION, POSITION, TEXTS), max_size=5), st.sampled_from(sorted(ENCODED)))
def test_edits_do_what_the_same_edits_on_a_string_do(source, edits, encoding):
    text = Text.of(source, encoding)
    for start, end, new in edits:
        start, end = sorted((start, end))
        a, b = offset(source, *start, encoding), offset(source, *end, encoding)
        assert text.between(text.point(*start), text.point(*end)) == source[a:b]
        text.replace(text.point(*start), text.point(*end), new)
        source = source[:a] + new + source[b:]
        assert str(text) == source
        assert text.lines == split_lines(source)


def test_a_column_is_counted_in_the_clients_units():
    for encoding, character in (("utf-8", 11), ("utf-16", 6), ("utf-32", 4)):
        text = Text.of("é😀\t𝒳|x\r\n", encoding)
        assert text.character(Point(0, 4)) == character
        assert text.point(0, character) == Point(0, 4)
        assert text.between(text.point(0, character), text.point(0, 99)) == "|x"


def test_positions_outside_the_text_are_its_edges():
    text = Text.of("ab\r\ncd\n")
    assert [text.point(0, 99), text.point(1, 99), text.point(2, 0), text.point(9, 9), text.point(-1, 4)] == [
        Point(0, 2), Point(1, 2), Point(2, 0), Point(2, 0), Point(0, 0),
    ]  # fmt: skip
    assert Text.of("").point(0, 0) == Text.of("").end == Point(0, 0)
    assert text.before(Point(1, 1), 5) == "ab\r\nc"
    assert text.after(Point(0, 1), 0) == "b\r\n"


def test_a_file_of_20000_lines_edits_without_lag():
    text = Text.of("x = 'é😀'\r\n" * 20_000)
    started = time.perf_counter()
    for n in range(1000):
        text.replace(text.point(10_000 + n % 50, 5), text.point(10_000 + n % 50, 5), "a")
    assert (time.perf_counter() - started) / 1000 < 0.002
