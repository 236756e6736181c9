"""Small things that do the job of the index and the engine: passages by hand, a model that reads from a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

import pytest

from indexer.index import IndexState
from indexer.search import Passage
from server.assist import Doors
from server.generation import Finish, Sampling
from server.prompt import Turn


def make_passage(path: str = "app.py", text: str = "def run():\n    return 1\n", start_line: int = 1) -> Passage:
    lines = text.count("\n") + (not text.endswith("\n"))
    digest = sha256(text.encode()).hexdigest()
    return Passage(path, start_line, start_line + lines - 1, 1.0, "run", "python", text, digest)


@dataclass
class ScriptedModel:
    """Writes its script, piece by piece; raises what is an exception in it, waits for what is an event.

    `stopped` counts closings.
    """

    script: Sequence[str | Exception | asyncio.Event] = ("It is in ", "run [1].")
    adapter: str | None = "2026-01-01-0000-abc"
    base_model: str = "scripted"
    context_tokens: int = 4096
    seen: list[Sequence[Turn]] = field(default_factory=list)
    stopped: int = 0

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def generate(self, messages: Sequence[Turn], sampling: Sampling) -> AsyncIterator[str | Finish]:
        self.seen.append(messages)
        try:
            for piece in self.script:
                await asyncio.sleep(0)
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                else:
                    yield piece
            yield Finish("stop", 10, len(self.script))
        finally:
            self.stopped += 1


def make_doors(
    model: ScriptedModel | Exception, passages: Sequence[Passage] | Exception = (), is_there: bool = True
) -> Doors:
    async def search(query: str, k: int, overlays: object) -> Sequence[Passage]:
        if isinstance(passages, Exception):
            raise passages
        return passages[:k]

    async def freshness() -> IndexState:
        return IndexState("c0ffee", 0, 1, 1, 0, 0, 0.0)

    @asynccontextmanager
    async def borrow(version: str | None) -> AsyncIterator[ScriptedModel]:
        if isinstance(model, Exception):
            raise model
        yield model

    return Doors(search, lambda _: is_there, freshness, borrow)


@pytest.fixture
def passage() -> Callable[..., Passage]:
    return make_passage


@pytest.fixture
def scripted() -> type[ScriptedModel]:
    return ScriptedModel


@pytest.fixture
def doors() -> Callable[..., Doors]:
    return make_doors
