"""Collecting and training as the command line runs them: where terminal, engine and trainer meet. What is heavy is
imported where it is needed."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nightschool_generators import generator_for, judge_for
from trainer.front import Front

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from indexer.workspace import Workspace
    from server.adapter import Adapter
    from server.base_model import BaseModel
    from server.console import Advance
    from trainer.job import TrainingEvent
    from trainer.promote import Served
    from trainer.settings import TrainerSettings
    from trainer.stages import Rest


def choose_model(model: str | None) -> None:
    """The model asked for, for this process and those it starts."""
    if model is not None and model != "auto":
        os.environ["NIGHTSCHOOL_SERVER__MODEL"] = model


def base_model(place: Workspace) -> BaseModel:
    """The base model that the settings name."""
    from server.base_model import resolve_base_model
    from server.console import say
    from server.settings import ServerSettings

    settings = ServerSettings.read(place)
    return resolve_base_model(settings.model, settings.models_cache, say)


def collect_corpus(place: Workspace, base: BaseModel) -> dict[str, Any]:
    """Make the corpus, with progress on stderr; what it holds, as JSON."""
    from dataclasses import asdict

    from trainer.night import Workshop, collect

    with _watch("collecting") as tell:
        workshop = Workshop(place, trainer_settings_of(place), base, tell, generator=generator_for(place, base))
        return asdict(collect(workshop))


def train_adapter(place: Workspace, base: BaseModel, budget: float | None) -> Adapter:
    """Train on the newest corpus, for `budget` minutes at most, and put the adapter in service. Raises `NightBusy`."""
    from trainer.night import Workshop, run_training
    from trainer.only_one import only_one
    from trainer.stages import resting

    if budget is not None:
        os.environ["NIGHTSCHOOL_TRAINER__BUDGET_MINUTES"] = str(budget)
    with _watch("training") as tell, only_one(place):
        workshop = Workshop(place, trainer_settings_of(place), base, tell, rest=_rest(place))
        with resting(workshop, workshop.settings.budget_minutes):
            return run_training(workshop).adapter


def _check_engine(place: Workspace, base: BaseModel, adapter: Adapter) -> Served:
    from server.settings import ServerSettings
    from server.trial import try_adapter
    from trainer.promote import Served

    tried = asyncio.run(try_adapter(place, ServerSettings.read(place), base, adapter))
    return Served(tried.fault, tried.first_token_s, tried.tokens_per_s)


def _rest(place: Workspace) -> Rest | None:
    """The backend's engine asleep, as [trainer] engine says; None where no backend runs, or it is to answer on.

    A repository of a fleet is answered for by the fleet's backend, whose queue of nights it is in.
    """
    from indexer.gpu import has_gpu
    from indexer.workspace import Workspace
    from server.client import read_backend

    served = Workspace(place.settings_folder) if place.settings_folder else place
    if not trainer_settings_of(place).engine_sleeps(has_gpu()) or read_backend(served) is None:
        return None
    return lambda minutes: _asleep(served, minutes)


@contextmanager
def _asleep(place: Workspace, minutes: float) -> Iterator[str]:
    """The engine asleep while inside; why it is not, "" when it is. Should we be killed, the backend wakes it."""
    fault = asyncio.run(_tell_backend(place, "/engine/sleep", {"minutes": minutes}))
    try:
        yield fault
    finally:
        asyncio.run(_tell_backend(place, "/engine/wake", {}))


async def _tell_backend(place: Workspace, path: str, body: dict[str, Any]) -> str:
    """What went wrong, "" for nothing: a backend that is gone meanwhile has no engine in our way."""
    from server.client import BackendUnavailable, find_backend

    try:
        if (backend := await find_backend(place)) is not None:
            async with backend:
                await backend.post(path, body)
    except BackendUnavailable as error:
        return str(error)
    return ""


@contextmanager
def _watch(title: str) -> Iterator[Callable[[TrainingEvent], None]]:
    from server.console import progress

    with progress(title) as advance:
        yield _showing(advance)


def _print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from server.console import print_table

    print_table(title, head, rows)


def trainer_settings_of(place: Workspace) -> TrainerSettings:
    """The [trainer] settings of this workspace."""
    from trainer.settings import TrainerSettings

    return TrainerSettings.read(place)


def _showing(advance: Advance) -> Callable[[TrainingEvent], None]:
    """Shows a training's events: stages and notes as text, steps with loss, speed and the time left."""
    from server.console import say
    from trainer.job import Note, Stage, Step

    def show(event: TrainingEvent) -> None:
        match event:
            case Stage(text):
                advance(text, 0, None)
            case Note(text):
                say(text)
            case Step() as s:
                advance(f"loss {s.loss:.3f}, {s.tokens_per_s:.0f} tokens/s, {s.left_s:.0f} s left", s.step, s.steps)

    return show


FRONT = Front(base_model, generator_for, judge_for, _watch, _print_table, _check_engine, _rest)
