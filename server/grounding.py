"""How much of an answer stands on code, without a model. Pure: what the index knows is asked through a door."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from indexer.search import Passage
from server.claims import Claims, Sentence, read_claims
from server.extract import Quote

# Below it the model's words are not shown alone; and what a name counts that stands elsewhere than in the lines that
# answer: it exists, but seldom is it the answer. Both from benchmarks/answers.md.
MIN_GROUNDEDNESS = 0.3
ELSEWHERE = 0.25

Knows = Callable[[str], bool]
_WORD = re.compile(r"[A-Za-z_$][\w$]*")


@dataclass(frozen=True, slots=True)
class Groundedness:
    """What an answer says, and how much of it was found.

    `names_in_lines` and `literals_in_lines` stand in the lines that answer best (the extractive answer's first quote);
    `names_elsewhere` in another passage or anywhere in the index; `unknown` names nowhere. `found_code_lines` stand in
    a passage. A sentence is cited when it marks a checked passage that holds a name or word of it; supported when it is
    cited, or when all its names and literals stand in the lines that answer. `repeated`: sentences said before.
    """

    names: int
    names_in_lines: int
    names_elsewhere: int
    literals: int
    literals_in_lines: int
    code_lines: int
    found_code_lines: int
    sentences: int
    cited_sentences: int
    supported_sentences: int
    repeated: int
    unknown: tuple[str, ...]

    @property
    def score(self) -> float:
        """0..1: the share of names, literals, code lines and sentences that were found; 0 when nothing is said."""
        said = self.names + self.literals + self.code_lines + self.sentences
        found = self.names_in_lines + self.literals_in_lines + self.found_code_lines + self.supported_sentences
        return (found + ELSEWHERE * self.names_elsewhere) / said if said else 0.0


@dataclass(frozen=True, slots=True)
class _Text:
    """A text to look claims up in."""

    text: str
    words: frozenset[str]

    @classmethod
    def of(cls, *parts: str) -> _Text:
        text = "\n".join(parts)
        return cls(text.replace('"', "'"), frozenset(_WORD.findall(text)))

    def has_name(self, name: str) -> bool:
        """A path or an option as it is written; any other name when each of its components is a word of the text."""
        if "/" in name or name.startswith("--"):
            return name in self.text
        return all(word in self.words for word in _WORD.findall(name))

    def has_literal(self, literal: str) -> bool:
        quoted = re.escape(literal.replace('"', "'"))
        return re.search(rf"(?<![\w.]){quoted}(?!\w)", self.text) is not None


@dataclass(frozen=True, slots=True)
class Sources:
    """What an answer can stand on: the passages, the lines of them that answer best first, and the index.

    `verified`: numbers (1-based) of the passages that still stand on disk. `knows`: does a name stand in the index?
    """

    passages: Sequence[Passage]
    quotes: Sequence[Quote]
    verified: Collection[int]
    knows: Knows


def measure(answer: str, question: str, sources: Sources) -> Groundedness:
    """The groundedness of `answer`. What the question gave proves nothing and is left out."""
    claims = read_claims(answer)
    asked = _Text.of(question)
    names = [name for name in claims.names if not asked.has_name(name)]
    literals = list(dict.fromkeys(one for s in claims.sentences for one in s.literals if not asked.has_literal(one)))
    lines = _Text.of(*(part for q in sources.quotes[:1] for part in (q.passage.path, q.symbol, *q.lines)))
    passages = [_Text.of(p.path, p.symbol, p.text) for p in sources.passages]
    in_lines = [name for name in names if lines.has_name(name)]
    elsewhere = [n for n in names if n not in in_lines and (any(p.has_name(n) for p in passages) or sources.knows(n))]
    cited = [s for s in claims.sentences if _is_cited(s, passages, sources)]
    supported = [s for s in claims.sentences if s in cited or _stands_in(s, lines, asked)]
    return Groundedness(
        names=len(names),
        names_in_lines=len(in_lines),
        names_elsewhere=len(elsewhere),
        literals=len(literals),
        literals_in_lines=sum(map(lines.has_literal, literals)),
        code_lines=len(claims.code_lines),
        found_code_lines=_count_found(claims.code_lines, sources.passages),
        sentences=len(claims.sentences),
        cited_sentences=len(cited),
        supported_sentences=len(supported),
        repeated=_repeated(claims),
        unknown=tuple(name for name in names if name not in in_lines and name not in elsewhere),
    )


def _is_cited(sentence: Sentence, passages: Sequence[_Text], sources: Sources) -> bool:
    """Does it mark a checked passage that holds one of its names, or where it has none, one of its longer words?"""
    wanted = {word for name in sentence.names for word in _WORD.findall(name)}
    wanted = wanted or {word for word in _WORD.findall(sentence.text) if len(word) > 4}
    marked = [passages[n - 1] for n in sentence.markers if n in sources.verified]
    return any(not wanted or wanted & passage.words for passage in marked)


def _stands_in(sentence: Sentence, lines: _Text, asked: _Text) -> bool:
    """Does it name or give anything that the question does not, and all of that stands in the lines that answer?"""
    names = [name for name in sentence.names if not asked.has_name(name)]
    literals = [one for one in sentence.literals if not asked.has_literal(one)]
    return bool(names or literals) and all(map(lines.has_name, names)) and all(map(lines.has_literal, literals))


def _count_found(code_lines: Sequence[str], passages: Sequence[Passage]) -> int:
    there = {" ".join(line.split()) for passage in passages for line in passage.text.splitlines()}
    return sum(" ".join(line.split()) in there for line in code_lines)


def _repeated(claims: Claims) -> int:
    said = [" ".join(sentence.text.lower().split()) for sentence in claims.sentences]
    return len(said) - len(set(said))
