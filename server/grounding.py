"""How much of an answer stands on code, without a model. Pure: what the index knows is asked through a door."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from indexer.search import Passage
from server.claims import Claims, Sentence, read_claims

# Below it the model's words are not shown alone: benchmarks/answers.md.
MIN_GROUNDEDNESS = 0.5

Knows = Callable[[str], bool]
_WORD = re.compile(r"[A-Za-z_$][\w$]*")


@dataclass(frozen=True, slots=True)
class Groundedness:
    """What an answer says and how much of it was found.

    Names and code lines count as found when a passage holds them; `known_names` stand elsewhere in the index, `unknown`
    nowhere. A sentence counts as cited when it marks a passage that was checked and that holds a name
    or word of it. `repeated`: sentences that were said before.
    """

    names: int
    found_names: int
    known_names: int
    code_lines: int
    found_code_lines: int
    sentences: int
    cited_sentences: int
    repeated: int
    unknown: tuple[str, ...]

    @property
    def score(self) -> float:
        """0..1: the share of names, code lines and sentences that were found; 0 for an answer that says nothing."""
        said = self.names + self.code_lines + self.sentences
        found = self.found_names + self.found_code_lines + self.cited_sentences
        return found / said if said else 0.0


def measure(
    answer: str, question: str, passages: Sequence[Passage], verified: Collection[int], knows: Knows
) -> Groundedness:
    """The groundedness of `answer`; `verified` are the numbers (1-based) of the passages that still stand on disk.

    Names that the question gave prove nothing and are left out.
    """
    claims = read_claims(answer)
    asked = set(_WORD.findall(question))
    names = [name for name in claims.names if not set(_WORD.findall(name)) <= asked]
    texts = [_text_of(passage) for passage in passages]
    words = {word for text in texts for word in _WORD.findall(text)}
    found = [name for name in names if _stands_in(name, words, texts)]
    unknown = tuple(name for name in names if name not in found and not knows(name))
    lines = {" ".join(line.split()) for text in texts for line in text.splitlines()}
    code = [" ".join(line.split()) for line in claims.code_lines]
    cited = [s for s in claims.sentences if any(n in verified and _backs(texts[n - 1], s) for n in s.markers)]
    return Groundedness(
        names=len(names),
        found_names=len(found),
        known_names=len(names) - len(found) - len(unknown),
        code_lines=len(code),
        found_code_lines=sum(line in lines for line in code),
        sentences=len(claims.sentences),
        cited_sentences=len(cited),
        repeated=_repeated(claims),
        unknown=unknown,
    )


def _text_of(passage: Passage) -> str:
    return f"{passage.path}\n{passage.symbol}\n{passage.text}"


def _stands_in(name: str, words: Collection[str], texts: Sequence[str]) -> bool:
    """A path or option as it is written; any other name when each of its components stands there as a whole word."""
    if "/" in name or name.startswith("--"):
        return any(name in text for text in texts)
    return all(word in words for word in _WORD.findall(name))


def _backs(text: str, sentence: Sentence) -> bool:
    """Does the cited passage hold anything of the sentence: one of its names, or where it has none, a longer word?"""
    wanted = {word for name in sentence.names for word in _WORD.findall(name)}
    wanted = wanted or {word for word in _WORD.findall(sentence.text) if len(word) > 4}
    return not wanted or bool(wanted & set(_WORD.findall(text)))


def _repeated(claims: Claims) -> int:
    said = [" ".join(sentence.text.lower().split()) for sentence in claims.sentences]
    return len(said) - len(set(said))
