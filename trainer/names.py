"""The names that an answer gives - imports, paths, functions, options - and which of them exist in a snapshot. Exact,
by tree-sitter and by shape; no judge. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from indexer.languages import language_of
from indexer.symbols import parser_for
from trainer.sources.snapshot import Snapshot

if TYPE_CHECKING:
    from tree_sitter import Node

NameKind = Literal["import", "path", "function", "option"]

_FENCE = re.compile(r"^```([\w+#-]*)[^\n]*\n(.*?)(?:^```|\Z)", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]{2,120})`")
_CALL = re.compile(r"\b([^\W\d]\w{2,60}(?:\.\w{2,60})*)\(")
_PATH = re.compile(
    r"(?<![\w/.:-])((?:[\w.-]+/)+[\w-]+\.[A-Za-z]\w{0,7}|[\w-]+\.(?:py|ts|js|go|rs|java|md|toml))\b(?!\()"
)
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9]*(?:-[a-z0-9]+)*)\b")
_WORD = re.compile(r"[^\W\d]\w*")
_IMPORT = re.compile(r"^(?:import|use|preproc_include|include)(?:_from)?_?(?:statement|declaration|spec|expression)?$")
_ALIASES = {"py": "python", "js": "javascript", "ts": "typescript", "sh": "bash", "rs": "rust"}


@dataclass(frozen=True, slots=True)
class Name:
    """A name as an answer gives it; of an import its dotted module, of a function the last part alone."""

    kind: NameKind
    text: str


class Existing:
    """What exists in a snapshot: its paths, the words of its code, its options."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._paths = {file.path for file in snapshot.files}
        self._files = {path.rpartition("/")[2] for path in self._paths}
        self._words: set[str] = set()
        self._options: set[str] = set()
        for file in snapshot.files:
            self._words.update(_WORD.findall(f"{file.path}\n{file.text}"))
            self._options.update(_OPTION.findall(file.text))
        languages = [language_of(file.path, file.text[:100]) for file in snapshot.files]
        self.language = max(set(languages), key=languages.count, default="")

    def has(self, name: Name) -> bool:
        """Does the snapshot have it? A module of another project counts where the snapshot names it too."""
        match name.kind:
            case "path":
                return any(path == name.text or path.endswith(f"/{name.text}") for path in self._paths)
            case "option":
                return name.text in self._options
            case "import" | "function":
                return all(word in self._words for word in _WORD.findall(name.text))

    def has_word(self, word: str) -> bool:
        """Is it a word of the snapshot's code or paths?"""
        return word in self._words


def names_of(answer: str, language: str) -> frozenset[Name]:
    """The names in `answer`. Code without a stated language is read as `language`."""
    found: set[Name] = set()
    for stated, code in _FENCE.findall(answer):
        found.update(_names_of_code(code, _ALIASES.get(stated, stated) or language))
    prose = _FENCE.sub(" ", answer)
    for part in _INLINE.findall(prose):
        if re.fullmatch(r"[^\W\d]\w*(?:\.\w+)*(?:\(.*\))?", part) and not _PATH.fullmatch(part):
            found.add(Name("function", _last(part.partition("(")[0])))
    found.update(Name("function", _last(call)) for call in _CALL.findall(prose))
    found.update(Name("path", path.removeprefix("./")) for path in _PATH.findall(answer))
    found.update(Name("option", option) for option in _OPTION.findall(answer))
    return frozenset(found)


def _names_of_code(code: str, language: str) -> Iterator[Name]:
    parser = parser_for(language) if language else None
    if parser is None:
        yield from (Name("function", _last(call)) for call in _CALL.findall(code))
        return
    stack = [parser.parse(code.encode()).root_node]
    while stack:
        node = stack.pop()
        if _IMPORT.match(node.type):
            yield from _imported(node)
            continue
        if node.type in ("call", "call_expression", "method_invocation"):
            called = node.child_by_field_name("function") or node.child_by_field_name("name")
            if called is not None and (name := _last(_text(called))):
                yield Name("function", name)
        if node.type == "ERROR":  # mostly the end of an answer that was cut off
            yield from (Name("function", _last(call)) for call in _CALL.findall(_text(node)))
        stack.extend(node.named_children)


def _imported(node: Node) -> Iterator[Name]:
    """The module of an import, and what is taken from it."""
    module = node.child_by_field_name("module_name") or node.child_by_field_name("source") or node
    quoted = re.search(r"[\"'<]([^\"'>]+)[\"'>]", _text(module))
    dotted = re.search(r"[\w.:/]*\w", re.sub(r"^\s*(?:import|from|use|#include)\s+", "", _text(module)))
    name = quoted[1] if quoted else dotted[0] if dotted else ""
    if name:
        yield Name("import", name)
    for child in node.children_by_field_name("name"):
        if module is not node:
            yield Name("import", _last(_text(child).split(" as ")[0]))


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def _last(name: str) -> str:
    words = _WORD.findall(re.split(r"\.|::|->", name)[-1])
    return words[-1] if words else ""
