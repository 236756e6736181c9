"""Definitions and statements in plain lines of code, whole or cut: any language, by shape. Pure.

Not by a syntax tree: a passage may begin and end in the middle of anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from indexer.lines import split_lines

_MOST_LINES = 5  # of a statement, looking back for its beginning

_MODIFIERS = (
    r"(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|pub(?:\(\w+\))?|unsafe|const"
    r"|override|virtual|inline|extern)\s+)*"
)
_DEFINITION = re.compile(
    rf"^\s*{_MODIFIERS}(?:"
    r"(?:def|class|function\*?|func|fn|struct|enum|trait|interface|type|module|impl|object|record|macro)\s+"
    r"(?:\([^)]*\)\s*)?([A-Za-z_$][\w$]*)"
    r"|(?:const|let|var)\s+([A-Za-z_$][\w$]*)\s*=\s*(?:async\s*)?(?:function\b|\([^)]*\)\s*(?::[^=]+)?=>|\w+\s*=>)"
    # C, Java, C#, JavaScript: a name with parameters whose body opens on the line.
    r"|(?!(?:if|for|while|switch|catch|return|else|do|with|match|when|using|lock|elif)\b)"
    r"(?:[\w<>\[\],.*&:?]+\s+)*[*&]*([A-Za-z_$][\w$]*)\s*\([^;{]*\)[^;{()]*\{\s*$)"
)


def lines_of(text: str) -> list[str]:
    """The lines of `text` as editors count them, without their ends."""
    return [line.rstrip("\r\n") for line in split_lines(text)]


def defined_name(line: str) -> str:
    """The name that `line` defines, "" when it defines none."""
    match = _DEFINITION.match(line)
    return next(filter(None, match.groups()), "") if match else ""


def enclosing(lines: Sequence[str], index: int) -> int | None:
    """The line that defines what line `index` is in (itself, if it defines); None when the passage has no such line."""
    if defined_name(lines[index]):
        return index
    indent = indent_of(lines[index])
    for above in range(index - 1, -1, -1):
        if lines[above].strip() and indent_of(lines[above]) < indent:
            if defined_name(lines[above]):
                return above
            if not lines[above].lstrip().startswith((")", "]", "}")):
                indent = indent_of(lines[above])
    return None


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def beginning(lines: Sequence[str], index: int) -> int:
    """The line on which the statement that line `index` is in begins: where its open brackets were opened."""
    depth = 0
    for above in range(index - 1, max(-1, index - _MOST_LINES), -1):
        depth += _open_brackets(lines[above])
        if depth > 0:
            return above
    return index


def _open_brackets(line: str) -> int:
    """Brackets that `line` opens and does not close."""
    return sum(line.count(c) for c in "([{") - sum(line.count(c) for c in ")]}")


def statement(lines: Sequence[str], index: int, most: int) -> range:
    """The lines of the statement that begins at `index`: to where its brackets close, at most `most`."""
    depth = 0
    for last in range(index, min(index + most, len(lines))):
        depth += _open_brackets(lines[last])
        if depth <= 0:
            return range(index, last + 1)
    return range(index, index + 1)
