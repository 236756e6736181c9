"""What of an index has no embedding yet, and having a Ray cluster make those, where one is set and it is worth it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path

from indexer.catalogue import Target
from indexer.chunking import Chunk
from indexer.cluster import Wanted, count, embed_on_cluster
from indexer.embedding import WORD_VECTORS
from indexer.parts import Parts
from indexer.settings import IndexerSettings
from indexer.update import Progress, Tell, embedded_text

log = logging.getLogger(__name__)
# Fewer are embedded here: joining a cluster and loading the model on it takes as long as these do.
WORTH_A_CLUSTER = 256
WORTH_A_CLUSTER_BY_WORDS = 50_000
_A_ROUND = 500_000  # chunks of which ids and progress are held at once: 100 MB
_LOOKED_AT_ONCE = 512


def embed_missing(indexes: Sequence[Parts], tell: Tell, logs: Path) -> int:
    """Have the cluster of `[indexer] ray` embed what waits in `indexes`, which share one embedding cache; how many.

    The stores are not touched: bringing them up to date finds every embedding there. Killed at any point, the next call
    asks for what is missing then. `logs`: the folder for what Ray says. Raises `ClusterUnavailable`.
    """
    settings = indexes[0].settings if indexes else IndexerSettings()
    worth = WORTH_A_CLUSTER_BY_WORDS if settings.embedder == WORD_VECTORS else WORTH_A_CLUSTER
    if not settings.ray or sum(parts.catalogue.waiting(Target.STORE) for parts in indexes) < worth:
        return 0
    logs.mkdir(parents=True, exist_ok=True)

    def show(done: int, total: int) -> None:
        tell(Progress(f"embedding on {settings.ray}", done, total))

    embedded = 0
    while count(wanted := find_missing(indexes, _A_ROUND)) >= worth:
        done = embed_on_cluster(wanted, settings, indexes[0].cache.put, show, logs / "cluster.log")
        log.info("the cluster at %s embedded %d chunks", settings.ray, done)
        if not done:
            break  # all of them are gone from their files since they were read
        embedded += done
    return embedded


def find_missing(indexes: Sequence[Parts], most: int) -> list[Wanted]:
    """At most `most` chunks without an embedding, by file; of those that read alike (forks) one."""
    by_file: dict[tuple[str, str], list[str]] = {}
    for parts, chunk in islice(_without_embedding(indexes), most):
        by_file.setdefault((str(parts.workspace.root), chunk.path), []).append(chunk.id)
    return [Wanted(root, path, tuple(ids)) for (root, path), ids in sorted(by_file.items())]


def _without_embedding(indexes: Sequence[Parts]) -> Iterator[tuple[Parts, Chunk]]:
    seen: set[bytes] = set()
    for parts in indexes:
        chunks = parts.catalogue.every_chunk()
        while some := list(islice(chunks, _LOOKED_AT_ONCE)):
            texts = [embedded_text(chunk) for chunk in some]
            for chunk, text, has in zip(some, texts, parts.cache.has(texts), strict=True):
                digest = sha256(text.encode()).digest()[:16]
                if not has and digest not in seen:
                    seen.add(digest)
                    yield parts, chunk
