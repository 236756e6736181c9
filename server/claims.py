"""What an answer says that can be looked up: sentences, names, quoted lines of code. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from indexer.languages import LANGUAGE_BY_SUFFIX
from indexer.tokens import QUALIFIED_NAME

_FENCE = re.compile(r"^\s{0,3}(```+|~~~+)[^\n]*\n(.*?)(?:^\s{0,3}\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s)|\n+")
_BULLET = re.compile(r"^\s*(?:[-*+#>]+|\d+[.)])\s+")
_MARKER = re.compile(r"\[(\d{1,3})\](?!\()")
_IN_TICKS = re.compile(r"`([^`\n]{1,200})`")
_PATH = re.compile(r"(?<![\w/.])(?:[\w@.+-]+/)*[\w@+-]+\.[A-Za-z]\w{0,9}\b(?!\()|(?<![\w/.])(?:[\w@.+-]+/)+[\w@.+-]+")
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]+")
_LITERAL = re.compile(
    r"(?<![\w.\-])(?:\d(?:[\d_.]{0,30}\d)?(?![\w.]*\w)|(?:True|False|None)\b)"
    r"|`(?:true|false|null|b?'[^'`\n]*'|b?\"[^\"`\n]*\")`|(?<!\w)\"[^\"\s]{1,40}\"(?!\w)"
)
_LINE_NUMBERS = re.compile(r"\blines? \d+(?: ?[-–,] ?\d+| (?:to|and) \d+)*")
_CODE_LIKE = re.compile(r"[a-z\d][A-Z]|_|\w\.\w|::|#|->")
_ABBREVIATION = re.compile(r"^(?:e\.g|i\.e|etc|vs|cf|a\.k\.a)\b", re.IGNORECASE)
_LITERALS = frozenset("true false none null nil self this args kwargs int str bytes bool float dict list".split())


@dataclass(frozen=True, slots=True)
class Sentence:
    """One statement outside the code blocks: `markers` are the passages it cites, `names` what it names, `literals`
    the numbers, constants and quoted words in it."""

    text: str
    markers: tuple[int, ...]
    names: tuple[str, ...]
    literals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claims:
    """All that an answer says: its sentences, and the lines of its code blocks (stripped, none blank)."""

    sentences: tuple[Sentence, ...]
    code_lines: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of a file, symbol or option in the sentences, each once."""
        return tuple(dict.fromkeys(name for sentence in self.sentences for name in sentence.names))


def read_claims(answer: str) -> Claims:
    """What `answer` (Markdown) says. A block that was never closed is code to its end."""
    blocks = [match[2] for match in _FENCE.finditer(answer)]
    lines = tuple(line.strip() for block in blocks for line in block.splitlines() if line.strip())
    return Claims(tuple(_sentences(_FENCE.sub("\n", answer))), lines)


def _sentences(prose: str) -> Iterator[Sentence]:
    for part in _SENTENCE_END.split(prose):
        text = _BULLET.sub("", part).strip()
        if text.endswith(":") or not re.search(r"[^\W\d]", _MARKER.sub("", text)):
            continue  # what only leads to the next line says nothing itself
        markers = tuple(int(match[1]) for match in _MARKER.finditer(text))
        yield Sentence(text, markers, tuple(names_of(text)), tuple(literals_of(_MARKER.sub("", text))))


def literals_of(text: str) -> list[str]:
    """The values that a sentence gives, each once, in order: `30`, `True`, "a string"; not the numbers of lines."""
    return list(dict.fromkeys(match.strip("`") for match in _LITERAL.findall(_LINE_NUMBERS.sub("", text))))


def names_of(text: str) -> list[str]:
    """Names of files, symbols and options in a sentence, each once, in order.

    In backticks every name counts; outside only what no English word looks like: `a.b`, `a_b`, `aB`, `f()`, `--option`.
    """
    found: list[str] = []
    for quoted in _IN_TICKS.findall(text):
        found += _names(quoted, quoted=True)
    found += _names(_IN_TICKS.sub(" ", text), quoted=False)
    return list(dict.fromkeys(found))


def _names(text: str, quoted: bool) -> list[str]:
    text = re.sub(r"https?://\S+", " ", text)
    written = (path.rstrip(".") for path in _PATH.findall(text))
    paths = [path for path in written if ("/" in path or _has_extension(path)) and not _is_prose(path)]
    options = _OPTION.findall(text)
    for whole in (*paths, *options):
        text = text.replace(whole, " ")
    names = [match[0] for match in QUALIFIED_NAME.finditer(_strings_cut(text)) if quoted or _looks_like_code(match)]
    return [*paths, *options, *(name for name in names if len(name) > 1 and name.lower() not in _LITERALS)]


def _strings_cut(text: str) -> str:
    return re.sub(r"\"[^\"]*\"|(?<!\w)'[^']*'(?!\w)", " ", text)


def _looks_like_code(match: re.Match[str]) -> bool:
    name = match[0]
    called = match.string[match.end() : match.end() + 1] == "("
    return called or (bool(_CODE_LIKE.search(name)) and not _ABBREVIATION.match(name))


def _has_extension(path: str) -> bool:
    return path.rsplit(".", 1)[-1] in LANGUAGE_BY_SUFFIX


def _is_prose(path: str) -> bool:
    """`and/or`, `input/output`: two plain words with a slash between them name no file."""
    return "." not in path and "_" not in path and path.count("/") == 1
