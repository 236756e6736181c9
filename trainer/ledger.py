"""The ledger of a corpus: where every example comes from, and what was left out. The same inputs give the same
bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from indexer.workspace import write_atomically

LEDGER = "ledger.json"
LEDGER_VERSION = 1

Kind = Literal["raw", "file-question"]
Split = Literal["train", "held-out"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One example. `id`: its file in the corpus (with `#line` for a conversation); `source`: the path it was made from.

    `tokens` is right to a few (lines are counted in their file); `weight` says how recently its lines changed (0: long
    ago); `sha256` is of the example's text.
    """

    id: str
    kind: Kind
    source: str
    part: int
    parts: int
    start_line: int
    end_line: int
    tokens: int
    split: Split
    weight: float
    sha256: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """A corpus on one page. `tokenizer` is the base model's sha256: token counts are its."""

    repository: str
    commit: str
    date: str
    tokenizer: str
    example_tokens: int
    entries: tuple[Entry, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    masked: dict[str, int] = field(default_factory=dict)

    def tokens(self, kind: Kind, split: Split) -> int:
        return sum(entry.tokens for entry in self.entries if entry.kind == kind and entry.split == split)

    def mix(self) -> dict[str, int]:
        """Tokens on the training side by kind of example, the most first."""
        tokens: Counter[str] = Counter()
        for entry in self.entries:
            if entry.split == "train":
                tokens[entry.kind] += entry.tokens
        return dict(tokens.most_common())

    def count(self, kind: Kind, split: Split) -> int:
        return sum(entry.kind == kind and entry.split == split for entry in self.entries)

    def sources(self, split: Split) -> int:
        return len({entry.source for entry in self.entries if entry.split == split})

    @property
    def sha256(self) -> str:
        """Of all examples, in order: two corpora with the same are the same."""
        return sha256("\n".join(entry.sha256 for entry in self.entries).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        totals = Counter({f"{e.kind} {e.split} tokens": 0 for e in self.entries})
        for entry in self.entries:
            totals[f"{entry.kind} {entry.split} tokens"] += entry.tokens
        head: dict[str, Any] = {"version": LEDGER_VERSION, "totals": dict(sorted(totals.items())), **asdict(self)}
        entries = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in head.pop("entries"))
        rest = json.dumps(head, ensure_ascii=False, indent=1, sort_keys=True)
        write_atomically(folder / LEDGER, f'{rest[:-2]},\n "entries": [\n{entries}\n]}}\n')


def read_ledger(folder: Path) -> Ledger:
    """The ledger of the corpus in `folder`. Raises `ValueError` when it is of another version or damaged."""
    values = json.loads((folder / LEDGER).read_text("utf-8"))
    if values.pop("version", None) != LEDGER_VERSION:
        raise ValueError(f"{folder}: made by another version: collect again")
    values.pop("totals")
    return Ledger(**{**values, "entries": tuple(Entry(**entry) for entry in values["entries"])})


def planted_on_both_sides(entries: Sequence[Entry]) -> list[str]:
    """The sources that have examples in training and held out: a leak."""
    sides: dict[str, set[str]] = {}
    for entry in entries:
        sides.setdefault(entry.source, set()).add(entry.split)
    return sorted(source for source, found in sides.items() if len(found) > 1)
