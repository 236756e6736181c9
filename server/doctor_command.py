"""`nightschool doctor`: everything that can be wrong, looked at one by one, each with what to do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from indexer.workspace import Workspace, find_workspace
from server.options import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from server.base_model import BaseModel
    from server.client import Backend, Json
    from server.doctor import Finding
    from server.doctor_proofs import Search, Update
    from server.settings import ServerSettings


def doctor(
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at everything that can be wrong here, and say of each line that it is ok or what to do. Exit 1: not all is.

    It brings the index up to date, and proves by doing: a file that it makes and removes is found and forgotten, and
    what the adapter learnt is in the weights that are served. Of a fleet it names each repository that is not as it
    should be; nothing is made in their folders.

    Examples: `nightschool doctor`, `nightschool doctor --json`
    """
    import asyncio

    findings: list[Finding] = []

    async def look() -> None:
        async for finding in _look(find_workspace(workspace)):
            findings.append(finding)
            if not as_json:
                _show(finding)

    asyncio.run(look())
    ok = all(finding.ok for finding in findings)
    if as_json:
        print(json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}))
    raise typer.Exit(0 if ok else 1)


async def _look(place: Workspace) -> AsyncIterator[Finding]:
    from indexer.settings import IndexerSettings
    from server.client import find_backend
    from server.doctor import Finding, cluster, embedder, engine, engines, look_at_machine
    from server.doctor_servers import chroma, endpoints
    from server.doctor_team import look_at_team
    from server.settings import ServerSettings

    settings = ServerSettings.read(place)
    base, fault = _base_model(settings)
    for finding in (*look_at_machine(place, settings, base), *look_at_team(place)):
        yield finding
    yield Finding("base model", base is not None, f"{base.name}: {base.why}" if base else fault, "set [server] model")
    indexer_settings = IndexerSettings.read(place)
    yield embedder(indexer_settings)
    for finding in cluster(indexer_settings):
        yield finding
    backend = await find_backend(place)
    ready = await backend.get("/readyz") if backend else None
    yield engine(ready)
    for finding in (*engines(ready), *endpoints(settings, ready), *chroma(indexer_settings, ready)):
        yield finding
    served = await _served(backend, ready)
    if backend:
        await backend.close()
    async for finding in _look_at_index(place):
        yield finding
    if (found := _look_at_adapter(place, base, served)) is not None:
        yield found


async def _look_at_index(place: Workspace) -> AsyncIterator[Finding]:
    from indexer.fleet_settings import is_fleet
    from indexer.index import IndexUnavailable
    from server.client import BackendUnavailable
    from server.doctor import Finding, coverage
    from server.doctor_proofs import prove_freshness
    from server.fleet_doctor import look_at_fleet
    from server.fleet_sync import read_status

    try:
        if is_fleet(place):
            for finding in look_at_fleet(place, await read_status(place)):
                yield finding
            return
        async with _the_index(place) as (report, search, update):
            yield coverage(report)
            yield await prove_freshness(place, search, update)
    except (IndexUnavailable, BackendUnavailable) as error:
        yield Finding("index", False, str(error), "end what else uses the index, then try again")


@asynccontextmanager
async def _the_index(place: Workspace) -> AsyncIterator[tuple[Json, Search, Update]]:
    """A report of an update, a search, and how to read the tree anew: through the backend, which watches, or here."""
    import asyncio

    from indexer.opened import open_any_index
    from indexer.settings import IndexerSettings
    from server.client import find_backend

    backend = await find_backend(place)
    if backend is not None:

        async def search(query: str) -> list[str]:
            return [passage["path"] for passage in (await backend.get("/search", q=query, k=5))["passages"]]

        async with backend:
            yield await backend.post("/index"), search, _watched
        return
    with open_any_index(place, IndexerSettings.read(place)) as index:

        async def search_here(query: str) -> list[str]:
            return [passage.path for passage in await asyncio.to_thread(index.search, query, 5)]

        async def update() -> None:
            await asyncio.to_thread(index.update)

        yield asdict(await asyncio.to_thread(index.update)), search_here, update


async def _watched() -> None:
    """Nothing: a running backend sees every change by itself, which is what is proved."""


async def _served(backend: Backend | None, ready: Json | None) -> Json | None:
    """What `/adapters/served` says where an adapter is loaded into the engine; None elsewhere."""
    from server.client import BackendUnavailable

    if backend is None or not ready or ready.get("served") != "loaded":
        return None
    try:
        return await backend.get("/adapters/served")
    except BackendUnavailable as error:
        return {"fault": str(error)}


def _look_at_adapter(place: Workspace, base: BaseModel | None, served: Json | None) -> Finding | None:
    from server.adapter import AdapterError, read_current
    from server.doctor import Finding
    from server.doctor_proofs import prove_adapter, prove_loaded, served_folder

    try:
        adapter = read_current(place.adapters)
    except AdapterError as error:
        return Finding("adapter", False, str(error), "nightschool adapters rollback")
    if adapter is None:
        return Finding("adapter", True, "none yet: `nightschool train` or `nightschool night` makes one")
    if served is not None:
        return prove_loaded(adapter, served)
    return prove_adapter(adapter, base, served_folder(place.state)) if base else None


def _base_model(settings: ServerSettings) -> tuple[BaseModel | None, str]:
    from server.base_model import BaseModelUnavailable, resolve_base_model
    from server.console import say

    try:
        return resolve_base_model(settings.model, settings.models_cache, say), ""
    except BaseModelUnavailable as error:
        return None, str(error)


def _show(finding: Finding) -> None:
    from rich.markup import escape

    from server.console import out

    mark = "[green]ok[/]  " if finding.ok else "[red]look[/]"
    out.print(f"{mark} [bold]{finding.name}[/]: {escape(finding.found)}")
    if not finding.ok:
        out.print(f"       {escape(finding.todo)}")
