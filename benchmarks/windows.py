"""The floor: BM25 over fixed windows of lines, by plain words. What a search of an afternoon would find."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from math import log

from indexer.chunking import Chunk
from indexer.lines import split_lines

LINES = 50
K1, B = 1.2, 0.75  # Robertson and Zaragoza, 2009; Lucene's
_WORD = re.compile(r"\w+")


class Windows:
    """The windows of some files, `texts` by path."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._chunks = [window for path, text in texts.items() for window in _windows(path, text)]
        self._postings: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._lengths: list[int] = []
        for row, chunk in enumerate(self._chunks):
            counts = Counter(_words(chunk.text))
            self._lengths.append(counts.total())
            for word, count in counts.items():
                self._postings[word].append((row, count))
        self._mean_length = sum(self._lengths) / max(1, len(self._lengths))

    def search(self, text: str, k: int) -> list[Chunk]:
        """The `k` windows that score best, best first."""
        scores: defaultdict[int, float] = defaultdict(float)
        for word in dict.fromkeys(_words(text)):
            found = self._postings.get(word, [])
            rarity = log(1 + (len(self._chunks) - len(found) + 0.5) / (len(found) + 0.5))
            for row, count in found:
                length = 1 - B + B * self._lengths[row] / self._mean_length
                scores[row] += rarity * count * (K1 + 1) / (count + K1 * length)
        best = sorted(scores, key=lambda row: (-scores[row], row))[:k]
        return [self._chunks[row] for row in best]


def _windows(path: str, text: str) -> list[Chunk]:
    lines = split_lines(text)
    return [
        Chunk(path, first + 1, min(first + LINES, len(lines)), "", "", (), "".join(lines[first : first + LINES]))
        for first in range(0, len(lines), LINES)
    ]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
