"""Questions that nobody had to label, asked of each half of the search, of both, and of the floor: a Markdown table."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval import VARIANTS, K, Target, Task, Variant, hits, interval, mean_over_repositories, ranked
from windows import Windows

from indexer.chunking import Chunk
from indexer.index import open_index
from indexer.ranking import Query
from indexer.search import find_candidates
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace

Measure = Callable[[Sequence[Chunk], Sequence[Target]], float]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the places any of which answers it."""

    text: str
    targets: tuple[Target, ...]


def recall(found: Sequence[Chunk], targets: Sequence[Target]) -> float:
    """The share of the targets that one of the first ten passages hits."""
    return statistics.fmean(any(hits(chunk, target) for chunk in found[:K]) for target in targets)


def reciprocal_rank(found: Sequence[Chunk], targets: Sequence[Target]) -> float:
    """1 / the rank of the first file among the first ten passages that holds a target which one of them hits."""
    files: list[str] = []
    for chunk in found[:K]:
        if chunk.path not in files:
            files.append(chunk.path)
        if any(hits(chunk, target) for target in targets):
            return 1 / (files.index(chunk.path) + 1)
    return 0.0


def passage_rank(found: Sequence[Chunk], targets: Sequence[Target]) -> float:
    """1 / the rank of the first of ten passages that hits a target; 0 when none does."""
    ranks = (rank for rank, chunk in enumerate(found[:K], 1) if any(hits(chunk, target) for target in targets))
    return 1 / next(ranks, float("inf"))


def ask(name: str, tree: Path, questions: Sequence[Asked]) -> tuple[list[Task], Windows]:
    """What both searches find in `tree` for each question; and its windows, of the same files."""
    with open_index(Workspace(tree.resolve()), IndexerSettings()) as index:
        report = index.update()
        print(f"{name}: {report.files} files, {report.chunks} chunks, {len(questions)} questions", file=sys.stderr)
        index.search("warm up", 1)
        parts = index._parts
        paths = {chunk.path for chunk in parts.catalogue.every_chunk()}
        tasks = [
            Task(name, query, list(asked.targets), "", find_candidates(query, parts, {}))
            for asked in questions
            for query in [Query(asked.text)]
        ]
    return tasks, Windows({path: (tree / path).read_text(errors="replace") for path in sorted(paths)})


def table(tasks: Sequence[Task], windows: Mapping[str, Windows], measures: Mapping[str, Measure]) -> str:
    """Each variant's measures: mean over repositories, 95 % by bootstrap, paired difference from everything."""
    variants: dict[str, Variant] = {
        "BM25 over windows": lambda task: windows[task.repository].search(task.query.text, K),
        "words only": ranked(dense=False),
        "embeddings only": ranked(lexical=False),
        "everything": ranked(),
        "without the files' factors": VARIANTS["without the files' factors"],
    }
    lines = ["| variant | measure | mean | 95 % | difference | 95 %, paired |", "|---|---|---:|---|---:|---|"]
    found = {name: [variant(task) for task in tasks] for name, variant in variants.items()}
    for measure_name, measure in measures.items():
        whole = _values(tasks, found["everything"], measure)
        for name in variants:
            values = _values(tasks, found[name], measure)
            lines.append(f"| {name} | {measure_name} | {_row(tasks, values, whole)} |")
    return "\n".join([*lines, "", _by_repository(tasks, found, measures)])


def _values(tasks: Sequence[Task], found: Sequence[Sequence[Chunk]], measure: Measure) -> list[float]:
    return [measure(chunks, task.targets) for task, chunks in zip(tasks, found, strict=True)]


def _row(tasks: Sequence[Task], values: Sequence[float], whole: Sequence[float]) -> str:
    low, high = interval(tasks, values)
    delta = [value - best for value, best in zip(values, whole, strict=True)]
    under, over = interval(tasks, delta)
    mean, difference = mean_over_repositories(tasks, values), mean_over_repositories(tasks, delta)
    return f"{mean:.3f} | {low:.3f}..{high:.3f} | {difference:+.3f} | {under:+.3f}..{over:+.3f}"


def _by_repository(
    tasks: Sequence[Task], found: Mapping[str, Sequence[Sequence[Chunk]]], measures: Mapping[str, Measure]
) -> str:
    """The same, repository by repository, the first measure only."""
    name, measure = next(iter(measures.items()))
    lines = [f"| {name} | questions | {' | '.join(found)} |", f"|---|---:|{'---:|' * len(found)}"]
    for repository in dict.fromkeys(task.repository for task in tasks):
        rows = [row for row, task in enumerate(tasks) if task.repository == repository]
        means = (
            f"{statistics.fmean(measure(chunks[row], tasks[row].targets) for row in rows):.3f}"
            for chunks in found.values()
        )
        lines.append(f"| {repository} | {len(rows)} | {' | '.join(means)} |")
    return "\n".join([*lines, ""])
