"""How good is the search, and what is each ingredient worth: NDCG@10 with bootstrap intervals, as Markdown.

usage: ./run bench retrieval SET=TREES:ANNOTATIONS ...

TREES/<name> is a working tree, ANNOTATIONS/<name>.json a list of {"query", "relevant", "secondary", "category"}; a
target is a path or {"path", "start_line", "end_line"}. Several sets (development=..., test=...) are never mixed.
Scored as chunk lists: gain 1 for each target, its rank that of the first passage that hits it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import log2
from pathlib import Path
from typing import Any

from indexer.chunking import Chunk
from indexer.file_rank import FileWeights
from indexer.index import open_index
from indexer.parts import Parts
from indexer.ranking import DEFAULT_WEIGHTS, Candidate, Query, Weights, rank
from indexer.search import find_candidates
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace

K = 10
Target = str | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """One query over one tree, with everything that either search found for it."""

    repository: str
    query: Query
    targets: list[Target]
    category: str
    candidates: list[Candidate]


def load_tasks(trees: Path, annotations: Path) -> list[Task]:
    """The queries of every annotated tree that is there; indexes what is not indexed yet."""
    tasks: list[Task] = []
    for file in sorted(annotations.glob("*.json")):
        tree = trees / file.stem
        if not tree.is_dir():
            continue
        with open_index(Workspace(tree.resolve()), IndexerSettings()) as index:
            report = index.update()
            print(f"{file.stem}: {report.files} files, {report.chunks} chunks", file=sys.stderr)
            index.search("warm up", 1)
            tasks += [_task(file.stem, item, index._parts) for item in json.loads(file.read_text())]
    return tasks


def _task(repository: str, item: dict[str, Any], parts: Parts) -> Task:
    query = Query(item["query"])
    targets = [*item["relevant"], *item.get("secondary", [])]
    return Task(repository, query, targets, item["category"], find_candidates(query, parts, {}))


def hits(chunk: Chunk, target: Target) -> bool:
    if isinstance(target, str):
        return chunk.path == target
    overlaps = chunk.start_line <= target["end_line"] and chunk.end_line >= target["start_line"]
    return bool(chunk.path == target["path"] and overlaps)


def ndcg(chunks: Sequence[Chunk], targets: Sequence[Target]) -> float:
    """NDCG@10 with binary gains; two targets first hit by the same chunk count once."""
    ranks = {next((rank for rank, c in enumerate(chunks[:K], 1) if hits(c, target)), None) for target in targets}
    gain = sum(1 / log2(rank + 1) for rank in ranks if rank)
    return gain / sum(1 / log2(rank + 1) for rank in range(1, min(K, len(targets)) + 1))


Variant = Callable[[Task], Sequence[Chunk]]


def ranked(weights: Weights = DEFAULT_WEIGHTS, lexical: bool = True, dense: bool = True) -> Variant:
    """The search with these weights, and with one of its two halves left out."""

    def run(task: Task) -> Sequence[Chunk]:
        kept = [
            Candidate(c.chunk, c.bm25 * lexical, c.cosine * dense)
            for c in task.candidates
            if (lexical and c.bm25) or (dense and c.cosine) or not (c.bm25 or c.cosine)
        ]
        return [chunk for chunk, _ in rank(task.query, kept, weights)[:K]]

    return run


def scores(tasks: Sequence[Task], variant: Variant) -> list[float]:
    return [ndcg(variant(task), task.targets) for task in tasks]


def mean_over_repositories(tasks: Sequence[Task], values: Sequence[float]) -> float:
    by_repository: dict[str, list[float]] = {}
    for task, value in zip(tasks, values, strict=True):
        by_repository.setdefault(task.repository, []).append(value)
    return statistics.mean(statistics.mean(each) for each in by_repository.values())


def interval(tasks: Sequence[Task], values: Sequence[float], rounds: int = 2000) -> tuple[float, float]:
    """95 % of bootstrap means, queries resampled within their repository (B. Efron, 1979)."""
    by_repository: dict[str, list[float]] = {}
    for task, value in zip(tasks, values, strict=True):
        by_repository.setdefault(task.repository, []).append(value)
    dice = random.Random(0)
    means = sorted(
        statistics.fmean(statistics.fmean(dice.choices(each, k=len(each))) for each in by_repository.values())
        for _ in range(rounds)
    )
    return means[int(0.025 * rounds)], means[int(0.975 * rounds)]


OFF = {
    "definition": 0.0,
    "stem_path": 0.0,
    "coherence": 0.0,
    "test": 1.0,
    "aside": 1.0,
    "prose": 1.0,
    "reexport": 1.0,
    "same_file_decay": 1.0,
}
NO_FILE = FileWeights(*[0.0] * len(fields(FileWeights)))
NO_RANK = Weights(**OFF, file=NO_FILE)
VARIANTS: dict[str, Variant] = {
    "everything": ranked(),
    "words only, ranked": ranked(dense=False),
    "embeddings only, ranked": ranked(lexical=False),
    "both, not ranked": ranked(NO_RANK),
    "words only, not ranked": ranked(NO_RANK, dense=False),
    "embeddings only, not ranked": ranked(NO_RANK, lexical=False),
    **{f"without {name}": ranked(replace(DEFAULT_WEIGHTS, **{name: value})) for name, value in OFF.items()},
    "without the files' factors": ranked(replace(DEFAULT_WEIGHTS, file=NO_FILE)),
}


def table(name: str, tasks: Sequence[Task]) -> str:
    """Each variant's NDCG@10 with its interval, and its paired difference from everything."""
    whole = scores(tasks, VARIANTS["everything"])
    repositories = len({task.repository for task in tasks})
    lines = [
        f"## {name}: {repositories} repositories, {len(tasks)} queries\n",
        "| variant | NDCG@10 | 95 % | difference | 95 %, paired | ms a query |",
        "|---|---:|---|---:|---|---:|",
    ]
    for label, variant in VARIANTS.items():
        started = time.perf_counter()
        values = scores(tasks, variant)
        milliseconds = (time.perf_counter() - started) / len(tasks) * 1e3
        low, high = interval(tasks, values)
        delta = [value - best for value, best in zip(values, whole, strict=True)]
        under, over = interval(tasks, delta)
        lines.append(
            f"| {label} | {mean_over_repositories(tasks, values):.4f} | {low:.3f}..{high:.3f} "
            f"| {mean_over_repositories(tasks, delta):+.4f} | {under:+.4f}..{over:+.4f} | {milliseconds:.1f} |"
        )
    return "\n".join([*lines, "", *_by_group(tasks, whole)])


def _by_group(tasks: Sequence[Task], values: Sequence[float]) -> list[str]:
    groups: dict[str, list[float]] = {}
    for task, value in zip(tasks, values, strict=True):
        groups.setdefault(task.repository, []).append(value)
        groups.setdefault(f"({task.category})", []).append(value)
    return [", ".join(f"{name} {statistics.fmean(each):.3f}" for name, each in sorted(groups.items())), ""]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("sets", nargs="+", metavar="SET=TREES:ANNOTATIONS")
    for one in arguments.parse_args().sets:
        name, _, folders = one.partition("=")
        trees, _, annotations = folders.partition(":")
        print(table(name, load_tasks(Path(trees), Path(annotations))), flush=True)


if __name__ == "__main__":
    main()
