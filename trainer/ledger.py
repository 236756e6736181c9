"""The ledger of a corpus: where every example comes from, and what was left out. The same inputs give the same
bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from indexer.workspace import write_atomically

LEDGER = "ledger.json"
LEDGER_VERSION = 2

# Text as it stands: code, and the documents beside it.
RawKind = Literal["raw", "wiki", "documentation", "pull-request", "commit", "review"]
# Conversations. What each teaches: trainer/synthesis.py.
ChatKind = Literal[
    "file-question", "page-question", "page-answer", "restatement", "relation", "retrieval", "conflict", "unanswerable",
    "change", "general", "feedback",
]  # fmt: skip
Kind = RawKind | ChatKind
# validation: the source's raw text is learnt, its conversations are not (RECALL); held-out: nothing of it is (UNSEEN).
Split = Literal["train", "validation", "held-out"]

RAW_KINDS: frozenset[str] = frozenset(get_args(RawKind))
CHAT_KINDS: tuple[ChatKind, ...] = get_args(ChatKind)


@dataclass(frozen=True, slots=True)
class Entry:
    """One example. `id`: its file in the corpus (with `#line` for a conversation); `source`: the path, or the
    document's id, that it was made from; `also`: other sources whose text it shows.

    `tokens` is right to a few (lines are counted in their file); `weight` says how recently its lines changed (0: long
    ago); `date` is a document's last change; `licence` what the file's SPDX line states; `masked` counts the secrets
    that were replaced in it, by type; `sha256` is of the example's text.
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
    also: tuple[str, ...] = ()
    date: str = ""
    licence: str = ""
    masked: dict[str, int] = field(default_factory=dict)

    @property
    def is_raw(self) -> bool:
        return self.kind in RAW_KINDS


@dataclass(frozen=True, slots=True)
class Ledger:
    """A corpus on one page. `tokenizer` is the base model's sha256: token counts are its; `prompt_version` is of the
    prompts that are in its conversations."""

    repository: str
    commit: str
    date: str
    tokenizer: str
    example_tokens: int
    entries: tuple[Entry, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    masked: dict[str, int] = field(default_factory=dict)
    prompt_version: int = 0

    def of(self, split: Split, *, raw: bool) -> list[Entry]:
        """The raw texts or the conversations of one side."""
        return [entry for entry in self.entries if entry.split == split and entry.is_raw == raw]

    def tokens(self, split: Split, *, raw: bool) -> int:
        return sum(entry.tokens for entry in self.of(split, raw=raw))

    def count(self, split: Split, *, raw: bool) -> int:
        return len(self.of(split, raw=raw))

    def sources(self, split: Split) -> int:
        """How many files and documents have raw text on that side."""
        return len({entry.source for entry in self.of(split, raw=True)})

    def mix(self, split: Split = "train") -> dict[str, int]:
        """Tokens by kind, the most first."""
        return dict(sum_up((entry.kind, entry.tokens) for entry in self.entries if entry.split == split))

    @property
    def sha256(self) -> str:
        """Of all examples, in order: two corpora with the same are the same."""
        return sha256("\n".join(entry.sha256 for entry in self.entries).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        totals = sum_up((f"{entry.kind} {entry.split} tokens", entry.tokens) for entry in self.entries)
        head: dict[str, Any] = {
            "version": LEDGER_VERSION,
            "totals": dict(totals),
            "sha256": self.sha256,
            **asdict(self),
        }
        entries = ",\n".join(json.dumps(_filled(entry), ensure_ascii=False) for entry in head.pop("entries"))
        rest = json.dumps(head, ensure_ascii=False, indent=1, sort_keys=True)
        write_atomically(folder / LEDGER, f'{rest[:-2]},\n "entries": [\n{entries}\n]}}\n')


def read_ledger(folder: Path) -> Ledger:
    """The ledger of the corpus in `folder`. Raises `ValueError` when it is of another version or damaged."""
    values = json.loads((folder / LEDGER).read_text("utf-8"))
    if values.pop("version", None) != LEDGER_VERSION:
        raise ValueError(f"{folder}: made by another version: collect again")
    values.pop("totals")
    values.pop("sha256")
    entries = tuple(Entry(**{**entry, "also": tuple(entry.get("also", ()))}) for entry in values["entries"])
    return Ledger(**{**values, "entries": entries})


def sum_up(pairs: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """The sum for each name, the largest first; equal ones by name."""
    sums: Counter[str] = Counter()
    for name, number in pairs:
        sums[name] += number
    return sorted(sums.items(), key=lambda item: (-item[1], item[0]))


def _filled(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without what is empty: most have no licence, no secret and no second source."""
    optional = ("also", "date", "licence", "masked")
    return {name: value for name, value in entry.items() if value or name not in optional}
