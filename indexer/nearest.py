"""The embeddings of a small collection in memory: below some thousands an exact scan is quicker than a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Nearest:
    """Rows of length 1 by id. Searched by any thread; `put` and `drop`, by one at a time, put new tables in place."""

    def __init__(self, ids: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        self._table = list(ids), embeddings

    def __len__(self) -> int:
        return len(self._table[0])

    def put(self, ids: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        """Add these, or replace them."""
        kept, rows = self._without(ids)
        self._table = [*kept, *ids], np.concatenate([rows, embeddings]) if kept else np.array(embeddings)

    def drop(self, ids: Sequence[str]) -> None:
        """Without these; those that are not there are not missed."""
        self._table = self._without(ids)

    def _without(self, ids: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
        gone, (before, rows) = set(ids), self._table
        kept = [row for row, id in enumerate(before) if id not in gone]
        return ([before[row] for row in kept], rows[kept]) if len(kept) < len(before) else (before, rows)

    def search(self, embedding: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """The `k` nearest (id, cosine), best first; fewer when there are fewer."""
        ids, rows = self._table
        if not ids:
            return []
        cosines = rows @ embedding
        best = np.argpartition(-cosines, k - 1)[:k] if k < len(ids) else np.arange(len(ids))
        best = best[np.argsort(-cosines[best], kind="stable")]
        return [(ids[row], cosine) for row, cosine in zip(best.tolist(), cosines[best].tolist(), strict=True)]
