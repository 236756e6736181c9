"""Exact search: a quoted string or a /regular expression/ finds the files that grep would find."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from indexer.chunking import Chunk
from indexer.files import Skipped, list_files, read_regular_file
from indexer.lines import split_lines
from indexer.parts import Parts
from indexer.quarantine import read_quarantine
from indexer.search import CurrentTexts, Passage, make_passage, verify
from indexer.secrets import mask_secrets

_AROUND = 10  # lines of a passage in a file that has no chunks
_MAX_BYTES = 50_000_000


def parse_exact(query: str) -> re.Pattern[bytes] | None:
    """`"a string"` or `/an expression/`, as a pattern over a file's bytes; None for any other query."""
    text = query.strip()
    if len(text) > 2 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('\\"', ""):
        return re.compile(re.escape(text[1:-1].replace('\\"', '"').encode()))
    if len(text) > 2 and text[0] == text[-1] == "/":
        try:
            return re.compile(text[1:-1].encode(), re.MULTILINE)
        except re.error:
            return None
    return None


def exact_files(pattern: re.Pattern[bytes], parts: Parts, overlays: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of every text file that git tracks or does not ignore and that has a match, by path."""
    held = read_quarantine(parts.workspace)
    for path in list_files(parts.workspace):
        if held.holds_path(path):
            continue
        if path in overlays:
            content: bytes | Skipped | None = overlays[path].encode("utf-8", "replace")
        else:
            content = read_regular_file(parts.workspace.root, path, _MAX_BYTES)
        if isinstance(content, bytes) and b"\0" not in content and _matches(pattern, content):
            yield path, content


def find_exact(pattern: re.Pattern[bytes], k: int, parts: Parts, overlays: Mapping[str, str]) -> list[Passage]:
    """A passage around the first match in each of the first `k` files that have one."""
    passages: list[Passage] = []
    current = CurrentTexts(parts, overlays)
    for path, content in exact_files(pattern, parts, overlays):
        match = next(_line_matches(pattern, content))
        passages.append(_passage_at(path, content, match, parts, current))
        if len(passages) == k:
            break
    return passages


def _matches(pattern: re.Pattern[bytes], content: bytes) -> bool:
    return next(_line_matches(pattern, content), None) is not None


def _line_matches(pattern: re.Pattern[bytes], content: bytes) -> Iterator[int]:
    """0-based offsets of matches that stay within a line, as grep's do."""
    for match in pattern.finditer(content):
        if b"\n" not in match[0]:
            yield match.start()


def _passage_at(path: str, content: bytes, offset: int, parts: Parts, current: CurrentTexts) -> Passage:
    line = len(split_lines(content[:offset].decode("utf-8", "replace") + "x"))
    chunk = next((c for c in parts.catalogue.chunks_of(path) if c.start_line <= line <= c.end_line), None)
    passage = verify(chunk, 1.0, current) if chunk else None
    return passage or _window(path, content, line)


def _window(path: str, content: bytes, line: int) -> Passage:
    lines = split_lines(mask_secrets(content.decode("utf-8", "replace")).text)
    first, last = max(1, line - _AROUND), min(len(lines), line + _AROUND)
    return make_passage(Chunk(path, first, last, "text", "", (), "".join(lines[first - 1 : last])), 1.0)


def paths_with(pattern: re.Pattern[bytes], parts: Parts) -> Sequence[str]:
    """Every path that has a match."""
    return [path for path, _ in exact_files(pattern, parts, {})]
