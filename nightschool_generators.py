"""Who writes what only a model can, and who compares answers: where the engine and the trainer meet."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.workspace import Workspace
    from server.base_model import BaseModel
    from server.writer import Write
    from trainer.corpus_settings import CorpusSettings
    from trainer.generated import Generate, Generator


def generator_for(place: Workspace, base: BaseModel) -> Generator | None:
    """Who writes the conversations that only a model can, as [corpus] generator says; None for nobody."""
    from indexer.gpu import has_gpu
    from server.client import read_backend
    from trainer.corpus_settings import CorpusSettings
    from trainer.generated import Generator

    settings = CorpusSettings.read(place)
    if settings.generator == "off" or not (settings.page_answers or settings.general):
        return None
    if settings.generator == "auto" and not has_gpu() and read_backend(place) is None:
        return None
    name = f"{base.name} {base.sha256[:16]}"
    if settings.generator.startswith("http"):
        name = f"{settings.generator} {settings.generator_model}"
    return Generator(name, lambda: _asked(_writer(place, base, settings)), settings.generator_at_once)


def judge_for(place: Workspace) -> Generator | None:
    """Who compares the answers, as [trainer] judge says; None for nobody."""
    from server.writer import endpoint_writer
    from trainer.generated import Generator
    from trainer.settings import TrainerSettings

    settings = TrainerSettings.read(place)
    if not settings.judge:
        return None

    def opened() -> AbstractAsyncContextManager[Generate]:
        writer = endpoint_writer(settings.judge, settings.judge_model, _key(settings.judge_key_variable))
        return _asked(writer, f"the judge at {settings.judge}: ")

    return Generator(f"{settings.judge} {settings.judge_model}".strip(), opened, at_once=4)


def _writer(place: Workspace, base: BaseModel, settings: CorpusSettings) -> AbstractAsyncContextManager[Write]:
    from server.settings import ServerSettings
    from server.writer import endpoint_writer, own_writer

    if settings.generator.startswith("http"):
        return endpoint_writer(settings.generator, settings.generator_model, _key(settings.generator_key_variable))
    return own_writer(place, ServerSettings.read(place), base)


def _key(variable: str) -> str:
    return os.environ.get(variable, "") if variable else ""


@asynccontextmanager
async def _asked(writer: AbstractAsyncContextManager[Write], who: str = "") -> AsyncIterator[Generate]:
    """`writer`, with its errors as the trainer knows them; `who` stands before each."""
    from server.client import BackendUnavailable
    from server.engine import EngineError
    from server.generation import GenerationError
    from trainer.generated import GeneratorError

    try:
        async with writer as write:

            async def generate(
                messages: Sequence[Mapping[str, str]], max_tokens: int, schema: Mapping[str, Any] | None
            ) -> str:
                try:
                    return await write(messages, max_tokens, schema)
                except GenerationError as error:
                    raise GeneratorError(f"{who}{error}") from error

            yield generate
    except (EngineError, GenerationError, BackendUnavailable) as error:
        raise GeneratorError(f"{who}{error}") from error
