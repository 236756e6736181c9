"""`nightschool ui`: the web page in the browser. What is heavy is imported where it is needed."""

from __future__ import annotations

import asyncio
import json
import webbrowser
from html import escape
from typing import Annotated

import typer

from indexer.workspace import Workspace, find_workspace, write_atomically
from server.options import JsonOption, WorkspaceOption

DOOR_FILE = "open-page.html"


def open_page(
    workspace: WorkspaceOption = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print the address and open nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Open the web page: ask, compare, and the nights. Starts the backend if it is not running.

    The address that is printed holds the token: whoever has it can ask.

    Examples: `nightschool ui`, `nightschool ui --print`
    """
    from server.console import say

    place = find_workspace(workspace)
    address = asyncio.run(_address(place))
    print(json.dumps({"address": address}) if as_json else address)
    if not (only_print or as_json or _opened(place, address)):
        say("no browser could be opened: open the address yourself")


async def _address(workspace: Workspace) -> str:
    from server.client import page_address, start_backend
    from server.console import say

    async with await start_backend(workspace, say) as backend:
        return page_address(workspace, backend.url)


def _opened(workspace: Workspace, address: str) -> bool:
    """Open the address through a file that only its owner can read: everybody can read a browser's arguments."""
    door = workspace.state / DOOR_FILE
    refresh = f'<meta http-equiv="refresh" content="0; url={escape(address)}">'
    write_atomically(door, f'<!doctype html><meta charset="utf-8">{refresh}<title>nightschool</title>\n', mode=0o600)
    return webbrowser.open(door.as_uri())
