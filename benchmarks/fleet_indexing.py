"""Embedding on a Ray cluster with one worker and with two, on two cores: `./run bench fleet_indexing`.

The chunks are this repository's own. Each run starts a cluster of its own and begins with an empty cache; the runs
alternate. Efficiency is the speed of two workers over twice that of one, once they run: from the first batch to the
last. What starting costs (Ray, torch and the model in each worker) is told beside it.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from indexer.cluster import Wanted, embed_on_cluster
from indexer.embedding import PACKAGED_TRANSFORMER
from indexer.files import SourceFile, source_files
from indexer.settings import IndexerSettings
from indexer.update import describe
from indexer.workspace import Workspace

ROOT = Path(__file__).parent.parent
CHUNKS, ROUNDS = 768, 2


@dataclass(frozen=True)
class Run:
    """One run: seconds until the first batch came, and chunks a second from then on."""

    workers: int
    start_s: float
    speed: float


def wanted_chunks(most: int) -> list[Wanted]:
    """The first chunks of this repository, by file."""
    found, room = [], most
    for source in source_files(Workspace(ROOT), IndexerSettings()):
        if not isinstance(source, SourceFile) or not room:
            continue
        ids = tuple(chunk.id for chunk in describe(source).chunks)[:room]
        if ids:
            found.append(Wanted(str(ROOT), source.path, ids))
            room -= len(ids)
    return found


def measure(wanted: list[Wanted], workers: int) -> Run:
    came: list[tuple[float, int]] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        embed_on_cluster(
            wanted,
            IndexerSettings(embedder=PACKAGED_TRANSFORMER, ray="local", ray_workers=workers),
            lambda texts, _: came.append((time.perf_counter(), len(texts))),
            lambda done, total: None,
            Path(folder) / "log",
        )
    # Each worker's first batch tells how long it took to load the model, not how fast it is.
    first, last = came[workers - 1][0], came[-1][0]
    return Run(workers, first - began, sum(count for _, count in came[workers:]) / (last - first))


def main() -> None:
    wanted = wanted_chunks(CHUNKS)
    runs = []
    for number in range(ROUNDS):
        for workers in (1, 2):
            runs.append(measure(wanted, workers))
            print(f"round {number + 1}: {runs[-1]}", file=sys.stderr)
    one, two = ([run for run in runs if run.workers == workers] for workers in (1, 2))
    speeds = [statistics.median(run.speed for run in some) for some in (one, two)]
    print("| workers | until the first batch, s | chunks a second | efficiency |\n|---|---|---|---|")
    for some, speed in zip((one, two), speeds, strict=True):
        start, workers = statistics.median(run.start_s for run in some), some[0].workers
        print(f"| {workers} | {start:.1f} | {speed:.1f} | {speed / speeds[0] / workers:.2f} |")
    print(f"\n{sum(len(one.ids) for one in wanted)} chunks, {ROUNDS} rounds: {json.dumps([vars(run) for run in runs])}")


if __name__ == "__main__":
    main()
