"""Which side a source is on: learnt, learnt without its questions (RECALL), or withheld everywhere (UNSEEN). Pure.

NEXT-DAY, the third held-out set, is what was committed after the snapshot: it is in no corpus at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from trainer.ledger import Split


@dataclass(frozen=True, slots=True)
class Sides:
    """The side of every source. `unseen`: origins of the files and pages withheld everywhere."""

    unseen: frozenset[str]
    validation_share: float
    seed: int

    def of_text(self, source: str) -> Split:
        """Where its raw text goes."""
        return "held-out" if origin_of(source) in self.unseen else "train"

    def of_talk(self, source: str) -> Split:
        """Where conversations about it go; all of a source's go to one side."""
        origin = origin_of(source)
        if origin in self.unseen:
            return "held-out"
        return "validation" if mark(f"{self.seed}:validation:{origin}") < self.validation_share else "train"


def choose_sides(origins: Iterable[str], held_out_share: float, validation_share: float, seed: int) -> Sides:
    """Chosen by hash, so that a source stays on its side from night to night.

    Of two or more `origins` (files and pages) at least one is withheld, and never all of them.
    """
    marks = {origin: mark(f"{seed}:{origin}") for origin in origins}
    chosen = {origin for origin, found in marks.items() if found < held_out_share}
    if len(marks) < 2:
        chosen = set()
    elif not 0 < len(chosen) < len(marks):
        chosen = {min(marks, key=lambda origin: marks[origin])}
    return Sides(frozenset(chosen), validation_share, seed)


def origin_of(source: str) -> str:
    """What a source stands for: a page of the documentation is a file, a review belongs to its pull request."""
    kind, colon, rest = source.partition(":")
    if colon and kind == "doc":
        return rest
    if colon and kind == "review":
        return f"pr:{rest.partition('#')[0]}"
    return source


def mark(text: str) -> float:
    """A number of [0, 1) that is the same for the same text, everywhere and always."""
    return int(sha256(text.encode()).hexdigest()[:8], 16) / 2**32
