"""`nightschool feedback ...`: what was written down of your questions, shown, taken out, erased."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from indexer.workspace import find_workspace, write_atomically
from server.options import JsonOption, WorkspaceOption

feedback_app = typer.Typer(
    no_args_is_help=True,
    help="Questions and answers written down here, where `[server] feedback` is on. They never leave the machine.",
)


@feedback_app.command("show")
def feedback_show(
    workspace: WorkspaceOption = None,
    most: Annotated[int, typer.Option("-n", min=1, help="How many of the newest.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """How many questions were written down, and the newest of them.

    Examples: `nightschool feedback show`, `nightschool feedback show -n 3 --json`
    """
    from server.console import print_table
    from server.feedback import Feedback
    from server.settings import ServerSettings

    place = find_workspace(workspace)
    exchanges, is_on = Feedback(place).read(), ServerSettings.read(place).feedback
    counts = {
        "asked": len(exchanges),
        "kept": sum(e.kept is True for e in exchanges),
        "not_kept": sum(e.kept is False for e in exchanges),
        "edited": sum(e.edited is not None for e in exchanges),
    }
    newest = exchanges[-most:][::-1]
    if as_json:
        print(json.dumps({"on": is_on, **counts, "newest": [asdict(e) for e in newest]}))
        return
    print(", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items()))
    if not is_on:
        print("nothing new is written down: [server] feedback is off")
    if newest:
        kept = {None: "", True: "kept", False: "not kept"}
        rows = [[e.asked_at, kept[e.kept], "edited" if e.edited else "", _short(e.question)] for e in newest]
        print_table("newest first", ["asked", "", "", "question"], rows)


@feedback_app.command("export")
def feedback_export(
    file: Annotated[Path | None, typer.Argument(help="Where to; default: standard output.")] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Everything that was written down, one JSON object a line.

    Examples: `nightschool feedback export > feedback.jsonl`, `nightschool feedback export feedback.jsonl`
    """
    from server.console import say
    from server.feedback import Feedback

    lines = [
        json.dumps(asdict(exchange), ensure_ascii=False) for exchange in Feedback(find_workspace(workspace)).read()
    ]
    text = "".join(f"{line}\n" for line in lines)
    if file is None:
        print(text, end="")
        return
    write_atomically(file, text, mode=0o600)
    say(f"wrote {len(lines)} exchanges to {file}")


@feedback_app.command("erase")
def feedback_erase(
    workspace: WorkspaceOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget everything that was written down. An adapter that was trained on it keeps what it learnt.

    Examples: `nightschool feedback erase --yes`
    """
    from server.feedback import Feedback

    place = find_workspace(workspace)
    if not yes:
        typer.confirm(f"Erase every question and answer written down in {place.root}?", abort=True)
    print(f"erased {Feedback(place).erase()} exchanges")


def _short(text: str, most: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
