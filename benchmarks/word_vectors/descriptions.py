"""Source text -> what somebody wrote about a piece of code, its name, and the code without the words. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePath

Described = tuple[str, str, str]  # a sentence, the dotted name that it is about ("" where none is seen), code

_MOST_LINES = 45
_CURLY = ".js .ts .tsx .jsx .mjs .go .rs .java .rb .php .c .h .cpp .hpp .cc .cs .swift .kt .scala .ex".split()
LANGUAGES = frozenset({".py", *_CURLY})
# Of no use, or somebody else's: what is tested, shown, copied in or generated.
_ASIDE = re.compile(
    r"(^|/)(tests?|testing|__tests__|spec|vendor|_vendor|third_party|node_modules|dist|min|locale|i18n|migrations"
    r"|examples?)(/|$)|\.min\.|_test\.|\.test\.|_pb2|bundle",
    re.IGNORECASE,
)
_SAYS_NOTHING = re.compile(
    r"copyright|licen[sc]e|all rights|auto-?generated|eslint|@ts-|pragma|noqa|https?://|TODO|FIXME|deprecated",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"^(.{12,400}?[.!?])(\s|$)", re.DOTALL)
COMMENT = re.compile(
    r"(?P<block>^[ \t]*/\*\*?(?P<inside>.*?)\*/[ \t]*\n)|(?P<lines>(?:^[ \t]*(?://+!?|#)(?!\!)[^\n]*\n)+)",
    re.DOTALL | re.MULTILINE,
)
DECLARES = re.compile(
    r"^\s*(?:#\[|@\w+|(?:export|default|public|private|protected|internal|static|async|abstract|final|override|pub"
    r"|unsafe|const|inline|virtual|extern|template|synchronized|fn|func|function|def|class|struct|enum|trait|impl"
    r"|interface|module|type|macro_rules!|let|var|val|object|void|int|bool|[A-Z]\w*(?:<[^>]*>)?)\b"
    r"|\w+\s*\([^;]*\)\s*\{|\w+\s*[:=]\s*(?:async\s*)?(?:function|\())"
)
_NAME = re.compile(
    r"(?:function\*?|func(?:\s*\([^)]*\))?|fn|def|class|struct|enum|trait|interface|module|type|const|let|var|impl)"
    r"\s+([A-Za-z_$][\w$.]*)|([A-Za-z_$][\w$]*)\s*[(=:]"
)


def described(path: str, text: str) -> Iterator[Described]:
    """What is described in the file `path` with this text; nothing for tests, copies and what is generated."""
    if is_described(path, text):
        yield from _in_python(text) if path.endswith(".py") else _below_comments(text)


def is_described(path: str, text: str) -> bool:
    """Whether the file is in a language that we read, somebody's own, and written by hand."""
    is_read = PurePath(path).suffix in LANGUAGES and not _ASIDE.search(path)
    return is_read and len(text) < 400_000 and max(map(len, text.split("\n"))) <= 2_000


def _in_python(text: str) -> Iterator[Described]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    yield from _documented(tree, text.split("\n"), ())


def _documented(parent: ast.AST, lines: list[str], names: tuple[str, ...]) -> Iterator[Described]:
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        inner = (*names, node.name)
        docstring = node.body[0]
        code = lines[node.lineno - 1 : docstring.lineno - 1]
        code += lines[docstring.end_lineno or 0 : node.end_lineno][:_MOST_LINES]
        sentence = first_sentence(ast.get_docstring(node) or "")
        if sentence and len(code) >= 3:
            yield sentence, ".".join(inner), "\n".join(code)
        yield from _documented(node, lines, inner)


def _below_comments(text: str) -> Iterator[Described]:
    for comment in COMMENT.finditer(text):
        rest = text[comment.end() : comment.end() + 4_000].split("\n")
        if not DECLARES.match(rest[0]):
            continue
        sentence = first_sentence(words_of(comment["inside"] or comment["lines"] or ""))
        code = "\n".join(declaration(rest))
        if sentence and len(code) > 60:
            name = _NAME.search(rest[0])
            yield sentence, (name and (name[1] or name[2])) or "", code


def words_of(comment: str) -> str:
    """A comment without its marks, its tags, and all that follows the first paragraph."""
    plain = "\n".join(re.sub(r"^\s*(?:\*|//+!?|#+)\s?", "", line) for line in comment.split("\n"))
    first = re.split(r"\n\s*@\w+|\n\s*\n|<p>|\n\s*#? *Example", plain)[0]
    return re.sub(r"\{@\w+\s+([^}]*)\}|<[^>]+>", lambda tag: tag[1] or "", first)


def declaration(lines: list[str]) -> list[str]:
    """The lines up to where the block of the first one closes, or the next description begins."""
    indent = _indent(lines[0])
    taken = [lines[0]]
    for line in lines[1:_MOST_LINES]:
        is_outside = bool(line.strip()) and _indent(line) <= indent
        if is_outside and re.match(r"\s*(/\*\*|///)", line):
            break
        taken.append(line)
        if is_outside and re.match(r"\s*(\}|end\b|\))", line):
            break
    return taken


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def first_sentence(text: str) -> str:
    """The first sentence, at most 300 characters; "" when it is too short, not ASCII, or says nothing of code."""
    plain = re.sub(r"\s+", " ", text).strip()
    found = _SENTENCE.match(plain)
    sentence = (found[1] if found else plain)[:300]
    is_enough = len(re.findall(r"[A-Za-z]{2,}", sentence)) >= 4 and sentence.isascii()
    return sentence if is_enough and not _SAYS_NOTHING.search(sentence) else ""
