"""`nightschool adapters ...`: the registry, as people read it. What is heavy is imported where it is needed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.workspace import find_workspace
from server.options import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from server.adapter import Adapter

adapters_app = typer.Typer(no_args_is_help=True, help="The kept adapters and the one in service.")


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


@adapters_app.command("diff")
def adapters_diff(one: str, other: str, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """What two adapters differ in: base model, data, hyper-parameters, losses.

    Example: `nightschool adapters diff 2026-11-23-0230-59af43a 2026-11-24-0230-2151025`
    """
    from server.adapter import find_adapter
    from server.adapter_diff import differences
    from server.console import print_table

    adapters = find_workspace(workspace).adapters
    rows = differences(find_adapter(adapters, one).manifest, find_adapter(adapters, other).manifest)
    if as_json:
        print(json.dumps([{"field": row.field, "one": row.one, "other": row.other} for row in rows]))
        return
    print_table(f"{len(rows)} differences", ["", one, other], [[r.field, show(r.one), show(r.other)] for r in rows])


@adapters_app.command("prune")
def adapters_prune(
    keep: Annotated[int, typer.Option(min=1, help="The newest to keep.")] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which would go.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete old adapters; never the one in service nor the one before it.

    Example: `nightschool adapters prune --keep 3 --dry-run`
    """
    from server.adapter import prune

    gone = prune(find_workspace(workspace).adapters, keep, dry_run=dry_run)
    if as_json:
        print(json.dumps({"deleted" if not dry_run else "would_delete": gone}))
        return
    print("\n".join(f"{'would delete' if dry_run else 'deleted'} {version}" for version in gone) or "nothing to delete")


def show(value: object) -> str:
    """A manifest's value for people; "-" where there is none."""
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


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
