"""What the code says of itself: its symbols with their first line and first sentence, and who uses them. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from indexer.chunking import Chunk, chunk_text
from indexer.languages import CONFIGURATION, PROSE, language_of
from indexer.lines import split_lines
from trainer.sources.snapshot import SnapshotFile

_MOST_USES = 4
_QUOTES = re.compile(r"""^[rbuf]*(?:\"{3}|'{3})\s*""", re.IGNORECASE)
_COMMENT = re.compile(r"^\s*(?:///?!?|#+!?|--+|;+|\*+(?!/)|/\*+!?|%+)\s?(.*?)\s*(?:\*+/)?\s*$")
_DECORATION = re.compile(r"^\s*(?:@|#\[|\[[A-Z])")
_SENTENCE = re.compile(r"^(.{15,300}?[.!?。！？])(?:\s|$)|^(.{15,300})$", re.DOTALL)
_WORD = re.compile(r"[^\W\d]\w{3,}")
_IDENTIFIER = re.compile(r"[\w$]+")
# A name, the quotes around it, and what would make it another thing of that name: a type or a value of its own.
_NAMED = re.compile(r"""(['"`]?)([\w$]+)(['"`]?)(\s*(?::(?!:)|=(?!=)))?""")
_IMPORT = re.compile(r"\s*(?:import|from|use|using|require|#include|export \{)\b")
_PLAIN = frozenset("main init test setup run start stop get set name value type data self this None True False".split())


@dataclass(frozen=True, slots=True)
class Symbol:
    """One definition. `name` dotted; `line` 1-based; `signature` that line, stripped; `about` the first sentence of its
    documentation, "" where it has none; `weight`: how recently its lines changed."""

    name: str
    path: str
    line: int
    signature: str
    about: str
    weight: float
    chunk: Chunk

    @property
    def last_name(self) -> str:
        return self.name.rsplit(".", 1)[-1]


@dataclass(frozen=True, slots=True)
class Use:
    """A line that names a symbol: in `path`, inside of the symbol `where` ("" at the top level)."""

    path: str
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class CodeFile:
    """A file with its chunks, the tokens that begin in each line, and the weight of its lines (None: all old)."""

    path: str
    text: str
    language: str
    chunks: tuple[Chunk, ...]
    line_tokens: Sequence[int]
    line_weights: Sequence[float] | None
    weight: float

    @property
    def is_code(self) -> bool:
        return self.language not in PROSE and self.language not in CONFIGURATION

    def weight_of(self, start_line: int, end_line: int) -> float:
        """Mean weight of lines `start_line`..`end_line`, 0..1."""
        if self.line_weights is None:
            return 0.0
        lines = self.line_weights[start_line - 1 : end_line]
        return round(sum(lines) / max(1, len(lines)), 6)


@dataclass(frozen=True, slots=True)
class Facts:
    """Of a whole repository: `symbols` that only one place defines, by file, and the `uses` of each by name."""

    symbols: dict[str, tuple[Symbol, ...]]
    uses: dict[str, tuple[Use, ...]]
    known: frozenset[str] = field(default_factory=frozenset)


def read_code(file: SnapshotFile, line_tokens: Sequence[int], line_weights: Sequence[float] | None) -> CodeFile:
    """A file cut into chunks."""
    language = language_of(file.path, file.text[:100])
    chunks = tuple(chunk_text(file.path, file.text, language))
    return CodeFile(file.path, file.text, language, chunks, line_tokens, line_weights, file.changed)


def read_facts(files: Sequence[CodeFile]) -> Facts:
    """The facts of `files`."""
    code = [file for file in files if file.is_code]
    defined = Counter(name for file in code for chunk in file.chunks for name in chunk.defines)
    symbols = {file.path: tuple(_symbols(file, defined)) for file in code}
    last = Counter(name.rsplit(".", 1)[-1] for name in defined)
    wanted = {
        symbol.last_name: symbol
        for found in symbols.values()
        for symbol in found
        if last[symbol.last_name] == 1 and len(symbol.last_name) > 3 and symbol.last_name not in _PLAIN
    }
    known = frozenset(word for file in files for word in _WORD.findall(f"{file.path} {file.text}"))
    return Facts(symbols, _uses(code, wanted), known)


def top_symbols(facts: Facts, path: str, most: int) -> list[Symbol]:
    """The symbols of a file that are worth asking about: those that changed last, then the documented ones.

    Nobody asks where a test is.
    """
    found = [symbol for symbol in facts.symbols.get(path, ()) if not symbol.name.startswith(("test_", "Test"))]
    return sorted(found, key=lambda s: (-round(s.weight, 2), not s.about, s.line))[:most]


