"""Functions with their body cut out, for a model to write again. Pure; tree-sitter is reached through
`indexer.symbols`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from indexer.symbols import definition_name, parser_for
from trainer.raw_text import file_header

if TYPE_CHECKING:
    from tree_sitter import Node

# What a body says that only fails. A language that is not here has no holes.
_FAILS = {
    "python": "raise NotImplementedError",
    "javascript": 'throw new Error("a hole");',
    "typescript": 'throw new Error("a hole");',
    "tsx": 'throw new Error("a hole");',
    "go": 'panic("a hole")',
    "rust": 'panic!("a hole")',
    "java": "throw new UnsupportedOperationException();",
}
_FUNCTIONS = frozenset(
    "function_definition function_declaration method_definition method_declaration function_item".split()
)
_MOST_LINES, _LEAST_CHARS, _MOST_CHARS = 10, 15, 500
_EMPTY = re.compile(r"\s*(?:pass|\.\.\.|raise NotImplementedError\b[^\n]*|return|return None)?\s*")
_CONTEXT_CHARS = 1_200

# newer: written after the snapshot; held-out: of a file that is kept from training; learnt: training may have read it.
Origin = Literal["newer", "held-out", "learnt"]


@dataclass(frozen=True, slots=True)
class Hole:
    """The function `name` of the file at `path`, which is `before` + `body` + `after`; lines are 1-based, inclusive,
    those of the body."""

    path: str
    name: str
    language: str
    before: str
    body: str
    after: str
    start_line: int
    end_line: int
    origin: Origin = "learnt"

    @property
    def indent(self) -> str:
        return self.body[: len(self.body) - len(self.body.lstrip(" \t"))]

    def filled(self, body: str) -> str:
        """The file with `body` in the hole."""
        return self.before + body + self.after

    def failing(self) -> str:
        """The file with a body that does nothing but fail: tests that still pass do not see this function."""
        return self.filled(f"{self.indent}{_FAILS[self.language]}")

    def prompt(self, passages: str = "") -> str:
        """What a model goes on from: the file up to the hole, as raw text is learnt, without the end of its last line.

        A tokenizer has one token for a line end and the indentation after it. After a line end alone SmolLM2 never went
        on with a body (0 of 40; trainer/LOG.md).
        """
        before = self.before.rstrip("\r\n")
        tail = before[-_CONTEXT_CHARS:]
        whole = tail if len(tail) == len(before) else tail.partition("\n")[2]
        return f"{passages}{file_header(self.path, 1, 1)}{whole}"


def find_holes(path: str, text: str, language: str) -> Iterator[Hole]:
    """The functions of a file whose body is short enough to be written by a model and says something."""
    parser = parser_for(language) if language in _FAILS else None
    if parser is None:
        return
    data = text.encode()
    stack = [parser.parse(data).root_node]
    while stack:
        node = stack.pop()
        if node.type in _FUNCTIONS and (hole := _hole(node, data, path, language)) is not None:
            yield hole
        stack.extend(reversed(node.named_children))


def written_body(hole: Hole, written: str) -> str:
    """The part of what a model wrote that is the body: up to the end of the block; "" when it wrote none."""
    if hole.language == "python":
        return _indented(hole.indent, written.partition("\n")[2])  # it begins with the end of the line before
    return _braced(written)


def _hole(function: Node, data: bytes, path: str, language: str) -> Hole | None:
    body = function.child_by_field_name("body")
    span = None if body is None or function.has_error else _span(body, data, language)
    if span is None:
        return None
    start, end = span
    text = data[start:end].decode()
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > _MOST_LINES or not _LEAST_CHARS <= len(text.strip()) <= _MOST_CHARS or _EMPTY.fullmatch(text):
        return None
    first = data.count(b"\n", 0, start) + 1
    before, after = data[:start].decode(), data[end:].decode()
    return Hole(path, definition_name(function), language, before, text, after, first, first + text.count("\n"))


def _span(body: Node, data: bytes, language: str) -> tuple[int, int] | None:
    """The bytes between the braces; in Python the statements after the docstring, from the start of their line. None
    for a body on the line of its signature."""
    if language != "python":
        inside = data[body.start_byte + 1 : body.end_byte - 1]
        braced = data[body.start_byte : body.start_byte + 1] == b"{" and inside.lstrip(b" \t\r").startswith(b"\n")
        return (body.start_byte + 1, body.start_byte + 1 + len(inside.rstrip())) if braced else None
    statements = [node for node in body.named_children if not _is_text(node)]
    if not statements:
        return None
    start = data.rfind(b"\n", 0, statements[0].start_byte) + 1
    return None if data[start : statements[0].start_byte].strip() else (start, statements[-1].end_byte)


def _is_text(node: Node) -> bool:
    """A docstring."""
    inner = node.named_children[0] if node.type == "expression_statement" and node.named_child_count == 1 else node
    return inner.type == "string"


def _indented(indent: str, written: str) -> str:
    kept: list[str] = []
    for line in written.split("\n"):
        if line.strip() and not line.startswith(indent):
            break
        kept.append(line)
    return "\n".join(kept).rstrip()


def _braced(written: str) -> str:
    """Up to the brace that closes the block. One in a string counts too: such a body fails, which is rare and the same
    for all arms."""
    depth = 0
    for place, letter in enumerate(written):
        depth += (letter == "{") - (letter == "}")
        if depth < 0:
            return written[:place].rstrip()
    return written.rstrip()
