"""The way from an editor to the backend of each workspace: found, started, lost and found again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Literal

from indexer.workspace import Workspace
from server.client import (
    BACKEND_FILE,
    TOKEN_FILE,
    Backend,
    BackendUnavailable,
    Event,
    Json,
    find_backend,
    start_backend,
)

log = logging.getLogger(__name__)

Kind = Literal["stopped", "starting", "running", "failed"]
Tell = Callable[[Kind, str], None]


class Link:
    """The way to one workspace's backend. Every change that the user must know of is told once, through `tell`."""

    def __init__(self, workspace: Workspace, tell: Tell) -> None:
        self.workspace = workspace
        self.kind: Kind = "stopped"
        self.problem = ""
        # What this backend takes beside the contract's first version, as its /readyz says.
        self.accepts: frozenset[str] = frozenset()
        self._tell = tell
        self._backend: Backend | None = None
        self._known_by: tuple[str, str] | None = None
        self._connecting: asyncio.Task[Backend] | None = None

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        await self._drop()

    async def reach(self, start: bool) -> Backend:
        """The running backend; with `start`, one is started where there is none. Raises `BackendUnavailable`."""
        if self._backend is not None and self._known_by == self._signs():
            return self._backend
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(start))
        elif start and self.kind != "starting":
            # Somebody only looks for one; we want one in any case.
            await asyncio.wait([self._connecting])
            return await self.reach(start)
        # Shielded: a cancelled question must not stop the start that another one waits for.
        return await asyncio.shield(self._connecting)

    async def events(self, body: Json, start: bool) -> AsyncIterator[Event]:
        """The events of an answer. A backend that has gone is replaced once, if nothing of the answer has come."""
        for last_try in (False, True):
            backend, begun = await self.reach(start), False
            try:
                async with aclosing(backend.ask(body)) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except BackendUnavailable:
                gone = await self._is_gone()
                if begun or last_try or not gone:
                    raise

    async def get(self, path: str, /, **params: str | int) -> Json:
        """What a running backend says; none is started for it."""
        backend = await self.reach(start=False)
        try:
            return await backend.get(path, **params)
        except BackendUnavailable:
            if not await self._is_gone():
                raise
        return await (await self.reach(start=False)).get(path, **params)

    async def post(self, path: str, body: Json) -> Json:
        return await (await self.reach(start=False)).post(path, body)

    async def _connect(self, start: bool) -> Backend:
        await self._drop()
        signs = self._signs()
        found = await find_backend(self.workspace)
        if found is None and start:
            self._now("starting", f"nightschool: starting the backend of {self.workspace.root.name}")
            try:
                found = await start_backend(self.workspace)
            except BackendUnavailable as error:
                self._now("failed", f"nightschool: {error}")
                raise
            signs = self._signs()
        if found is None:
            self._now("stopped", f"nightschool: the backend of {self.workspace.root.name} has stopped")
            raise BackendUnavailable(f"no backend runs for {self.workspace.root}: start it with `nightschool serve`")
        self._backend, self._known_by = found, signs
        self._now("running", f"nightschool: the backend of {self.workspace.root.name} runs")
        return found

    async def _is_gone(self) -> bool:
        """Whether what we talked to is no more; if so it is forgotten."""
        if self._known_by == self._signs() and (found := await find_backend(self.workspace)) is not None:
            await found.close()
            return False
        await self._drop()
        return True

    async def _drop(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.close()

    def _now(self, kind: Kind, text: str) -> None:
        was, self.kind = self.kind, kind
        self.problem = text if kind == "failed" else ""
        # Found running, or not running yet: nothing has happened that anybody must be told.
        if kind != was and (was, kind) not in (("stopped", "running"), ("failed", "stopped")):
            log.info("%s", text)
            self._tell(kind, text)

    def _signs(self) -> tuple[str, str] | None:
        """What a restart changes: the address and the token on disk."""
        try:
            state = self.workspace.state
            return (state / BACKEND_FILE).read_text(), (state / TOKEN_FILE).read_text()
        except (OSError, ValueError):
            return None
