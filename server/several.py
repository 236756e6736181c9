"""Several engines that others run, behind one door: a conversation stays with one, and moves when that is not well."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from server.backoff import EngineState, wait_s
from server.base_model import BaseModel
from server.engine import EngineError
from server.generation import Engine, Finish, GenerationError, GenerationRefused, Sampling
from server.prompt import Turn
from server.remote import RemoteServing
from server.routing import conversation_key, opening_key, rank_engines, shown_url, taken_together
from server.settings import ServerSettings

log = logging.getLogger(__name__)

Pieces = AsyncGenerator[str | Finish]


class SeveralServing:
    """Watches over each of `[server] engine_urls` as `RemoteServing` does over one. All serve the same models."""

    adapter: str | None = None

    def __init__(self, settings: ServerSettings, wait: Callable[[int], float] = wait_s) -> None:
        self.each = {url: RemoteServing(settings, wait, url) for url in settings.engine_urls}

    @property
    def state(self) -> EngineState:
        return taken_together(self.states())

    @property
    def base_model(self) -> BaseModel:
        """That of the first which answers."""
        return next(
            (one for one in self.each.values() if one.state.is_answering), next(iter(self.each.values()))
        ).base_model

    def states(self) -> dict[str, EngineState]:
        """Address, without a password in it -> the state of that engine."""
        return {shown_url(url): one.state for url, one in self.each.items()}

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(*(one.run() for one in self.each.values()))

    @asynccontextmanager
    async def borrow(self, version: str | None = None) -> AsyncIterator[Routed]:
        """The engines, for one answer. Raises `EngineError` when none answers, `UnknownAdapter`."""
        for one in self.each.values():
            one.check(version)
        if not any(one.state.is_answering for one in self.each.values()):
            raise EngineError(self.state.reason)
        first = next(one for one in self.each.values() if one.state.is_answering)
        async with first.borrow(version) as engine:
            yield Routed(self, version, engine.adapter, engine.base_model, engine.context_tokens, engine.count_tokens)

    async def stop(self) -> None:
        """Close what is open."""
        await asyncio.gather(*(one.stop() for one in self.each.values()))


@dataclass(slots=True)
class Routed:
    """One model to those who ask, whichever of `serving`'s engines it is that answers."""

    serving: SeveralServing
    version: str | None
    adapter: str | None
    base_model: str
    context_tokens: int
    count_tokens: Callable[[str], int]

    def generate(self, messages: Sequence[Turn], sampling: Sampling) -> Pieces:
        """The completion, from the engine that this conversation belongs to or the next one that answers.

        An engine that fails before its first piece costs nothing but time: the next is asked. After it, the completion
        is broken off: `GenerationError`. `EngineError` when no engine has begun.
        """
        return self._first_to_begin(conversation_key(messages), lambda engine: engine.generate(messages, sampling))

    def complete(self, prompt: str, sampling: Sampling) -> Pieces:
        """The same for a text completion."""
        return self._first_to_begin(opening_key(prompt), lambda engine: engine.complete(prompt, sampling))

    async def _first_to_begin(self, key: str, ask: Callable[[Engine], Pieces]) -> Pieces:
        each, faults = self.serving.each, []
        for url in rank_engines(key, each):
            has_begun = False
            try:
                async with each[url].borrow(self.version) as engine, aclosing(ask(engine)) as pieces:
                    async for piece in pieces:
                        has_begun = True
                        yield piece
                return
            except GenerationRefused:
                raise
            except (GenerationError, EngineError) as error:
                if has_begun:
                    raise
                faults.append(f"{shown_url(url)}: {error}")
                log.warning("%s; the next engine is asked", faults[-1])
        raise EngineError(f"no engine answers: {'; '.join(faults)}")
