"""`nightschool backup` and `nightschool restore`. What is heavy is imported where it is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.workspace import find_workspace
from server.options import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from server.backup_read import Contents

MEGABYTE = 1_000_000


def backup(
    file: Annotated[Path, typer.Argument(help="Where to; a backup that is there is replaced.")],
    workspace: WorkspaceOption = None,
    with_generated: Annotated[
        bool,
        typer.Option("--with-generated", help="Also what a model wrote for the corpus: it takes long to make again."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write what cannot be made again into one file: adapters, feedback, settings, nights' records, the audit log.

    Of a fleet also what is kept of each repository: its adapters, what was forgotten, its nights' records.

    A backend or a night may run meanwhile. The file is readable by you only; it holds no token, no code and no index.

    Examples: `nightschool backup ~/backup/app.tar.gz`, `nightschool backup --with-generated --json /srv/app.tar.gz`
    """
    from server.backup import make_backup
    from server.console import progress, say

    with progress("backup") as advance:
        report = make_backup(find_workspace(workspace), file, with_generated, lambda what: advance(what, 0, None))
    for notice in report.notices:
        say(notice)
    if as_json:
        facts = {"file": str(file), "bytes": report.bytes, "files": report.files}
        print(json.dumps({**facts, "adapters": report.adapters, "notices": report.notices}))
        return
    print(f"{file}: {report.files} files, {len(report.adapters)} adapters, {report.bytes / MEGABYTE:.1f} MB")


def restore(
    file: Annotated[Path, typer.Argument(help="What `nightschool backup` wrote.")],
    workspace: WorkspaceOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there and differs.")] = False,
    only_list: Annotated[
        bool, typer.Option("--list", help="Check all of it, say what is in it, change nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a backup back. Everything in it is checked first; then all of it is put in place, or nothing.

    No backend may run meanwhile. The index is made again by the next `nightschool index` or `serve`.

    Examples: `nightschool restore --list app.tar.gz`, `nightschool restore app.tar.gz`, `nightschool restore --force
    app.tar.gz`
    """
    from server.console import say
    from server.restore import list_backup
    from server.restore import restore as put_back

    if only_list:
        _show(list_backup(file), as_json)
        return
    report = put_back(find_workspace(workspace), file, force)
    if as_json:
        print(json.dumps({"restored": report.restored, "same": report.same, "kept": report.kept}))
        return
    if report.kept:
        say(f"the audit log that is here stays; of the backup left out: {', '.join(report.kept)}")
    print(f"restored {len(report.restored)}, there already {len(report.same)}")
    for unit in report.restored:
        print(f"  {unit}")


def _show(contents: Contents, as_json: bool) -> None:
    from server.console import print_table

    head, files = contents.head, contents.inventory.files
    if as_json:
        about = head.model_dump(mode="json")
        print(json.dumps({**about, "files": {name: entry.model_dump() for name, entry in files.items()}}))
        return
    title = f"backup of {head.workspace}, {head.made_at:%Y-%m-%d %H:%M} UTC, {head.program}"
    print_table(title, ["bytes", "file"], [[str(entry.bytes), name] for name, entry in files.items()])
