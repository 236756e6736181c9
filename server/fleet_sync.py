"""One repository after the other brought here and indexed: what failed says why, and the rest is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

from indexer.clones import CannotFetch, bring_clone
from indexer.fleet import FleetIndex, open_fleet
from indexer.fleet_file import find_repository
from indexer.fleet_settings import FleetSettings, RepositorySettings
from indexer.index import IndexUnavailable, Progress
from indexer.settings import BadSettings, IndexerSettings
from indexer.workspace import Workspace
from server.client import BackendUnavailable, Json, find_backend

Tell = Callable[[str, float, float | None], None]
Update = Callable[[str], Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class Synced:
    """What became of one repository: `fault` is "" when it is indexed as it is; `commit` "" without git."""

    name: str
    fault: str
    commit: str = ""
    files: int = 0
    chunks: int = 0
    embedded: int = 0
    seconds: float = 0.0


async def sync(fleet: Workspace, names: Sequence[str], tell: Tell) -> list[Synced]:
    """Clone or fetch, then index, each of `names` (none: all). Killed, the next call goes on. Raises `BadSettings`."""
    settings = FleetSettings.read(fleet)
    repositories = [find_repository(fleet, name) for name in names] or list(settings.repositories)
    if not repositories:
        raise BadSettings("there is no repository in the fleet yet: nightschool fleet add NAME SOURCE")
    synced = []
    async with _updating(fleet, tell) as update:
        for number, repository in enumerate(repositories):
            tell(f"{repository.name} ({number + 1} of {len(repositories)})", 0, None)
            synced.append(await _sync_one(fleet, repository, settings.git_timeout_s, update))
    return synced


async def _sync_one(fleet: Workspace, repository: RepositorySettings, timeout_s: float, update: Update) -> Synced:
    try:
        if repository.is_cloned:
            await asyncio.to_thread(bring_clone, repository.source, repository.place(fleet).root, timeout_s)
        report = await update(repository.name)
    except (CannotFetch, IndexUnavailable, BackendUnavailable, OSError) as error:
        return Synced(repository.name, " ".join(str(error).split()))
    numbers = {key: report[key] for key in ("files", "chunks", "embedded", "seconds")}
    return Synced(repository.name, "", report["commit"], **numbers)


@asynccontextmanager
async def _updating(fleet: Workspace, tell: Tell) -> AsyncIterator[Update]:
    """How one repository is indexed: through the running backend, which owns the fleet, or here."""
    async with AsyncExitStack() as stack:
        if (backend := await find_backend(fleet)) is not None:
            await stack.enter_async_context(backend)
            yield lambda name: backend.post("/fleet/update", {"name": name})
            return
        index = stack.enter_context(open_fleet(fleet, IndexerSettings.read(fleet)))
        index.reload()
        yield lambda name: asyncio.to_thread(_update_here, index, tell, name)


def _update_here(index: FleetIndex, tell: Tell, name: str) -> Json:
    def say(step: Progress) -> None:
        tell(step.stage, step.done, step.total)

    return update_one(index, name, say)


def update_one(index: FleetIndex, name: str, say: Callable[[Progress], None] = lambda _: None) -> Json:
    """Index one repository: what `UpdateReport` has, and its commit. Raises `IndexUnavailable`."""
    return {**asdict(index.update_one(name, say)), "commit": index.commit_of(name)}


def status_json(index: FleetIndex) -> Json:
    """Every repository of `index` with its state, or its fault."""
    rows = []
    for name, state in index.states().items():
        about = {"name": name, "group": index.group_of(name), "fault": state if isinstance(state, str) else ""}
        rows.append(about | ({} if isinstance(state, str) else asdict(state)))
    return {"repositories": rows, "failed": sum(bool(row["fault"]) for row in rows)}


async def reload(fleet: Workspace) -> None:
    """Let what serves `fleet` read [fleet] anew, and delete what is gone from it."""
    backend = await find_backend(fleet)
    if backend is not None:
        async with backend:
            await backend.post("/fleet/reload")
        return
    with open_fleet(fleet, IndexerSettings.read(fleet)) as index:
        await asyncio.to_thread(index.reload, True)


async def read_status(fleet: Workspace) -> Json:
    """`status_json` of the running backend, or of what lies here."""
    backend = await find_backend(fleet)
    if backend is not None:
        async with backend:
            return await backend.get("/fleet")
    with open_fleet(fleet, IndexerSettings.read(fleet)) as index:
        return await asyncio.to_thread(status_json, index)
