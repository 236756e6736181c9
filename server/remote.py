"""An engine that somebody else runs: any OpenAI-compatible endpoint by its URL, in place of our own vLLM."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from server.adapter import UnknownAdapter
from server.backoff import OPENS_AFTER, READY, EngineState, down, wait_s
from server.base_model import BaseModel
from server.engine import EngineError
from server.generation import Endpoint, Engine, GenerationError, ModelCard, token_counter
from server.routing import shown_url
from server.settings import ServerSettings

NO_ADAPTER = "no adapter {}: the engine serves its own model, and what [server] engine_adapters names"
log = logging.getLogger(__name__)


class RemoteServing:
    """Watches over one endpoint, as `Serving` does over our own engines: that of the settings, or `url`.

    It serves its own model, and the adapters that `[server] engine_adapters` names.
    """

    adapter: str | None = None

    def __init__(self, settings: ServerSettings, wait: Callable[[int], float] = wait_s, url: str = "") -> None:
        address = (url or settings.engine_url).rstrip("/")
        self._url = shown_url(address)
        self.state = EngineState("starting", f"asking {self._url} for a first token")
        self._adapters = frozenset(settings.engine_adapters.values())
        self._named = settings.engine_model
        self._wait = wait
        self._failures = 0
        self._broken = asyncio.Event()
        model, timeout_s = settings.engine_model, settings.engine_timeout_s
        self._engine = Engine(
            Endpoint(address, settings.engine_key, model, timeout_s=timeout_s),
            ModelCard(model, None, settings.engine_context, token_counter(None)),
        )
        self._engine.note = self._note

    @property
    def base_model(self) -> BaseModel:
        """As much of it as an endpoint tells: its name. Its weights are not here."""
        name = self._engine.base_model or self._url
        about = f"served at {self._url}"
        return BaseModel(name, "", "", Path("/dev/null"), "", self._engine.context_tokens, "", None, 0, about)

    async def run(self) -> None:
        """Until cancelled: find the endpoint well, wait until its readers find it broken, find it well again."""
        try:
            while True:
                await self._until_it_answers()
                await self._broken.wait()
        finally:
            await self.stop()

    async def _until_it_answers(self) -> None:
        tries = 0
        while True:
            try:
                if not self._named:
                    await self._engine.ask_its_name()
                await self._engine.probe()
            except GenerationError as error:
                tries += 1
                wait = self._wait(tries - 1)
                self.state = down(tries, f"the engine at {self._url} does not answer: {error}")
                log.warning("%s (next try in %.0f s)", self.state.reason, wait)
                await asyncio.sleep(wait)
            else:
                self._failures = 0
                self._broken.clear()
                self.state = READY
                log.info("the engine at %s answers, as %s", self._url, self._engine.base_model)
                return

    @asynccontextmanager
    async def borrow(self, version: str | None = None) -> AsyncIterator[Engine]:
        """The endpoint, for one answer. Raises `EngineError` while it is down, `UnknownAdapter`."""
        self.check(version)
        if not self.state.is_answering:
            raise EngineError(self.state.reason)
        yield self._engine if version in (None, "none") else self._engine.with_adapter(version)

    def check(self, version: str | None) -> None:
        """Raise `UnknownAdapter` for one that the settings do not name."""
        if version is None or version == "none" or version in self._adapters:
            return
        raise UnknownAdapter(NO_ADAPTER.format(version))

    def _note(self, error: GenerationError | None) -> None:
        """How an answer ended. What our own probes meet while it is down is told elsewhere."""
        if not self.state.is_answering:
            return
        self._failures = self._failures + 1 if error else 0
        if not error:
            self.state = READY
        elif self._failures < OPENS_AFTER:
            self.state = EngineState("degraded", f"the last question failed: {error}")
        else:
            self.state = EngineState("backoff", f"{self._failures} questions in a row failed: {error}")
            log.warning("%s: the engine at %s is left alone for a while", self.state.reason, self._url)
            self._broken.set()

    async def stop(self) -> None:
        """Close what is open; the endpoint itself is not ours to end."""
        await self._engine.close()
