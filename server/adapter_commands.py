"""`nightschool adapters ...`: the registry, as people read it. What is heavy is imported where it is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.workspace import find_workspace

if TYPE_CHECKING:
    from server.adapter import Adapter

adapters_app = typer.Typer(no_args_is_help=True, help="The kept adapters and the one in service.")

WorkspaceOption = Annotated[Path | None, typer.Option("--workspace", "-w", help="The repository.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@adapters_app.command("list")
def adapters_list(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """The kept adapters, newest first, and which is in service."""
    from server.adapter import list_adapters, read_current
    from server.console import print_table

    place = find_workspace(workspace)
    current = read_current(place.adapters)
    kept = list_adapters(place.adapters)
    in_service = current.version if current else None
    if as_json:
        print(
            json.dumps({"in_service": in_service, "adapters": [json.loads(a.manifest.model_dump_json()) for a in kept]})
        )
        return
    title = "adapters (* in service)" if kept else "no adapters yet: nightschool train"
    print_table(title, ["", "version", "base model", "loss before", "after"], [_row(a, in_service) for a in kept])


@adapters_app.command("show")
def adapters_show(version: str, workspace: WorkspaceOption = None) -> None:
    """Everything about one adapter: its manifest as JSON."""
    from server.adapter import find_adapter

    print(find_adapter(find_workspace(workspace).adapters, version).manifest.model_dump_json(indent=2))


@adapters_app.command("promote")
def adapters_promote(version: str, workspace: WorkspaceOption = None) -> None:
    """Put a kept adapter in service; a running backend swaps without dropping a request."""
    from server.adapter import promote

    print(f"in service: {promote(find_workspace(workspace).adapters, version).version}")


@adapters_app.command("rollback")
def adapters_rollback(workspace: WorkspaceOption = None) -> None:
    """Back to the adapter before this one (or to the bare base model)."""
    from server.adapter import rollback

    adapter = rollback(find_workspace(workspace).adapters)
    print(f"in service: {adapter.version if adapter else 'the base model'}")


def _row(adapter: Adapter, in_service: str | None) -> list[str]:
    losses = adapter.manifest.losses
    mark = "*" if adapter.version == in_service else ""
    before, after = format_loss(losses.held_out_before), format_loss(losses.held_out_after)
    return [mark, adapter.version, adapter.manifest.base_model.name, before, after]


def format_loss(loss: float | None) -> str:
    """A loss for people; "-" where it was not measured."""
    return "-" if loss is None else f"{loss:.3f}"


def loss_line(adapter: Adapter) -> str:
    """What an adapter learnt, in one line."""
    losses = adapter.manifest.losses
    before, after = format_loss(losses.held_out_before), format_loss(losses.held_out_after)
    return f"adapter {adapter.version}: loss on held-out files {before} before, {after} after"
