"""What the training process is told (`job.json`) and what it tells back (JSON lines). Both ends read it here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel as Model
from pydantic import ConfigDict

from server.base_model import BaseModel, Fim
from trainer.presets import Preset


class TrainingError(Exception):
    """Training failed; the message says why and is fit to show. What is in service is as it was."""


class TrainingJob(Model):
    """One training run: everything that decides its result, and where it works.

    `run` is its own folder (checkpoints, logs, what the frameworks write); `adapters` the registry; `version` the
    adapter it makes. `budget_s` counts from the start of the process. `learn_validation` learns what was kept to choose
    the hyper-parameters by (never what is held out); `probes` is how often the held-out loss is taken along the way;
    `processes` how many learn it together, one a GPU; `four_bit` holds the base
    model in 4 bits meanwhile.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: Path
    run: Path
    adapters: Path
    version: str
    base: dict[str, Any]
    preset: dict[str, Any]
    backend: Literal["auto", "unsloth", "trl"]
    budget_s: float
    max_steps: int
    seed: int
    micro_rows: int
    learn_prompts: bool
    checkpoint_every_s: float
    held_out_tokens: int
    prompt_version: int
    learn_validation: bool = False
    probes: int = 0
    processes: int = 1
    four_bit: bool = False

    def base_model(self) -> BaseModel:
        fim = Fim(**self.base["fim"]) if self.base["fim"] else None
        return BaseModel(**{**self.base, "folder": Path(self.base["folder"]), "fim": fim})

    def hyper_parameters(self) -> Preset:
        return Preset(**self.preset)


@dataclass(frozen=True, slots=True)
class Stage:
    """A named part of the work begins."""

    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """An optimiser step is done: `loss` in nats a learnt token, `left_s` the estimated rest of the training."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens: int
    tokens_per_s: float
    elapsed_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know: a fallback, a change of plan."""

    text: str


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Loss on held-out examples, nats a token, `when` before, during (at `done` of the run) or after training."""

    when: Literal["before", "during", "after"]
    loss: float
    tokens: int
    done: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """The run ended without an adapter."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The adapter's folder is whole."""

    version: str


TrainingEvent = Stage | Step | Note | HeldOut | Failed | Finished
_EVENTS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Stage, Step, Note, HeldOut, Failed, Finished)}


def event_to_line(event: TrainingEvent) -> str:
    return json.dumps({"event": type(event).__name__, **asdict(event)}) + "\n"


def line_to_event(line: str) -> TrainingEvent:
    """Raises `ValueError` for a line that is no event."""
    values = json.loads(line)
    try:
        event: TrainingEvent = _EVENTS[values.pop("event")](**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no training event: {line!r}") from error
    return event
