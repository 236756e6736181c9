"""Numbers of two arms on the same items: bits per byte, and how sure a difference is (paired bootstrap). Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """One item under one arm: `nats` of its text (summed over tokens), the text's `bytes`, the file it is from."""

    cluster: str
    nats: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Change:
    """Bits per byte of an arm relative to another: `share` -0.1 is 10% fewer bits; `[low, high]` holds it with 95%.

    `clusters` is how many files it rests on: with a handful the interval means little.
    """

    share: float
    low: float
    high: float
    clusters: int


def bits_per_byte(scores: Sequence[Score]) -> float:
    """Bits for each byte of UTF-8; NaN without items. Independent of the tokenizer."""
    size = sum(score.bytes for score in scores)
    return sum(score.nats for score in scores) / math.log(2) / size if size else math.nan


def change(arm: Sequence[Score], other: Sequence[Score], resamples: int = 2000, seed: int = 0) -> Change:
    """How `arm` compares to `other` on the same items; files are drawn with replacement. Raises `ValueError` for
    none.
    """
    assert [score.cluster for score in arm] == [score.cluster for score in other], "not the same items"
    sums: dict[str, tuple[float, float]] = {}
    for mine, its in zip(arm, other, strict=True):
        a, b = sums.get(mine.cluster, (0.0, 0.0))
        sums[mine.cluster] = (a + mine.nats, b + its.nats)
    pairs = list(sums.values())
    if not pairs:
        raise ValueError("no items to compare on")
    chance = random.Random(seed)  # noqa: S311
    drawn = sorted(_share(chance.choices(pairs, k=len(pairs))) for _ in range(resamples))
    return Change(_share(pairs), drawn[int(0.025 * resamples)], drawn[int(0.975 * resamples) - 1], len(pairs))


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher an arm's mean score (0 to 1) is than another's on the same questions; `[low, high]` holds it
    with 95%. `count` is how many questions it rests on."""

    value: float
    low: float
    high: float
    count: int


def difference(arm: Sequence[float], other: Sequence[float], resamples: int = 2000, seed: int = 0) -> Difference | None:
    """`arm` against `other`, question by question; None when there are none."""
    assert len(arm) == len(other), "not the same questions"
    steps = [mine - its for mine, its in zip(arm, other, strict=True)]
    if not steps:
        return None
    chance = random.Random(seed)  # noqa: S311
    drawn = sorted(sum(chance.choices(steps, k=len(steps))) / len(steps) for _ in range(resamples))
    low, high = drawn[int(0.025 * resamples)], drawn[int(0.975 * resamples) - 1]
    return Difference(sum(steps) / len(steps), low, high, len(steps))


def _share(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(a for a, _ in pairs) / max(1e-12, sum(b for _, b in pairs)) - 1
