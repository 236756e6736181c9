"""A question -> the passages to answer from, and what must be said about them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.named import names_in
from indexer.search import Passage
from indexer.tokens import STOPWORDS, tokens
from server.disagree import Disagreement, disagreements, say_disagreement
from server.doors import Doors
from server.extract import extract
from server.prompt import Question

# Of a question's words, the least share that its passages must hold: benchmarks/answers.md, "About nothing".
MIN_SUPPORT = 0.5
# Words that ask and say nothing of what is asked about.
_ASKING = frozenset(
    (
        "please thanks thank hello explain describe show tell give find list help summarize summary overview purpose "
        "repository repo project codebase program work works working start starts begin main thing things mean means "
        "function functions method methods class classes module default defaults value exception error raise raises "
        "raised defined defines implemented implements declared holds contains called calls returns returned "
        "happen happens detail details example understand know need want look there here about also kind sort many much"
    ).split()
)
_ENGLISH = frozenset("the a an is are does do what which how where who why of to it this".split())
_WANTS_WORK = re.compile(
    r"\b(?:(?:re)?write|add|create|implement|generate|introduce|rename|draft|propose|suggest|make|refactor|fix|improve"
    r"|optimi[sz]e|convert|translate|simplify)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Found:
    """Passages best first, and whether they are enough to answer from.

    `unknown` are names of the question that stand nowhere in the index; `support` (0..1) is the share of the question's
    words that the passages hold; `disagreements` is what prose and code say differently, as sentences.
    """

    passages: tuple[Passage, ...]
    unknown: tuple[str, ...] = ()
    support: float = 1.0
    disagreements: tuple[str, ...] = ()
    is_enough: bool = True


async def retrieve(question: Question, k: int, doors: Doors) -> Found:
    """The `k` passages for `question`: those of the files and symbols it names first. Raises `IndexUnavailable`."""
    overlays = dict(question.overlays)
    if question.path and question.buffer is not None:
        overlays[question.path] = question.buffer
    text = search_text(question)
    named = await doors.find_named(text, overlays) if k else ()
    searched = await doors.search(text, k, overlays)
    passages = merge(_best_first(text, named), searched, k)
    names = named_outright(question.text)
    unknown = await asyncio.to_thread(lambda: tuple(name for name in names if not doors.knows(name)))
    said = [await _dated(one, doors) for one in disagreements(passages)]
    supported = support(question, passages)
    is_enough = bool(_WANTS_WORK.search(question.text)) or (
        supported >= MIN_SUPPORT and not (unknown and len(unknown) == len(names))
    )
    return Found(passages, unknown, supported, tuple(said), is_enough)


def search_text(question: Question) -> str:
    """What to search for: the question, and in a conversation also the user's turn before it, which it may refer to."""
    earlier = [turn.content for turn in question.conversation if turn.role == "user"][-1:]
    return "\n".join([question.text, *earlier])


def _best_first(text: str, named: Sequence[Passage]) -> Sequence[Passage]:
    """What is named, the definition first, then by how well its lines answer."""
    quotes = extract(text, named, most=len(named))
    return [*named[:1], *(quote.passage for quote in quotes), *named]


def merge(named: Sequence[Passage], searched: Sequence[Passage], k: int) -> tuple[Passage, ...]:
    """What is named first, at most half of the room unless the search found too little; each place once."""
    half = max(1, k // 2) if searched else k
    first = list({(p.path, p.start_line): p for p in named}.values())[:half]
    return tuple({(p.path, p.start_line): p for p in (*first, *searched)}.values())[:k]


def named_outright(text: str) -> tuple[str, ...]:
    """The names of files and symbols in `text`, without capitalised words that may be plain English."""
    named = names_in(text)
    return tuple(dict.fromkeys(name for name in (*named.files, *named.symbols) if _is_surely_a_name(name)))


def _is_surely_a_name(name: str) -> bool:
    """Not a capitalised word of English: it has an underscore, a dot, a slash, or a capital inside."""
    return bool(re.search(r"_|[./]|[a-z\d][A-Z]|[A-Z]{2,}[a-z]", name))


def support(question: Question, passages: Sequence[Passage]) -> float:
    """The share of the question's words that its passages hold, longer words counting more.

    1 where that says nothing: for a question about what is open or marked, for one with less than two words of its
    own, and for one in another language than the code's words.
    """
    text = search_text(question)
    words = [one for word in re.findall(r"\w+", text) if word.lower() not in _ASKING for one in _own_tokens(word)]
    is_english = bool(_ENGLISH & set(text.lower().split()))
    if question.selection or question.path or len(words) < 2 or not is_english:
        return 1.0
    there = {token for passage in passages for token in tokens(f"{passage.path} {passage.symbol} {passage.text}")}
    return sum(len(word) for word in words if word in there) / sum(map(len, words))


def _own_tokens(word: str) -> list[str]:
    return [] if word.lower() in STOPWORDS else [token for token in tokens(word) if len(token) > 2]


async def _dated(one: Disagreement, doors: Doors) -> str:
    days = [await doors.last_changed(claim.path) for claim in (one.prose, one.code)]
    return say_disagreement(one, *days)
