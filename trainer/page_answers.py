"""What a model wrote about a page, read and checked: answerable from the page, new, in the page's language. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.tokens import STOPWORDS
from trainer.duplicates import JACCARD, QUESTION_RUN, jaccard

# Shares of the words that carry meaning: an answer takes its facts from the page, a question its subject.
MIN_ANSWER_OVERLAP, MIN_QUESTION_OVERLAP = 0.6, 0.34
_WORD = re.compile(r"\w+")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)
# The words that every text of a language has.
_SMALL_WORDS = {
    "English": "the of and to is in that it for are with this be you not how what do i can",
    "Italian": "il la di che e per un una non sono della con gli le si",
    "French": "le la les de des et un une que est pour dans pas vous sur",
    "German": "der die das und ist nicht ein eine zu den von mit auf wird für",
    "Spanish": "el la los de que y en un una por para con no es se del",
    "Portuguese": "o a os de que e em um uma para com não é se do da",
    "Dutch": "de het een en van is dat niet op te zijn voor met wordt aan",
}
_LANGUAGE_WORDS = {language: frozenset(words.split()) for language, words in _SMALL_WORDS.items()}


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer."""

    question: str
    answer: str


def read_pairs(text: str) -> list[Pair] | None:
    """The pairs in what a model wrote, also inside of a fence or after some words; None when it is no such JSON."""
    candidates = [text, *_FENCE.findall(text), text[text.find("{") : text.rfind("}") + 1]]
    for candidate in candidates:
        try:
            values = json.loads(candidate)
        except ValueError:
            continue
        found = values.get("pairs") if isinstance(values, dict) else values
        if isinstance(found, list):
            return [pair for pair in map(_read_pair, found) if pair is not None]
    return None


def check_pairs(pairs: Sequence[Pair], page: str) -> Iterator[tuple[Pair, str]]:
    """Each pair with what is wrong with it, "" when nothing is."""
    page_words, language = _meaningful(page), guess_language(page)
    kept: list[str] = []
    for pair in pairs:
        fault = _fault(pair, page_words, language, kept)
        if not fault:
            kept.append(pair.question)
        yield pair, fault


def guess_language(text: str) -> str:
    """The script of a text that is not Latin, else the language whose small words it has most; "" when unsure."""
    letters = [letter for letter in text[:4_000] if letter.isalpha()]
    foreign = [letter for letter in letters if ord(letter) > 0x24F]
    if letters and len(foreign) > 0.2 * len(letters):
        # Japanese is known by its kana, though most of its letters may be Han.
        names = {unicodedata.name(letter, "?").split()[0] for letter in foreign}
        return next((name for name in ("HIRAGANA", "KATAKANA", "HANGUL") if name in names), sorted(names)[0])
    words = _WORD.findall(text.lower())
    hits = {language: sum(word in small for word in words) for language, small in _LANGUAGE_WORDS.items()}
    first, second = sorted(hits.values(), reverse=True)[:2]
    # A question alone is short: two small words of another language are no proof.
    return max(hits, key=lambda language: hits[language]) if first >= 3 and first > 1.3 * second else ""


def _read_pair(values: Any) -> Pair | None:
    if not isinstance(values, dict):
        return None
    question, answer = values.get("question"), values.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str):
        return None
    return Pair(" ".join(question.split()), answer.strip())


def _fault(pair: Pair, page_words: set[str], language: str, kept: Sequence[str]) -> str:
    if len(pair.question) < 8 or len(pair.answer) < 2:
        return "too short"
    its = guess_language(f"{pair.question} {pair.answer}")
    if its and language and its != language:
        return "another language than the page"
    if (
        _overlap(pair.answer, page_words) < MIN_ANSWER_OVERLAP
        or _overlap(pair.question, page_words) < MIN_QUESTION_OVERLAP
    ):
        return "not answerable from the page"
    if any(jaccard(pair.question, other, QUESTION_RUN) >= JACCARD for other in kept):
        return "asked twice"
    return ""


def _overlap(text: str, page_words: set[str]) -> float:
    words = _meaningful(text)
    return len(words & page_words) / len(words) if words else 0.0


def _meaningful(text: str) -> set[str]:
    """Words by their first six letters (`deploys` is `deployed`); of scripts without spaces, pairs of letters."""
    found: set[str] = set()
    for word in _WORD.findall(text.lower()):
        if any(ord(letter) > 0x2E7F for letter in word):
            found |= {word[i : i + 2] for i in range(max(1, len(word) - 1))}
        elif word not in STOPWORDS and len(word) > 2:
            found.add(word[:6])
    return found
