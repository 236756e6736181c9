"""The index for a command: through the running backend, which alone owns it, or opened here when there is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict

from indexer.index import Progress
from indexer.opened import open_any_index
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from server.client import Json, find_backend
from server.console import Advance, progress
from server.shapes import search_json

Find = Callable[[str, int], Awaitable[Json]]


async def update_index(workspace: Workspace) -> Json:
    """Bring the index up to the working tree, with progress on stderr. Raises `IndexUnavailable`."""
    with progress("indexing") as advance:
        backend = await find_backend(workspace)
        if backend is not None:
            async with backend:
                advance("through the running backend", 0, None)
                return await backend.post("/index")
        with open_any_index(workspace, IndexerSettings.read(workspace)) as index:
            return asdict(index.update(_showing(advance)))


def index_line(report: Json) -> str:
    """What `update_index` reports, in one line."""
    embedded = f"({report['embedded']} embedded now)"
    return f"{report['files']} files, {report['chunks']} chunks {embedded}, {report['seconds']:.1f} s"


async def explain_file(workspace: Workspace, path: str) -> str:
    """Why the file at `path` is or is not in the index."""
    backend = await find_backend(workspace)
    if backend is not None:
        async with backend:
            return str((await backend.get("/index/explain", path=path))["why"])
    with open_any_index(workspace, IndexerSettings.read(workspace)) as index:
        return index.explain(path)


@asynccontextmanager
async def open_search(workspace: Workspace) -> AsyncIterator[Find]:
    """Search for as many queries as you like. An index opened here is first brought up to the working tree."""
    backend = await find_backend(workspace)
    if backend is not None:
        async with backend:
            yield lambda query, k: backend.get("/search", q=query, k=k)
        return
    with open_any_index(workspace, IndexerSettings.read(workspace)) as index:
        with progress("indexing") as advance:
            index.update(_showing(advance))

        async def find(query: str, k: int) -> Json:
            started = time.perf_counter()
            passages = await asyncio.to_thread(index.search, query, k)
            took_ms = (time.perf_counter() - started) * 1000
            return search_json(query, took_ms, passages, index.missing(), index.words_only())

        yield find


def _showing(advance: Advance) -> Callable[[Progress], None]:
    return lambda step: advance(step.stage, step.done, step.total)
