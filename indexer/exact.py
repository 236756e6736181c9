"""Exact search: a quoted string or a /regular expression/ finds the files that ripgrep finds, line by line."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from itertools import pairwise

import regex

from indexer.chunking import Chunk
from indexer.files import list_files, read_regular_file
from indexer.lines import split_lines
from indexer.lock import IndexUnavailable
from indexer.parts import Parts
from indexer.quarantine import read_quarantine
from indexer.search import CurrentTexts, Passage, make_passage, verify
from indexer.secrets import mask_secrets

_AROUND = 10  # lines of a passage in a file that has no chunks
_MAX_BYTES = 50_000_000
_ODD = regex.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of them
_PATIENCE_S = 2.0  # for one file: `(a+)+$` would never come back


class BadPattern(ValueError, IndexUnavailable):
    """The regular expression cannot be used; the message says why. The caller's mistake, and shown like any failure."""


def parse_exact(query: str) -> regex.Pattern[str] | None:
    """`"a string"` or `/an expression/`, as a pattern for one line; None for any other query. Raises `BadPattern`."""
    text = query.strip()
    if len(text) > 2 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('\\"', ""):
        return regex.compile(regex.escape(text[1:-1].replace('\\"', '"'), special_only=True))
    if len(text) > 2 and text[0] == text[-1] == "/":
        try:
            # V1 and its sets: [[:alpha:]], \p{Lu}, [a-z&&[^aeiou]], as Rust's expressions have them.
            return regex.compile(text[1:-1], regex.MULTILINE | regex.V1)
        except regex.error as error:
            raise BadPattern(f"not a regular expression: {text}: {error}") from error
    return None


def exact_files(
    pattern: regex.Pattern[str], parts: Parts, overlays: Mapping[str, str]
) -> Iterator[tuple[str, str, int]]:
    """(path, text, line) of every text file that git tracks or does not ignore, by path, and its first matching line.

    What a link leads to is looked at itself, where it is. Raises `BadPattern` when the pattern takes forever.
    """
    held = read_quarantine(parts.workspace)
    for path in list_files(parts.workspace):
        if held.holds_path(path):
            continue
        text = overlays[path] if path in overlays else _read(path, parts)
        if text is not None and (line := _first_line(pattern, text)):
            yield path, text, line


def find_exact(pattern: regex.Pattern[str], k: int, parts: Parts, overlays: Mapping[str, str]) -> list[Passage]:
    """A passage around the first match in each of the first `k` files that have one."""
    passages: list[Passage] = []
    current = CurrentTexts(parts, overlays)
    for path, text, line in exact_files(pattern, parts, overlays):
        passages.append(_passage_at(path, text, line, parts, current))
        if len(passages) == k:
            break
    return passages


def _read(path: str, parts: Parts) -> str | None:
    if (parts.workspace.root / path).is_symlink():
        return None
    content = read_regular_file(parts.workspace.root, path, _MAX_BYTES)
    return _decode(content) if isinstance(content, bytes) else None


def _decode(content: bytes) -> str | None:
    """As ripgrep reads it: UTF-16 where a mark says so, a mark of UTF-8 left out, odd bytes kept; None when binary."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    return None if b"\0" in content else content.decode("utf-8-sig", "surrogateescape")


def _first_line(pattern: regex.Pattern[str], text: str) -> int:
    """The first line, 1-based and as editors count, on which the pattern matches; 0 when there is none."""
    try:
        if pattern.search(text, timeout=_PATIENCE_S) is None:  # most files, in one go
            return 0
        before = 0
        for line in text.removesuffix("\n").split("\n"):  # grep's lines: a match never crosses one
            if text and (match := _match(pattern, line)):
                return len(split_lines(text[: before + match.start()] + "x"))
            before += len(line) + 1
    except TimeoutError as error:
        raise BadPattern(f"the expression {pattern.pattern} takes too long: make it simpler") from error
    return 0


def _match(pattern: regex.Pattern[str], line: str) -> regex.Match[str] | None:
    """Bytes that are not UTF-8 match nothing, not even `.`: what is between them is looked at alone."""
    odd = [-1, *(at.start() for at in _ODD.finditer(line)), len(line)]
    spans = ((before + 1, after) for before, after in pairwise(odd))
    matches = (pattern.search(line, first, last, timeout=_PATIENCE_S) for first, last in spans)
    return next((match for match in matches if match), None)


def _passage_at(path: str, text: str, line: int, parts: Parts, current: CurrentTexts) -> Passage:
    chunk = next((c for c in parts.catalogue.chunks_of(path) if c.start_line <= line <= c.end_line), None)
    passage = verify(chunk, 1.0, current) if chunk else None
    if passage and passage.start_line <= line <= passage.end_line:
        return passage
    return _window(path, text, line)


def _window(path: str, text: str, line: int) -> Passage:
    lines = split_lines(mask_secrets(text.encode("utf-8", "replace").decode()).text)
    first, last = max(1, line - _AROUND), min(len(lines), line + _AROUND)
    return make_passage(Chunk(path, first, last, "text", "", (), "".join(lines[first - 1 : last])), 1.0)
