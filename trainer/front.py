"""What this package's commands take from the front door: it knows the terminal and the engine, they do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from indexer.workspace import Workspace
    from server.adapter import Adapter
    from server.base_model import BaseModel
    from trainer.generated import Generator
    from trainer.job import TrainingEvent
    from trainer.promote import Served
    from trainer.stages import Rest

WorkspaceOption = Annotated[Path | None, typer.Option("--workspace", "-w", help="The repository.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, slots=True)
class Front:
    """`base_model` resolves the one in the settings; `watch` shows a training's events while its block runs;
    `generator` writes the conversations that only a model can, None where nobody does; `judge` compares answers, None
    where none is set; `print_table` takes title, head and rows; `check_engine` says how a real engine takes an
    adapter; `rest` has the running backend's engine sleep for some minutes while its block runs, None where there is
    none that should."""

    base_model: Callable[[Workspace], BaseModel]
    generator: Callable[[Workspace, BaseModel], Generator | None]
    judge: Callable[[Workspace], Generator | None]
    watch: Callable[[str], AbstractContextManager[Callable[[TrainingEvent], None]]]
    print_table: Callable[[str, Sequence[str], Sequence[Sequence[str]]], None]
    check_engine: Callable[[Workspace, BaseModel, Adapter], Served]
    rest: Callable[[Workspace], Rest | None]
