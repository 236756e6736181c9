"""A text -> chunks: whole lines, whole symbols where they fit. Pure; tree-sitter is reached through `symbols`."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING
from zlib import crc32

from indexer.lines import LineTable, split_lines
from indexer.symbols import defined_names, definition_name, is_comment, join_scope, parser_for

if TYPE_CHECKING:
    from tree_sitter import Node

CHUNKER_VERSION = 2
MAX_CHARS = 1500  # set for MiniLM, which reads 256 tokens; about 40 lines
MIN_CHARS = 500  # smaller symbols share a chunk with their neighbours
CRUMB_CHARS = 150  # a lone signature or closing brace
_MAX_DEPTH = 60


@dataclass(frozen=True)
class Chunk:
    """Whole lines of one file as stored.

    Lines are 1-based and inclusive. `symbol`: dotted name of what it defines, or of what encloses it; `defines`: every
    name that it defines; `copy`: how many chunks before it in the file have the same text and header.
    """

    path: str
    start_line: int
    end_line: int
    language: str
    symbol: str
    defines: tuple[str, ...]
    text: str
    copy: int = 0

    @property
    def header(self) -> str:
        """Where the chunk is from: what is embedded and indexed before its text."""
        names = ", ".join(dict.fromkeys((self.symbol, *self.defines[:8])))
        return f"{self.path}\n{names}\n" if names else f"{self.path}\n"

    @cached_property
    def id(self) -> str:
        """32 hex digits, of path, header, text and copy; not of the lines, which an edit above moves."""
        identity = f"{self.path}\0{self.header}\0{self.language}\0{self.copy}\0{self.text}"
        return hashlib.sha256(identity.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Unit:
    """Lines `first`..`last` (0-based, inclusive) that are not cut, under `scope`, defining `defines`."""

    first: int
    last: int
    scope: str
    defines: tuple[str, ...] = ()


def chunk_text(path: str, text: str, language: str) -> list[Chunk]:
    """The chunks of one file, in order; together they hold every line that is not blank, each once."""
    lines = split_lines(text)
    if language == "markdown":
        units = list(_markdown_units(lines))
    else:
        units = _syntax_units(text, lines, language) or [_Unit(0, len(lines) - 1, "")]
    small = [piece for unit in _trim(units, lines) for piece in _cut_long(unit, lines)]
    chunks = [_make_chunk(path, language, group, lines) for group in _group(small, lines)]
    return _number_copies([chunk for chunk in chunks if chunk.text.strip()])


def _make_chunk(path: str, language: str, units: Sequence[_Unit], lines: list[str]) -> Chunk:
    first, last = units[0].first, units[-1].last
    defines = tuple(dict.fromkeys(name for unit in units for name in unit.defines))
    symbol = defines[0] if defines else units[0].scope
    return Chunk(path, first + 1, last + 1, language, symbol, defines, "".join(lines[first : last + 1]))


def _number_copies(chunks: list[Chunk]) -> list[Chunk]:
    seen: Counter[str] = Counter()
    numbered = []
    for chunk in chunks:
        numbered.append(replace(chunk, copy=seen[chunk.id]) if seen[chunk.id] else chunk)
        seen[chunk.id] += 1
    return numbered


def _size(lines: list[str], first: int, last: int) -> int:
    return sum(map(len, lines[first : last + 1]))


def _trim(units: list[_Unit], lines: list[str]) -> Iterator[_Unit]:
    """Units in order, none overlapping, gaps given to the unit after, blank edges cut off, empty ones dropped."""
    next_line = 0
    for index, unit in enumerate(units):
        last = unit.last if index + 1 < len(units) else len(lines) - 1
        first = next_line
        next_line = max(next_line, last + 1)
        while first <= last and not lines[first].strip():
            first += 1
        while last >= first and not lines[last].strip():
            last -= 1
        if first <= last:
            yield replace(unit, first=first, last=last)


def _group(units: list[_Unit], lines: list[str]) -> Iterator[list[_Unit]]:
    """Small neighbours of one scope together, large units alone; a crumb goes with its neighbour whatever its size.

    Where a group ends depends on its own text (a checksum), so that an edit moves the borders of one or two chunks and
    not of every chunk below it (content-defined chunking, Muthitacharoen et al. 2001).
    """
    group: list[_Unit] = []
    size = 0
    for unit in units:
        own = _size(lines, unit.first, unit.last)
        if group and not _belong_together(group[-1], size, unit, own, lines):
            yield group
            group, size = [], 0
        group.append(unit)
        size += own
    if group:
        yield group


def _belong_together(before: _Unit, size: int, unit: _Unit, own: int, lines: list[str]) -> bool:
    """Is `unit` (of `own` characters) part of the group that ends with `before` (of `size` characters)?"""
    if unit.scope != before.scope and unit.scope not in before.defines[:1]:
        return False
    if min(size, own) < CRUMB_CHARS:
        return size + own <= MAX_CHARS + CRUMB_CHARS and not (own < CRUMB_CHARS and unit.defines and size >= MIN_CHARS)
    ended = size >= MIN_CHARS and crc32(lines[before.last].encode()) % 3 == 0
    return not ended and max(size, own) < MIN_CHARS and size + own <= MAX_CHARS


def _cut_long(unit: _Unit, lines: list[str]) -> Iterator[_Unit]:
    """A unit that is too long, in pieces: at blank lines where it has some, else anywhere between two lines."""
    first, size, defines = unit.first, 0, unit.defines
    if _size(lines, unit.first, unit.last) <= MAX_CHARS:
        yield unit
        return
    for number in range(unit.first, unit.last + 1):
        own = len(lines[number])
        blank_before = number > first and not lines[number - 1].strip()
        ripe = size >= MAX_CHARS // 2 and (blank_before or crc32(lines[number].encode()) % 8 == 0)
        if number > first and (ripe or size + own > MAX_CHARS):
            yield _Unit(
                first,
                number - 1,
                defines[0] if defines and first > unit.first else unit.scope,
                defines if first == unit.first else (),
            )
            first, size = number, 0
        size += own
    yield _Unit(
        first,
        unit.last,
        defines[0] if defines and first > unit.first else unit.scope,
        defines if first == unit.first else (),
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """A text as its syntax tree sees it (byte offsets) and as editors do (lines)."""

    lines: list[str]
    table: LineTable

    def span(self, node: Node) -> tuple[int, int]:
        """First and last line of a node, 0-based."""
        return self.table.line_at(node.start_byte), self.table.line_at(max(node.start_byte, node.end_byte - 1))

    def size(self, first: int, last: int) -> int:
        return _size(self.lines, first, last)


def _syntax_units(text: str, lines: list[str], language: str) -> list[_Unit]:
    """Units by tree-sitter; empty when there is no grammar for the language."""
    parser = parser_for(language)
    if parser is None or not lines:
        return []
    return _node_units(parser.parse(text.encode()).root_node, "", _Source(lines, LineTable(lines)), _MAX_DEPTH)


def _node_units(node: Node, scope: str, source: _Source, depth: int) -> list[_Unit]:
    """The children of `node` as units; a child too long to stay whole as the units of its own children."""
    units: list[_Unit] = []
    last_line = source.span(node)[0] - 1
    comment_from: int | None = None
    for child in node.children:
        first, last = source.span(child)
        if last <= last_line:  # all of it shares a line with what came before
            _add_names(units, defined_names(child, scope))
            continue
        start = max(first, last_line + 1) if comment_from is None else comment_from
        if is_comment(child):
            comment_from, last_line = start, last
            continue
        comment_from, last_line = None, last
        if source.size(start, last) <= MAX_CHARS or not child.named_child_count or not depth:
            units.append(_Unit(start, last, scope, tuple(defined_names(child, scope))))
        else:
            name = definition_name(child)
            units += _opened(child, join_scope(scope, name) if name else scope, start, source, depth)
    if comment_from is not None:
        units.append(_Unit(comment_from, last_line, scope))
    return units


def _add_names(units: list[_Unit], names: Sequence[str]) -> None:
    if units and names:
        units[-1] = replace(units[-1], defines=tuple(dict.fromkeys((*units[-1].defines, *names))))


def _opened(node: Node, scope: str, start: int, source: _Source, depth: int) -> list[_Unit]:
    """A node too long to stay whole: its head, then the units of its children; the head carries its name."""
    units = _node_units(node, scope, source, depth - 1)
    own = (scope,) if scope else ()
    if not units:
        return [_Unit(start, source.span(node)[1], scope, own)]
    head, *rest = units
    return [replace(head, first=start, defines=tuple(dict.fromkeys((*own, *head.defines)))), *rest]


_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)[ \t#]*$")


def _markdown_units(lines: list[str]) -> Iterator[_Unit]:
    """A unit a section, under the headings above it; `#` in a fenced block is no heading."""
    trail: list[tuple[int, str]] = []
    first, fence, scope = 0, "", ""
    for number, line in enumerate(lines):
        mark = line.lstrip()[:3]
        if mark in ("```", "~~~"):
            fence = "" if fence == mark else fence or mark
        match = None if fence else _HEADING.match(line.rstrip("\r\n"))
        if match is None:
            continue
        if number > first:
            yield _Unit(first, number - 1, scope)
        trail = [(level, title) for level, title in trail if level < len(match[1])] + [(len(match[1]), match[2])]
        first, scope = number, " > ".join(title for _, title in trail)
    if lines:
        yield _Unit(first, len(lines) - 1, scope)
