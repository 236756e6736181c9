"""Learn the weights of `indexer/file_rank.py`, and say by cross-validation over repositories what they are worth.

usage: ./run bench file_weights SET=TREES:ANNOTATIONS ...

The sets are those of `retrieval.py`, all of them development: never learn from what is tested on. Of each query's
files one softmax over the logarithm of the best chunk's score and the features has to choose the annotated ones; the
weights are drawn to zero (ridge), because 1,000 queries are few.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from retrieval import NO_FILE, Task, interval, load_tasks, mean_over_repositories, ranked, scores
from scipy.optimize import minimize

from indexer.file_rank import FileWeights, file_features
from indexer.ranking import DEFAULT_WEIGHTS, fuse, rank

FILES = 40  # of each query, the best by what is known before
RIDGE = 0.1  # 0.05 and 0.2 differ by less than 0.001
FOLDS = 10
BEFORE = replace(DEFAULT_WEIGHTS, file=NO_FILE)
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lesson:
    """One query's files: features (files, 1 + features), the first the logarithm of the score; 1 for those sought."""

    features: Array
    sought: Array


def lesson(task: Task) -> Lesson:
    best: dict[str, float] = {}
    for chunk, score in rank(task.query, task.candidates, BEFORE):
        best.setdefault(chunk.path, score)  # best first: what follows of the same file is the decayed rest
    fused = fuse(task.query, task.candidates, BEFORE)
    features = file_features(task.query.places, zip((c.chunk.path for c in task.candidates), fused, strict=True))
    sought = {target if isinstance(target, str) else target["path"] for target in task.targets}
    paths = list(best)[:FILES]
    rows = [(log(best[path] + 1e-3), *features[path]) for path in paths]
    return Lesson(np.array(rows), np.array([float(path in sought) for path in paths]))


def learn(lessons: Sequence[Lesson]) -> FileWeights:
    """The weights that choose best, for a score whose own weight is 1."""
    told = [one for one in lessons if 0 < one.sought.sum() < len(one.sought)]
    scale = np.concatenate([one.features - one.features.mean(0) for one in told]).std(0) + 1e-9
    prior = np.zeros(len(scale))
    prior[0] = 2 * scale[0]

    def loss(weights: Array) -> tuple[float, Array]:
        total, slope = 0.0, np.zeros_like(weights)
        for one in told:
            features, wanted = one.features / scale, one.sought / one.sought.sum()
            raw = features @ weights
            chances = np.exp(raw - raw.max())
            chances /= chances.sum()
            total -= float(wanted @ np.log(chances + 1e-12)) / len(told)
            slope -= features.T @ (wanted - chances) / len(told)
        away = weights - prior
        return total + RIDGE * float(away @ away), slope + 2 * RIDGE * away

    found = minimize(loss, prior, jac=True, method="L-BFGS-B").x / scale
    return FileWeights(*(float(weight) for weight in np.round(found[1:] / found[0], 3)))


def cross_validated(tasks: Sequence[Task], lessons: Sequence[Lesson]) -> list[float]:
    """Each query's NDCG@10 by weights learnt without its repository."""
    repositories = sorted({task.repository for task in tasks})
    random.Random(0).shuffle(repositories)
    fold = {repository: number % FOLDS for number, repository in enumerate(repositories)}
    values = [0.0] * len(tasks)
    for number in range(FOLDS):
        others = [one for task, one in zip(tasks, lessons, strict=True) if fold[task.repository] != number]
        variant = ranked(replace(DEFAULT_WEIGHTS, file=learn(others)))
        held_out = [row for row, task in enumerate(tasks) if fold[task.repository] == number]
        for row, value in zip(held_out, scores([tasks[row] for row in held_out], variant), strict=True):
            values[row] = value
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="SET=TREES:ANNOTATIONS")
    tasks: list[Task] = []
    for one in parser.parse_args().sets:
        trees, _, annotations = one.partition("=")[2].partition(":")
        tasks += [task for task in load_tasks(Path(trees), Path(annotations)) if task.candidates]
    lessons = [lesson(task) for task in tasks]
    before, after = scores(tasks, ranked(BEFORE)), cross_validated(tasks, lessons)
    delta = [value - old for value, old in zip(after, before, strict=True)]
    low, high = interval(tasks, delta)
    print(f"{len(tasks)} queries, {len({task.repository for task in tasks})} repositories")
    print(
        f"NDCG@10 without {mean_over_repositories(tasks, before):.4f}, with {mean_over_repositories(tasks, after):.4f}"
    )
    print(f"difference {mean_over_repositories(tasks, delta):+.4f}, 95 % paired {low:+.4f}..{high:+.4f}")
    weights = learn(lessons)
    print("\n".join(f"    {field.name}: float = {getattr(weights, field.name)}" for field in fields(weights)))


if __name__ == "__main__":
    main()
