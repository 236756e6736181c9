"""What speaks for a file as a whole, beside its best chunk: a factor for each file, by weights that were learnt. Pure.

`benchmarks/file_weights.py` learns them, from the annotated queries of the development repositories.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from functools import lru_cache
from math import exp

from indexer.places import file_stem, is_reexport
from indexer.tokens import tokens


@dataclass(frozen=True, slots=True)
class FileWeights:
    """How much each feature adds to the logarithm of a file's factor; 0 switches it off.

    `second`, `third`: the fused score (0..1) of the file's second and third chunk. `early_name`: the share of its
    name's tokens that the question has, less the later it comes to them. `other_name`: the number of tokens that the
    question has not. `reexport`: 1 for `__init__.py` and the like, 0 for others.
    """

    second: float = 0.524
    third: float = 0.549
    early_name: float = 0.585
    other_name: float = -0.063
    reexport: float = 0.242


FILE_WEIGHTS = FileWeights()
Features = tuple[float, ...]  # in the order of FileWeights' fields


def file_factors(
    places: Mapping[str, float], fused: Iterable[tuple[str, float]], weights: FileWeights
) -> dict[str, float]:
    """The factor of each file among the candidates, which come as (path, fused score).

    `places`: where each token of the question stands first, 0 (its first word) to 1.
    """
    by_feature: Features = astuple(weights)
    return {
        path: exp(sum(weight * value for weight, value in zip(by_feature, features, strict=True)))
        for path, features in file_features(places, fused).items()
    }


def file_features(places: Mapping[str, float], fused: Iterable[tuple[str, float]]) -> dict[str, Features]:
    """The features of each file among the candidates."""
    by_file: defaultdict[str, list[float]] = defaultdict(list)
    for path, score in fused:
        by_file[path].append(score)
    found: dict[str, Features] = {}
    for path, scores in by_file.items():
        _, second, third, *_ = *sorted(scores, reverse=True), 0.0, 0.0
        found[path] = (second, third, *_of_name(places, path), float(is_reexport(path)))
    return found


def _of_name(places: Mapping[str, float], path: str) -> tuple[float, float]:
    """`early_name` and `other_name`."""
    name = stem_tokens(path)
    asked = [places[token] for token in name if token in places]
    early = (1 - min(asked)) * len(asked) / len(name) if asked else 0.0
    return early, float(len(name) - len(asked))


@lru_cache(maxsize=50_000)
def stem_tokens(path: str) -> frozenset[str]:
    """The tokens of what the file is called after."""
    return frozenset(tokens(file_stem(path)))
