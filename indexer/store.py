"""Door to chromadb: chunks by embedding. A projection of the catalogue, complete by itself for other clients."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from indexer.chroma_server import ChromaServer
from indexer.chunking import CHUNKER_VERSION, Chunk
from indexer.nearest import Nearest

# sync_threshold: the whole graph is rewritten every so many operations. With hnswlib's defaults (100, 100) 0.969 of the
# 10 nearest among 10,000 word vectors were found, 0.955 after ten churns; so 0.999, for 0.2 ms a query.
_HNSW = {"space": "cosine", "ef_construction": 200, "ef_search": 300, "max_neighbors": 16, "sync_threshold": 1000}
_MAX_BATCH = 500  # Chroma takes 5,461; smaller ones let searches in between
_CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S = 3.0, 15.0  # of a server: a batch takes it under a second
# What chromadb's client asks when it is made, where it waits for ever: so we ask it before, with a limit.
_ASKED_FIRST = ("heartbeat", "auth/identity", "tenants/{tenant}/databases/{database}")
_KEY = "[indexer] chroma_key_file says which to send"
# Chunks: up to here the embeddings of an embedded Chroma are held in memory too (1 MB) and looked through one by one,
# which finds all, in 0.02 ms of CPU for 100 and 0.06 for 1,000. For 4,000 it is 4.2 on a loaded machine (numpy's
# threads wait for each other), as much as Chroma takes for 100,000.
EXACT_UP_TO = 1_000
_creating = threading.Lock()
_systems_of_clients: dict[str, Set[str]] = {}


class StoreDamaged(Exception):
    """Chroma cannot be used; the message says why. It can be built anew from the catalogue and the embedding cache."""


def collection_name(embedder: str, generation: int, workspace: str = "") -> str:
    """Embedder and chunker version; a new generation is built beside the old one when too much of that is dead."""
    name = "-".join(filter(None, (workspace, embedder, f"c{CHUNKER_VERSION}", f"g{generation}")))
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[-500:]


class Store:
    """One collection. Returned means searchable, in this process. Every method raises `StoreDamaged`.

    `is_ours`: nobody else writes to it, not even through another program, so a copy in memory is as good.
    """

    def __init__(self, client: Any, name: str, is_ours: bool = False) -> None:
        self._client = client
        self.name = name
        self._is_small = is_ours
        self._near: Nearest | None = None
        self._near_lock = threading.Lock()
        with _translated("get_or_create_collection"):
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
        with self._near_lock:
            if self._near is not None:
                self._near.put([chunk.id for chunk in chunks], embeddings)
                self._leave_if_large(len(self._near))

    def move(self, chunks: Sequence[Chunk]) -> None:
        """New line numbers for chunks that are there; their embeddings stay."""
        for start in range(0, len(chunks), self._batch()):
            part = chunks[start : start + self._batch()]
            self._call("update", ids=[chunk.id for chunk in part], metadatas=[_metadata(chunk) for chunk in part])

    def drop(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), self._batch()):
            self._call("delete", ids=list(ids[start : start + self._batch()]))
        with self._near_lock:
            if self._near is not None:
                self._near.drop(ids)

    def search(self, embedding: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """The `k` nearest (id, cosine similarity), best first; fewer when there are fewer."""
        if (near := self._in_memory()) is not None:
            return near.search(embedding, k)
        # No `where`, no documents: either costs 50 times the search itself at 100,000 chunks.
        with _translated("query"):
            found = self._collection.query(query_embeddings=[embedding], n_results=k, include=["distances"])
            pairs = zip(found["ids"][0], found["distances"][0], strict=True)
            return [(str(id), _similarity(distance)) for id, distance in pairs]

    def _in_memory(self) -> Nearest | None:
        """All of a small collection; None when it is too large, not ours alone, or being written first."""
        if self._is_small and self._near is None:
            with self._near_lock:
                self._leave_if_large(self.count())
                if self._is_small:
                    self._near = self._read_all()
        return self._near

    def _read_all(self) -> Nearest | None:
        """All of it; None when this met the first write: Chroma (1.5.9) then has ids whose embeddings it lacks."""
        found = self._call("get", include=["embeddings"])
        rows = np.asarray(found["embeddings"], np.float32)
        if len(rows) != len(found["ids"]):
            return None
        return Nearest(found["ids"], rows / np.linalg.norm(rows, axis=-1, keepdims=True))

    def _leave_if_large(self, count: int) -> None:
        if count > EXACT_UP_TO:
            self._is_small, self._near = False, None

    def count(self) -> int:
        with _translated("count"):
            return int(self._collection.count())

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
        self.delete_other(self.name)

    def delete_other(self, name: str) -> None:
        """Another collection of the same Chroma; nothing when it is not there."""
        from chromadb.errors import NotFoundError

        with _translated("delete_collection"), suppress(NotFoundError):
            self._client.delete_collection(name)

    def close(self) -> None:
        """Let go of the connections to a server; what is embedded is left open, see `forget_client`."""
        _end_systems(_systems_of_clients.pop(self._client._identifier, ()))

    def _batch(self) -> int:
        with _translated("get_max_batch_size"):
            return min(_MAX_BATCH, int(self._client.get_max_batch_size()))

    def _call(self, method: str, **arguments: Any) -> Any:
        with _translated(method):
            return getattr(self._collection, method)(**arguments)


def _similarity(distance: float) -> float:
    if not math.isfinite(distance):
        raise ValueError(f"a distance of {distance}")
    return 1.0 - distance


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # the Rust core panics with BaseExceptions
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise StoreDamaged(f"Chroma: {what} failed: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    """What went wrong, whatever the server sent: a whole page of HTML too."""
    said = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def open_collection(folder: Path, server: ChromaServer | None, name: str) -> Store:
    """The collection `name` of an embedded Chroma in `folder`, or of `server`."""
    client = open_client(folder, server)
    try:
        return Store(client, name, is_ours=server is None)
    except StoreDamaged:
        _end_systems(_systems_of_clients.pop(client._identifier, ()))
        raise


def open_client(folder: Path, server: ChromaServer | None) -> Any:
    """An embedded Chroma in `folder`, or a client of `server`."""
    import chromadb  # heavy: 1 s
    from chromadb.config import Settings

    quiet = Settings(anonymized_telemetry=False)
    try:
        if server is None:
            return chromadb.PersistentClient(str(folder), settings=quiet)
        return _server_client(server, quiet)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError | StoreDamaged):
            raise
        where = server.address if server else folder
        raise StoreDamaged(f"Chroma at {where} cannot be opened: {_one_line(error)}") from error


def knock(server: ChromaServer) -> None:
    """Ask what chromadb's client will ask, with a limit. Raises `StoreDamaged` when it does not answer or refuses."""
    import httpx

    base, headers = f"{server.address.rstrip('/')}/api/v2/", dict(server.headers)
    wait = httpx.Timeout(_ANSWER_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    try:
        with httpx.Client(base_url=base, headers=headers, timeout=wait, trust_env=False) as first:
            for path in _ASKED_FIRST:
                answer = first.get(path.format(tenant=server.tenant, database=server.database))
                if answer.status_code in (401, 403):
                    key = "our key" if headers else "who has no key"
                    raise StoreDamaged(f"Chroma at {server.address} refuses {key} ({answer.status_code}): {_KEY}")
                answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StoreDamaged(f"Chroma at {server.address} cannot be opened: {_one_line(error)}") from error


def _server_client(server: ChromaServer, quiet: Any) -> Any:
    import chromadb
    import httpx
    from chromadb.api.shared_system_client import SharedSystemClient

    knock(server)
    url = urlsplit(server.address)
    port = url.port or (443 if url.scheme == "https" else 8000)
    with _creating:
        systems = SharedSystemClient._identifier_to_system
        before = set(systems)
        try:
            client = chromadb.HttpClient(
                url.hostname or "",
                port,
                ssl=url.scheme == "https",
                headers=dict(server.headers),
                settings=quiet,
                tenant=server.tenant,
                database=server.database,
            )
        except BaseException:
            _end_systems(systems.keys() - before)
            raise
        _systems_of_clients[client._identifier] = systems.keys() - before
    wait = httpx.Timeout(_ANSWER_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    client._server._session.timeout = wait  # no setting of chromadb 1.5.9 says it
    return client


def _end_systems(identifiers: Iterable[str]) -> None:
    """Close what one client of a server opened: chromadb's own `close` leaves its connections and two of its three
    entries in this table behind."""
    from chromadb.api import ServerAPI
    from chromadb.api.shared_system_client import SharedSystemClient

    for identifier in list(identifiers):
        if (system := SharedSystemClient._identifier_to_system.pop(identifier, None)) is not None:
            system.instance(ServerAPI)._session.close()
            SharedSystemClient._identifier_to_refcount.pop(identifier, None)


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
