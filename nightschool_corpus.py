"""`nightschool corpus ...` and `collect --check`: the corpus, as people read it. What is heavy is imported where it is
needed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer.workspace import Workspace, find_workspace, write_atomically
from server.options import WorkspaceOption

if TYPE_CHECKING:
    from trainer.ledger_tables import Table

corpus_app = typer.Typer(no_args_is_help=True, help="What was learnt from, and what was not.")

PAGE = "ledger.html"


@corpus_app.command("show")
def corpus_show(
    workspace: WorkspaceOption = None,
    source: Annotated[
        str | None, typer.Option(help="Only the examples of this path or document (`wiki:NAME`, `pr:7`).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ledger as one JSON object.")] = False,
) -> None:
    """The newest corpus: its mix by kind, its sources, and what was left out and why; also as a page with charts.

    Examples: `nightschool corpus show`, `nightschool corpus show --source src/app.py`, `nightschool corpus show --json`
    """
    from server.console import print_table
    from trainer.ledger import read_ledger
    from trainer.ledger_page import to_html
    from trainer.ledger_tables import entries_of, entry_table, tables_of
    from trainer.stages import newest_corpus

    folder = newest_corpus(find_workspace(workspace))
    ledger = read_ledger(folder)
    chosen = ledger.entries if source is None else entries_of(ledger, source)
    if as_json:
        print(json.dumps({**asdict(ledger), "sha256": ledger.sha256, "entries": [asdict(entry) for entry in chosen]}))
        return
    tables: list[Table] = tables_of(ledger) if source is None else [entry_table(chosen)]
    for table in tables:
        print_table(table.title, table.head, table.rows)
    if source is None:
        write_atomically(folder / PAGE, to_html(ledger))
        print(f"page: {folder / PAGE}")


def show_collected(report: dict[str, Any]) -> None:
    """What `collect` made, as people read it: the facts, then the mix by tokens and what was left out."""
    from server.console import print_table

    facts = {name: value for name, value in report.items() if not isinstance(value, dict)}
    print("\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()))
    learnt = sum(report["mix"].values()) or 1
    rows = [[kind, f"{tokens:,}", f"{tokens / learnt:.1%}"] for kind, tokens in report["mix"].items()]
    print_table("learnt, by tokens", ["kind", "tokens", "share"], rows)
    for title, column in (("left out", "reason"), ("masked", "secret")):
        counted = sorted(report[title.replace(" ", "_")].items(), key=lambda item: -item[1])
        if counted:
            print_table(title, [column, "how many"], [[name, f"{number:,}"] for name, number in counted])


def check(place: Workspace, as_json: bool) -> None:
    """Look for leaks in the newest corpus and list them; exit code 1 when there is one."""
    from server.console import print_table
    from trainer.corpus import check_corpus
    from trainer.stages import newest_corpus

    folder = newest_corpus(place)
    leaks = check_corpus(folder)
    if as_json:
        print(json.dumps({"corpus": str(folder), "leaks": [asdict(leak) for leak in leaks]}))
    elif leaks:
        rows = [[leak.kind, leak.held_out, leak.training] for leak in leaks]
        print_table(f"leaks in {folder.name}", ["leak", "held out", "found in"], rows)
    else:
        print(f"no leak in {folder.name}")
    if leaks:
        raise typer.Exit(1)
