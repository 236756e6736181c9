"""Citations: markers in the answer tied to passages by code, and checked against the disk when the answer ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from indexer.search import Passage

_MARKER = re.compile(r"\s?\[(\d{1,3})\](?!\()")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{3,}")

StillThere = Callable[[Passage], bool]


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a statement stands: `index` is its marker `[index]`, `commit` the checked-out one ("" outside git).

    `verified`: when the answer ended, the file's lines still had exactly the text that the model was shown.
    `repository`: its name in a fleet, where `path` begins with it, "" elsewhere.
    """

    index: int
    path: str
    start_line: int
    end_line: int
    commit: str
    sha256: str
    verified: bool
    repository: str = ""


def remove_unknown_markers(answer: str, passages: int) -> str:
    """`answer` without the markers `[n]` that refer to none of the passages 1 to `passages`."""
    return renumber(answer, {n: n for n in range(1, passages + 1)})


def renumber(answer: str, numbers: Mapping[int, int]) -> str:
    """`answer` with each marker `[n]` as `[numbers[n]]`, and without those that `numbers` does not have."""

    def put(match: re.Match[str]) -> str:
        number = numbers.get(int(match[1]))
        return "" if number is None else f"{match[0][: -len(match[1]) - 2]}[{number}]"

    return _MARKER.sub(put, answer)


def cited(answer: str, passages: Sequence[Passage]) -> list[int]:
    """Numbers (1-based) of the passages that `answer` marks, in the order of their first marker."""
    numbers = (int(match[1]) for match in _MARKER.finditer(answer))
    return list(dict.fromkeys(n for n in numbers if 1 <= n <= len(passages)))


def standing_behind(answer: str, passages: Sequence[Passage], most: int = 3) -> list[int]:
    """Numbers of the passages that share the rarest words with an answer that marks none: best first, at most `most`.

    A small model follows the rule to cite rarely. Words that stand in half of the passages or more say nothing.
    """
    words = set(_WORD.findall(answer))
    texts = [set(_WORD.findall(f"{passage.path} {passage.text}")) for passage in passages]
    weight = {word: 1 / count for word in words if (count := sum(word in text for text in texts))}
    common = {word for word in weight if len(texts) > 2 and 1 / weight[word] >= len(texts) / 2}
    scores = [sum(weight[word] for word in (words & text) - common if word in weight) for text in texts]
    ranked = sorted((n for n in range(len(passages)) if scores[n] >= 1), key=lambda n: -scores[n])
    return [n + 1 for n in ranked[:most]]


def check(
    numbers: Sequence[int], passages: Sequence[Passage], commits: Mapping[str, str], still_there: StillThere
) -> list[Citation]:
    """The citations for `numbers`, each checked against the disk now; `commits`: repository -> its commit."""
    return [
        Citation(n, p.path, p.start_line, p.end_line, commits[p.repository], p.sha256, still_there(p), p.repository)
        for n, p in ((n, passages[n - 1]) for n in numbers)
    ]