def first_sentence(text: str) -> str:
    """The first sentence of a paragraph, on one line; "" when there is none of 15 to 300 characters."""
    paragraph = " ".join(re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0].split())
    match = _SENTENCE.match(paragraph)
    return (match[1] or match[2]) if match else ""


def about_file(text: str) -> str:
    """The first sentence that a file says of itself, in its leading comment or docstring."""
    lines = [line for line in split_lines(text)[:40] if not line.startswith("#!")]
    for number, line in enumerate(lines):
        if _QUOTES.match(line.strip()):
            return _docstring(lines[number:])
        comment = _COMMENT.match(line)
        if comment and comment[1]:
            sentence = first_sentence("\n".join(_comments(lines[number:])))
            return "" if re.search(r"(?i)copyright|licen[sc]e|spdx|coding[:=]|eslint|noqa", sentence) else sentence
        if line.strip() and not comment:
            return ""
    return ""


def _symbols(file: CodeFile, defined: Counter[str]) -> Iterable[Symbol]:
    for chunk in file.chunks:
        lines = split_lines(chunk.text)
        for name in chunk.defines:
            last = name.rsplit(".", 1)[-1]
            place = _line_of(last, lines) if defined[name] == 1 and len(last) > 2 else None
            if place is None:
                continue
            about = _docstring_below(lines, place) or _comment_above(lines, place)
            line = chunk.start_line + place
            signature = " ".join(lines[place].split())[:200]
            yield Symbol(name, file.path, line, signature, about, file.weight_of(line, line + 5), chunk)


def _line_of(name: str, lines: Sequence[str]) -> int | None:
    """The first line that has `name` as a word and is no comment."""
    # Not a pattern of its own for each name: compiling thousands takes longer than all the rest.
    holds = (n for n, line in enumerate(lines) if name in line and not _COMMENT.match(line))
    is_plain = name.replace("$", "a").isidentifier()
    return next((n for n in holds if not is_plain or name in _IDENTIFIER.findall(lines[n])), None)


def _docstring_below(lines: Sequence[str], place: int) -> str:
    """The first sentence of the docstring under a signature that begins at `place` and may go on for some lines."""
    for number in range(place, min(place + 10, len(lines) - 1)):
        if not lines[number].strip().endswith((",", "(", ":", "->", "[")):
            return ""
        if _QUOTES.match(lines[number + 1].strip()):
            return _docstring(lines[number + 1 :])
    return ""


def _docstring(lines: Sequence[str]) -> str:
    """The first sentence of the docstring that `lines` begin with; "" where they begin with none."""
    first = lines[0].strip()
    start = _QUOTES.match(first)
    if start is None:
        return ""
    quote = first.lstrip("rbufRBUF")[:3]
    return first_sentence("".join([first[start.end() :] + "\n", *lines[1:20]]).split(quote, 1)[0])


def _comment_above(lines: Sequence[str], place: int) -> str:
    first = place
    while first and (_COMMENT.match(lines[first - 1]) or _DECORATION.match(lines[first - 1])):
        first -= 1
    sentence = first_sentence("\n".join(_comments(lines[first:place])))
    # What begins small is a remark on the code, and says nothing of what it is for.
    return sentence if sentence[:1].isupper() or not sentence[:1].isascii() else ""


def _comments(lines: Sequence[str]) -> list[str]:
    """The text of the comment that `lines` begin with."""
    found: list[str] = []
    for line in lines:
        if _DECORATION.match(line):
            continue
        if (match := _COMMENT.match(line)) is None:
            break
        found.append(match[1])
    return found


def _uses(files: Sequence[CodeFile], wanted: dict[str, Symbol]) -> dict[str, tuple[Use, ...]]:
    found: defaultdict[str, list[Use]] = defaultdict(list)
    for file in files:
        for chunk in file.chunks:
            for name in dict.fromkeys(word for word in _WORD.findall(chunk.text) if word in wanted):
                symbol = wanted[name]
                where = chunk.symbol if chunk.symbol != symbol.name and not chunk.symbol.endswith("__") else ""
                if chunk is symbol.chunk or len(found[name]) >= _MOST_USES:
                    continue
                if line := _using_line(name, chunk):
                    found[name].append(Use(file.path, where, line))
    return {wanted[name].name: tuple(uses) for name, uses in found.items() if uses}


def _using_line(name: str, chunk: Chunk) -> str:
    """The first line that does something with `name`: no import or comment, not in quotes, not another of that name."""
    for line in split_lines(chunk.text):
        if name not in line or _COMMENT.match(line) or _IMPORT.match(line):
            continue
        if any(match[2] == name and not (match[1] or match[3] or match[4]) for match in _NAMED.finditer(line)):
            return line.strip()[:200]
    return ""
