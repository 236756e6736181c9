"""What a text names outright, files and symbols: found by name, not by likeness."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexer.chunking import Chunk
from indexer.overlays import chunk_overlay
from indexer.parts import Parts
from indexer.ranking import Candidate, Query, rank
from indexer.search import CurrentTexts, Passage, verify
from indexer.tokens import STOPWORDS, word_tokens
from indexer.word_counts import bm25

# Each begins only where a word does: else a long run of letters is read again from each of them.
_FILE = re.compile(r"(?<![\w@+-])[\w@+-]*(?:[/.][\w@+-]+)+|\b[A-Z]\w+file\b|\bREADME\b|\bLICENSE\b")
_QUOTED = re.compile(r"`([^`\s]{1,120})`")
_CALL = re.compile(r"(?<![\w$.])([A-Za-z_$][\w$.]*)\(\)")
_CODE_LIKE = re.compile(r"[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)*")
_WORD = re.compile(r"[^\W\d_][\w$]*|_[\w$]+")
_MOST_FILES = 3  # of one name: `__init__.py` is no file but many
_CHUNKS_A_FILE = 6
_CHUNKS_A_SYMBOL = 6


@dataclass(frozen=True, slots=True)
class Named:
    """The names of files and of symbols that a text may mean; which of them exist is the index's to say."""

    files: tuple[str, ...]
    symbols: tuple[str, ...]


def names_in(text: str) -> Named:
    """What `text` may name: a word with a dot or a slash is a file or a symbol; `quoted`, called() or Capitalised
    words, and those with an underscore or a capital inside, are symbols."""
    files = [word.strip("./") for word in _FILE.findall(text)]
    marked = [name.strip("().:") for name in (*_QUOTED.findall(text), *_CALL.findall(text))]
    looks = [word for word in _CODE_LIKE.findall(text) if re.search(r"[A-Z]|_|\w\.\w", word)]
    symbols = [name for name in (*marked, *looks) if name.lower() not in STOPWORDS and len(name) > 1]
    return Named(tuple(dict.fromkeys(filter(None, files))), tuple(dict.fromkeys(symbols)))


def find_named(text: str, parts: Parts, overlays: Mapping[str, str]) -> list[Passage]:
    """The passages of the files that `text` names and of the symbols that it names: a few of each, best first."""
    named = names_in(text)
    current = CurrentTexts(parts, overlays)
    query = Query(text)
    chunks: list[Chunk] = []
    for name in named.files:
        for path in parts.catalogue.paths_named(name, _MOST_FILES):
            chunks += _best(query, _chunks_of(path, parts, overlays), parts, _CHUNKS_A_FILE)
    for name in named.symbols:
        chunks += _best(query, _definers(name, parts), parts, _CHUNKS_A_SYMBOL)
    verified = (verify(chunk, 1.0, current) for chunk in dict.fromkeys(chunks))
    return _each_place_once(passage for passage in verified if passage)


def is_known(name: str, parts: Parts) -> bool:
    """Does `name` stand anywhere in the index: a file's path or its end, or code that has each of its words?

    A name of several words (`max_age`, `maxAge`) must stand there as a whole; dotted names in each component.
    """
    if ("/" in name or "." in name) and parts.catalogue.paths_named(name.strip("./"), 1):
        return True
    if "/" in name:
        return False
    words = _WORD.findall(name)
    return bool(words) and all(_is_word_known(word, parts) for word in words)


def _is_word_known(word: str, parts: Parts) -> bool:
    token = next(iter(word_tokens(word.strip("_") or word)))
    return any(parts.lexical.document_frequency(field, token) for field in ("body", "symbol", "path"))


def _chunks_of(path: str, parts: Parts, overlays: Mapping[str, str]) -> Sequence[Chunk]:
    return chunk_overlay(path, overlays[path]) if path in overlays else parts.catalogue.chunks_of(path)


def _definers(name: str, parts: Parts) -> list[Chunk]:
    """Chunks that define exactly `name`, or a dotted name that ends in it; and what is inside of it."""
    ids = parts.catalogue.definers([name.rsplit(".", 1)[-1].lower()], 50)
    ends = f".{name}"
    found: dict[str, Chunk] = {}
    for chunk in parts.catalogue.chunks(ids).values():
        for whole in (one for one in chunk.defines if one == name or one.endswith(ends)):
            inside = (c for c in parts.catalogue.chunks_of(chunk.path) if f"{c.symbol}.".startswith(f"{whole}."))
            found |= {one.id: one for one in (chunk, *inside)}
    return list(found.values())


def _best(query: Query, chunks: Iterable[Chunk], parts: Parts, most: int) -> list[Chunk]:
    candidates = [Candidate(chunk, bm25(query.tokens, chunk, parts.lexical)) for chunk in chunks]
    return [chunk for chunk, _ in rank(query, candidates)[:most]]


def _each_place_once(passages: Iterable[Passage]) -> list[Passage]:
    return list({(passage.path, passage.start_line): passage for passage in passages}.values())
