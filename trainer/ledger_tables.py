"""A ledger as tables for people: what it is made of, on which side, and what was left out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.ledger import Entry, Ledger, Split, sum_up

SIDES: tuple[Split, ...] = ("train", "validation", "held-out")
_MOST_SOURCES = 40


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of text; `numbers`: how many columns, from the right, are numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int = 1


def tables_of(ledger: Ledger) -> list[Table]:
    """Every table that has a row."""
    made = [_facts(ledger), _kinds(ledger), _sources(ledger), _licences(ledger)]
    made += [
        Table("left out", ("reason", "how many"), _counted(ledger.left_out)),
        Table("secrets replaced", ("type", "how many"), _counted(ledger.masked)),
    ]
    return [table for table in made if table.rows]


def token_histogram(ledger: Ledger, bars: int = 24) -> list[tuple[int, int, int, int]]:
    """Examples by size: (from, up to and without, raw texts, conversations), in equal steps up to the longest."""
    longest = max((entry.tokens for entry in ledger.entries), default=0)
    step = max(1, -(-(longest + 1) // bars))
    raw, chat = Counter[int](), Counter[int]()
    for entry in ledger.entries:
        (raw if entry.is_raw else chat)[entry.tokens // step] += 1
    last = max([*raw, *chat], default=-1)
    return [(bar * step, (bar + 1) * step, raw[bar], chat[bar]) for bar in range(last + 1)]


def entries_of(ledger: Ledger, source: str) -> list[Entry]:
    """The examples that were made from `source`, or that show its text."""
    return [entry for entry in ledger.entries if source in (entry.source, *entry.also)]


def entry_table(entries: Sequence[Entry]) -> Table:
    """Examples one by one."""
    rows = [
        (e.id, e.kind, e.split, f"{e.start_line}-{e.end_line}" if e.end_line else "", _part(e), f"{e.tokens:,}")
        for e in entries
    ]
    return Table("examples", ("example", "kind", "side", "lines", "part", "tokens"), tuple(rows))


def _facts(ledger: Ledger) -> Table:
    rows = (
        ("repository", ledger.repository),
        ("commit", ledger.commit or "none: the working tree"),
        ("as of", ledger.date),
        ("examples", f"{len(ledger.entries):,}, of at most {ledger.example_tokens:,} tokens"),
        ("learnt", f"{sum(ledger.mix().values()):,} tokens"),
        ("sources learnt", f"{ledger.sources('train'):,}"),
        ("sources withheld", f"{ledger.sources('held-out'):,}"),
        ("sha256", ledger.sha256),
    )
    return Table("corpus", ("", ""), rows, 0)


def _kinds(ledger: Ledger) -> Table:
    examples = Counter[tuple[str, str]]((entry.kind, entry.split) for entry in ledger.entries)
    tokens = Counter[tuple[str, str]]()
    for entry in ledger.entries:
        tokens[entry.kind, entry.split] += entry.tokens
    learnt = sum(ledger.mix().values()) or 1
    rows = []
    for kind, _ in sum_up((entry.kind, entry.tokens) for entry in ledger.entries):
        cells = [f"{examples[kind, 'train']:,}", f"{tokens[kind, 'train']:,}", f"{tokens[kind, 'train'] / learnt:.1%}"]
        cells += [f"{tokens[kind, side]:,}" for side in SIDES[1:]]
        rows.append((kind, *cells))
    head = ("kind", "examples learnt", "tokens learnt", "share", "tokens for validation", "tokens withheld")
    return Table("the mix, by kind", head, tuple(rows), 5)


def _sources(ledger: Ledger) -> Table:
    sums = sum_up((entry.source, entry.tokens) for entry in ledger.entries)
    count = Counter(entry.source for entry in ledger.entries)
    side: dict[str, str] = {entry.source: entry.split for entry in reversed(ledger.entries)}
    rows = [
        (source, side[source], f"{count[source]:,}", f"{tokens:,}") for source, tokens in sums[:_MOST_SOURCES]
    ]  # fmt: skip
    if len(sums) > _MOST_SOURCES:
        rest = sums[_MOST_SOURCES:]
        many = f"{len(rest):,} more sources"
        rows.append((many, "", f"{sum(count[s] for s, _ in rest):,}", f"{sum(tokens for _, tokens in rest):,}"))
    return Table("by source", ("source", "side of its text", "examples", "tokens"), tuple(rows), 2)


def _licences(ledger: Ledger) -> Table:
    stated = sum_up((entry.licence, entry.tokens) for entry in ledger.entries if entry.licence)
    return Table("licences that files state", ("SPDX", "tokens"), tuple((n, f"{t:,}") for n, t in stated))


def _counted(counts: dict[str, int]) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"{number:,}") for name, number in sum_up(counts.items()))


def _part(entry: Entry) -> str:
    return f"{entry.part} of {entry.parts}" if entry.parts > 1 else ""
