"""The judge of `nightschool night`: a model behind an endpoint, where [trainer] judge names one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.workspace import Workspace
    from trainer.generated import Generate, Generator
    from trainer.settings import TrainerSettings


def judge_for(place: Workspace) -> Generator | None:
    """Who compares the answers, as [trainer] judge says; None for nobody."""
    from trainer.generated import Generator
    from trainer.settings import TrainerSettings

    settings = TrainerSettings.read(place)
    if not settings.judge:
        return None
    return Generator(f"{settings.judge} {settings.judge_model}".strip(), lambda: _open(settings), at_once=4)


@asynccontextmanager
async def _open(settings: TrainerSettings) -> AsyncIterator[Generate]:
    """The endpoint, with its errors as the trainer knows them."""
    from server.generation import GenerationError
    from server.writer import endpoint_writer
    from trainer.generated import GeneratorError

    key = os.environ.get(settings.judge_key_variable, "") if settings.judge_key_variable else ""
    try:
        async with endpoint_writer(settings.judge, settings.judge_model, key) as write:

            async def generate(
                messages: Sequence[Mapping[str, str]], max_tokens: int, schema: Mapping[str, Any] | None
            ) -> str:
                return await write(messages, max_tokens, schema)

            yield generate
    except GenerationError as error:
        raise GeneratorError(f"the judge at {settings.judge}: {error}") from error
