"""The extractive answer: the lines of the best passages that answer a question, quoted. No model; pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import log

from indexer.search import Passage
from indexer.tokens import STOPWORDS, tokens, word_tokens
from server.citations import cited, renumber
from server.prompt import visible
from server.statements import beginning, defined_name, enclosing, indent_of, lines_of, statement

MOST_PASSAGES = 3
_MOST_LINES = 12  # of one passage; the last statement that is taken may go over it
_MOST_STATEMENT_LINES = 5
_MOST_HEAD_LINES = 10  # a signature over more lines is cut
_RANK_DECAY = 0.25  # how much less a line of the next passage counts: the search knows more than the words do
_WITHOUT_RAISE = 0.6  # what a passage that raises nothing is worth to a question about an exception

_ASSIGNED = re.compile(r"(?<![\w$])([A-Za-z_$][\w$]*)\s*(?::\s*[^=\n]{1,120}?)?\s*=\s*(?![=>])\S")
_RAISES = re.compile(r"\b(?:raise|throw|panic!?|abort)\b|\bErr\(|errors\.New")
_RETURNS = re.compile(r"^\s*return\b")
_ASKS_VALUE = re.compile(r"\b(?:defaults?|value|set to|how many|how long|how often|how large|limit|version|timeout)\b")
_ASKS_ERROR = re.compile(r"\b(?:raises?d?|exceptions?|errors?|throws?|fails?|panics?)\b")
_ASKS_RETURN = re.compile(r"\b(?:returns?|gives? back|result)\b")
# One line that names nothing and ends with the marker: a longer answer that ends "as is shown in [1]." says more.
_MARKER_AS_NAME = re.compile(
    r"\A[^\n`]*\b(?:is|are|in|by|see|file|function|method|class)\s+(?:\[\d{1,3}\])+[\s.]*\Z", re.I
)
_NAME = re.compile(r"[A-Za-z_$][\w$]*")
_FILE_NAME = re.compile(r"[\w-]+\.\w+")
_WORD = re.compile(r"[^\W\d_][\w$]*|\d+|_[\w$]+")


@dataclass(frozen=True, slots=True)
class Quote:
    """Lines of a passage that answer. `number`: the passage's, 1-based; `spans`: (first, last) lines of the file."""

    number: int
    passage: Passage
    symbol: str
    spans: tuple[tuple[int, int], ...]
    score: float

    @property
    def lines(self) -> tuple[str, ...]:
        """The quoted lines, without their ends; a "…" stands between two spans."""
        text = lines_of(self.passage.text)
        start = self.passage.start_line
        parts = ["\n".join(text[first - start : last - start + 1]) for first, last in self.spans]
        return tuple("\n…\n".join(parts).split("\n"))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question as the lines are scored by it: its tokens with their rarity, the names in it, what kind it is."""

    weights: dict[str, float]
    names: frozenset[str]
    value: bool
    error: bool
    returned: bool


def extract(question: str, passages: Sequence[Passage], most: int = MOST_PASSAGES) -> tuple[Quote, ...]:
    """Quotes of the up to `most` passages (given best first) whose lines answer `question` best, best first.

    Empty when no line of any passage shares a word with the question.
    """
    asked = _read(question, passages)
    quotes = [_quote(number, passage, asked) for number, passage in enumerate(passages, 1)]
    ranked = sorted((quote for quote in quotes if quote.score > 0), key=lambda quote: -quote.score)
    return tuple(ranked[:most])


def write_extract(quotes: Sequence[Quote]) -> str:
    """The quotes as Markdown: for each what and where it is, its marker, and the lines."""
    return "\n\n".join(map(_write_quote, quotes))


def spelled_out(answer: str, passages: Sequence[Passage], most: int = 3) -> str:
    """What is missing where a marker stands for a name ("[1]", "It is in [1]."): what and where each marked passage is;
    "" for any other answer.

    Qwen2.5-Coder-1.5B, asked in which file something is, mostly answers `[1]`.
    """
    numbers = cited(answer, passages)[:most]
    if not numbers or (re.search(r"\w", renumber(answer, {})) and not _MARKER_AS_NAME.search(answer)):
        return ""
    marked = [(n, passages[n - 1]) for n in numbers]
    named = [f"{_name(p.symbol, p.path, [(p.start_line, p.end_line)])} [{n}]" for n, p in marked]
    return f"\n\n{'; '.join(named)}"


def _write_quote(quote: Quote) -> str:
    named = _name(quote.symbol, quote.passage.path, quote.spans)
    code = visible("\n".join(quote.lines))
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall(r"`{3,}", code))])
    block = f"{fence}{quote.passage.language}\n{code}\n{fence}"
    return f"{named} [{quote.number}]:\n\n{block}"


def _name(symbol: str, path: str, spans: Sequence[tuple[int, int]]) -> str:
    """What it is, and where, as Markdown."""
    what = f"{_ticked(symbol)} in " if symbol else ""
    where = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
    lines = "line" if len(spans) == 1 and spans[0][0] == spans[0][1] else "lines"
    return f"{what}{_ticked(path)}, {lines} {where}"


def _ticked(name: str) -> str:
    """`name` as Markdown code, whatever a file is called."""
    return f"`{visible(name).replace('`', chr(39))}`"


def _read(question: str, passages: Sequence[Passage]) -> _Asked:
    lines = [set(tokens(line)) for passage in passages for line in lines_of(passage.text) if line.strip()]
    having = Counter(token for line in lines for token in line)
    weights: dict[str, float] = {}
    for word in _WORD.findall(question):
        whole, *parts = word_tokens(word)
        if word.lower() not in STOPWORDS:
            for token in (whole, *parts):  # the parts of `getUserName` count together as much as the whole
                weights.setdefault(token, _rarity(len(lines), having[token]) / (1 if token == whole else len(parts)))
    lower = question.lower()
    return _Asked(
        weights,
        frozenset((*_NAME.findall(question), *_FILE_NAME.findall(question))),
        bool(_ASKS_VALUE.search(lower)),
        bool(_ASKS_ERROR.search(lower)),
        bool(_ASKS_RETURN.search(lower)),
    )


def _rarity(lines: int, having: int) -> float:
    return log(1 + lines / (1 + having))


def _quote(number: int, passage: Passage, asked: _Asked) -> Quote:
    lines = lines_of(passage.text)
    scores = [_score(line, asked) for line in lines]
    best = max(range(len(lines)), key=lambda n: scores[n], default=0)
    if not lines or scores[best] <= 0:
        return Quote(number, passage, passage.symbol, (), 0.0)
    head = enclosing(lines, best)
    chosen = _choose(lines, scores, asked)
    total = sum(sorted((scores[n] for n in chosen), reverse=True)[:3]) + _named(passage, lines, asked)
    if asked.error and not any(map(_RAISES.search, lines)):
        total *= _WITHOUT_RAISE
    score = total / (1 + _RANK_DECAY * (number - 1))
    return Quote(number, passage, _symbol(passage, lines, head), _spans(chosen, passage.start_line), score)


def _choose(lines: Sequence[str], scores: Sequence[float], asked: _Asked) -> set[int]:
    """Indices of the statements that answer best, each with the head of what it is in."""
    ranked = sorted(range(len(lines)), key=lambda n: (-scores[n], n))
    # The line that defines what is asked about has all the words; what answers stands below it.
    below = [scores[n] for n, line in enumerate(lines) if not _defines(line, asked.names)]
    bar = (max(below, default=0.0) or scores[ranked[0]]) / 2
    chosen: set[int] = set()
    for index in ranked:
        if scores[index] < bar or len(chosen) >= _MOST_LINES:
            break
        above = enclosing(lines, index)
        chosen.update(statement(lines, above, _MOST_HEAD_LINES) if above is not None else ())
        chosen.update(statement(lines, beginning(lines, index), _MOST_STATEMENT_LINES))
    return chosen


def _score(line: str, asked: _Asked) -> float:
    """What a line is worth as an answer: the rarity of the asked words that it has, more for the kind asked for."""
    score = sum(asked.weights.get(token, 0.0) for token in set(tokens(line)))
    assigned = set(_ASSIGNED.findall(line))
    if asked.value and assigned:
        score += 3.0 if asked.names & assigned else 1.0 if score else 0.0
    if asked.error and _RAISES.search(line):
        score += 2.5
    if asked.returned and _RETURNS.search(line):
        score += 1.5
    return score


def _named(passage: Passage, lines: Sequence[str], asked: _Asked) -> float:
    """What a passage is worth for being of what the question names: its symbol, its file, or what it defines."""
    parts = set(passage.symbol.split(".")) | {passage.path.rsplit("/", 1)[-1]}
    return 2.0 * len(parts & asked.names) + 3.0 * any(_defines(line, asked.names) for line in lines)


def _defines(line: str, names: Collection[str]) -> bool:
    return defined_name(line) in names


def _symbol(passage: Passage, lines: Sequence[str], head: int | None) -> str:
    """The dotted name of what is quoted: the definition's own, below the passage's symbol where that encloses it."""
    name = defined_name(lines[head]) if head is not None else ""
    *outer, last = passage.symbol.split(".")
    if not name or last == name:
        return passage.symbol
    scope = passage.symbol if indent_of(lines[head or 0]) else ""
    first = next(filter(None, map(defined_name, lines)), "")
    if scope and outer and first == last:
        scope = ".".join(outer)  # the passage begins with one method, and this is another after it
    return f"{scope}.{name}" if scope else name


def _spans(chosen: set[int], start_line: int) -> tuple[tuple[int, int], ...]:
    """Runs of neighbouring lines as (first, last), in lines of the file; a gap of one line is closed."""
    spans: list[tuple[int, int]] = []
    for index in sorted(chosen):
        if spans and index - spans[-1][1] <= 2:
            spans[-1] = (spans[-1][0], index)
        else:
            spans.append((index, index))
    return tuple((first + start_line, last + start_line) for first, last in spans)
