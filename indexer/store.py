"""Door to chromadb: chunks by embedding. A projection of the catalogue, complete by itself for other clients."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from indexer.chunking import CHUNKER_VERSION, Chunk

# hnswlib's defaults but for the space; sync_threshold: the whole graph is rewritten every so many operations.
_HNSW = {"space": "cosine", "ef_construction": 100, "ef_search": 100, "max_neighbors": 16, "sync_threshold": 1000}
_MAX_BATCH = 500  # Chroma takes 5,461; smaller ones let searches in between


class StoreDamaged(Exception):
    """Chroma cannot be used; the message says why. It can be built anew from the catalogue and the embedding cache."""


def collection_name(embedder: str, generation: int, workspace: str = "") -> str:
    """Embedder and chunker version; a new generation is built beside the old one when too much of that is dead."""
    name = "-".join(filter(None, (workspace, embedder, f"c{CHUNKER_VERSION}", f"g{generation}")))
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[-500:]


class Store:
    """One collection. Returned means searchable, in this process."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name
        self._collection = client.get_or_create_collection(
            name, embedding_function=None, configuration={"hnsw": _HNSW}, metadata=None
        )
        self.count()

    def put(self, chunks: Sequence[Chunk], embeddings: NDArray[np.float32]) -> None:
        """Add these chunks, or replace them; row i of `embeddings` is chunk i's."""
        for start in range(0, len(chunks), self._batch()):
            part = chunks[start : start + self._batch()]
            self._call(
                "upsert",
                ids=[chunk.id for chunk in part],
                embeddings=embeddings[start : start + len(part)],
                documents=[chunk.text for chunk in part],
                metadatas=[_metadata(chunk) for chunk in part],
            )

    def move(self, chunks: Sequence[Chunk]) -> None:
        """New line numbers for chunks that are there; their embeddings stay."""
        for start in range(0, len(chunks), self._batch()):
            part = chunks[start : start + self._batch()]
            self._call("update", ids=[chunk.id for chunk in part], metadatas=[_metadata(chunk) for chunk in part])

    def drop(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), self._batch()):
            self._call("delete", ids=list(ids[start : start + self._batch()]))

    def search(self, embedding: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """The `k` nearest (id, cosine similarity), best first; fewer when there are fewer."""
        # No `where`, no documents: either costs 50 times the search itself at 100,000 chunks.
        found = self._call("query", query_embeddings=[embedding], n_results=k, include=["distances"])
        return [(id, 1.0 - distance) for id, distance in zip(found["ids"][0], found["distances"][0], strict=True)]

    def count(self) -> int:
        return int(self._call("count"))

    def rows(self) -> dict[str, tuple[str, str, int, int]]:
        """Id -> (text, path, start_line, end_line) of everything in the collection; for checking."""
        found = self._call("get", include=["documents", "metadatas"])
        return {
            id: (text, meta["path"], meta["start_line"], meta["end_line"])
            for id, text, meta in zip(found["ids"], found["documents"], found["metadatas"], strict=True)
        }

    def sample(self, count: int) -> list[tuple[str, list[float]]]:
        """A few (id, embedding), whichever come first."""
        found = self._call("get", limit=count, include=["embeddings"])
        return list(zip(found["ids"], found["embeddings"], strict=True))

    def delete(self) -> None:
        """The collection itself, and all in it."""
        self._client.delete_collection(self.name)

    def _batch(self) -> int:
        return min(_MAX_BATCH, int(self._client.get_max_batch_size()))

    def _call(self, method: str, **arguments: Any) -> Any:
        try:
            return getattr(self._collection, method)(**arguments)
        except BaseException as error:  # the Rust core panics with BaseExceptions
            if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                raise
            raise StoreDamaged(f"Chroma: {method} failed: {error}") from error


def open_client(folder: Path, address: str) -> Any:
    """An embedded Chroma in `folder`, or with `address` (http://host:port) a client of that server."""
    import chromadb  # heavy: 1 s
    from chromadb.config import Settings

    quiet = Settings(anonymized_telemetry=False)
    try:
        if not address:
            return chromadb.PersistentClient(str(folder), settings=quiet)
        url = urlsplit(address)
        port = url.port or (443 if url.scheme == "https" else 8000)
        return chromadb.HttpClient(host=url.hostname or "", port=port, ssl=url.scheme == "https", settings=quiet)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise StoreDamaged(f"Chroma at {address or folder} cannot be opened: {error}") from error


def collection_names(client: Any) -> list[str]:
    """Every collection that this Chroma has, in the order of their names."""
    names: list[str] = []
    while page := client.list_collections(limit=_MAX_BATCH, offset=len(names)):
        names += [collection.name for collection in page]
    return sorted(names)


def forget_client(folder: Path) -> None:
    """Let go of an embedded Chroma, so that its folder can be opened anew or moved away."""
    from chromadb.api.shared_system_client import SharedSystemClient

    system = SharedSystemClient._identifier_to_system.pop(str(folder), None)
    if system is not None:
        system.stop()


def _metadata(chunk: Chunk) -> dict[str, str | int]:
    return {
        "path": chunk.path,
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "language": chunk.language,
        "symbol": chunk.symbol,
    }
