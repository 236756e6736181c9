"""Door to datasketch: near duplicates by MinHash (Broder 1997) over runs of words, Jaccard 0.8.

0.8: the threshold of published deduplication of training text (Lee et al. 2022; NVIDIA's NeMo Curator).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from datasketch import MinHash, MinHashLSH

JACCARD = 0.8
TEXT_RUN, QUESTION_RUN = 5, 3  # words in a run: questions are too short for the runs of a text
_PERMUTATIONS = 128
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of `text`, lower case, without what stands between them."""
    return _WORD.findall(text.lower())


def runs_of(words: Sequence[str], run: int) -> set[str]:
    """Every run of `run` words; for fewer words all of them together; nothing of nothing."""
    if len(words) <= run:
        return {" ".join(words)} if words else set()
    return {" ".join(words[i : i + run]) for i in range(len(words) - run + 1)}


def jaccard(one: str, other: str, run: int = TEXT_RUN) -> float:
    """How alike two texts are, 0..1, counted exactly."""
    mine, its = runs_of(words_of(one), run), runs_of(words_of(other), run)
    return len(mine & its) / len(mine | its) if mine or its else 1.0


class NearDuplicates:
    """Texts by what they are alike to. The same texts in the same order give the same answers."""

    def __init__(self, run: int = TEXT_RUN) -> None:
        self._run = run
        self._index: Any = MinHashLSH(threshold=JACCARD, num_perm=_PERMUTATIONS)
        self._kept: list[tuple[str, MinHash]] = []

    def find(self, text: str) -> str | None:
        """The first text added that is at least 0.8 alike, by its key; None when there is none, or no word in it."""
        return self._look_up(self._hash(text))

    def add(self, key: str, text: str) -> str | None:
        """Keep `text` under `key` unless one like it is kept already: then that one's key."""
        mine = self._hash(text)
        if (known := self._look_up(mine)) is None and mine is not None:
            self._index.insert(len(self._kept), mine)
            self._kept.append((key, mine))
        return known

    def _look_up(self, mine: MinHash | None) -> str | None:
        if mine is None:
            return None
        close = [n for n in self._index.query(mine) if mine.jaccard(self._kept[n][1]) >= JACCARD]
        return self._kept[min(close)][0] if close else None

    def _hash(self, text: str) -> MinHash | None:
        runs = runs_of(words_of(text), self._run)
        if not runs:
            return None
        # crc32: ten times faster than the default SHA-1, and nobody here wants to collide.
        made = MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=crc32)
        made.update_batch([run.encode() for run in runs])
        return made
