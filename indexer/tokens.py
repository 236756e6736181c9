"""Code-aware tokens: `getUserName` is the word itself, `get`, `user` and `name`. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

_WORD = re.compile(r"[^\W\d_][\w$]*|\d+", re.UNICODE)
# An identifier with what it belongs to: `a`, `a.b`, `A::b`, `A#b`, `a->b`.
QUALIFIED_NAME = re.compile(r"[A-Za-z_$][\w$]*(?:(?:\.|::|#|->)[A-Za-z_$][\w$]*)*")
_PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+")
_MAX_TOKEN_CHARS = 80
STOPWORDS = frozenset(
    (
        "a an and are as at be by can could did do does for from get gets had has have how i if in into is it its me "
        "my of on or our should so such that the their them then there these they this those to use used uses using "
        "was we were what when where which while who whose why will with would you your code file files implement "
        "implementation implemented"
    ).split()
)


def tokens(text: str) -> list[str]:
    """Lower-case stems of all parts of all words in `text`, and each word of several parts as a whole, in order."""
    return [token for word in _WORD.findall(text) for token in word_tokens(word)]


@lru_cache(maxsize=200_000)
def word_tokens(word: str) -> tuple[str, ...]:
    """The tokens of one identifier or word: its whole (lower case) when it has several parts, then its parts' stems."""
    parts = [part.lower() for part in _PART.findall(word)]
    if len(parts) <= 1:
        return (stem(word.lower()[:_MAX_TOKEN_CHARS]),)
    return (_whole(word), *(stem(part) for part in parts if len(part) > 1 or part.isdigit()))


def _whole(word: str) -> str:
    return word.replace("_", "").replace("$", "").lower()[:_MAX_TOKEN_CHARS]


def query_tokens(text: str) -> list[str]:
    """The tokens of a question, each once, without the words that every question has (unless it has no others).

    Neighbours count as one word too: "type handler" asks for `TypeHandler` and `type_handler` as well.
    """
    kept = asked_words(text)
    joined = [_whole(one + two) for one, two in pairwise(kept)]
    return list(dict.fromkeys([*(token for word in kept for token in word_tokens(word)), *joined]))


def asked_words(text: str) -> list[str]:
    """The words of a question, in order, without those that every question has (unless it has no others)."""
    words = _WORD.findall(text)
    return [word for word in words if word.lower() not in STOPWORDS] or words


_SUFFIXES = (
    ("ization", "ize"), ("isation", "ize"), ("ations", ""), ("ation", ""), ("ators", ""), ("ator", ""), ("ating", ""),
    ("ated", ""), ("ates", ""), ("ate", ""), ("ions", ""), ("ion", ""), ("ments", ""), ("ment", ""), ("ings", ""),
    ("ing", ""), ("ers", ""), ("ies", "y"), ("er", ""), ("ors", ""), ("or", ""), ("ed", ""), ("es", ""), ("s", ""),
    ("ly", ""), ("e", ""),
)  # fmt: skip


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """A light stem: `routes`, `router`, `routing` -> `rout`. At least four letters stay; not English only in effect."""
    if len(word) < 5 or not word.isascii():
        return word[:-1] if len(word) == 4 and word.endswith("s") and word[-2] not in "su" else word
    for suffix, put in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) + len(put) >= 4 and not word.endswith("ss"):
            word = word[: len(word) - len(suffix)] + put
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] in "bdgmnprt":
        return word[:-1]  # mapping -> mapp -> map
    return word[:-1] + "i" if word.endswith("y") else word
