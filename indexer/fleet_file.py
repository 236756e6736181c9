"""[[fleet.repositories]] in `nightschool.toml`, added, renamed and removed as text: every other line stays as it is."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from indexer.fleet_settings import FleetSettings, RepositorySettings
from indexer.settings import BadSettings
from indexer.workspace import Workspace, write_atomically

_HEADER = re.compile(r"\s*\[\[\s*fleet\s*\.\s*repositories\s*\]\]\s*(?:#.*)?")
_ANY_HEADER = re.compile(r"\s*\[")


def add_repository(fleet: Workspace, repository: RepositorySettings) -> None:
    """Write `repository` at the end of the file. Raises `BadSettings`, and the file is as it was."""
    text = _read(fleet)
    values = {"name": repository.name, "source": repository.source, "group": repository.group}
    table = "".join(f"{key} = {_quoted(value)}\n" for key, value in values.items() if value)
    gap = "\n" if text.strip() else ""
    end = "" if not text or text.endswith("\n") else "\n"
    wanted = [*_tables(fleet, text), {key: value for key, value in values.items() if value}]
    _replace(fleet, text, f"{text}{end}{gap}[[fleet.repositories]]\n{table}", wanted)


def remove_repository(fleet: Workspace, name: str) -> RepositorySettings:
    """Take the table of `name` out; what it was. Raises `BadSettings`."""
    gone = find_repository(fleet, name)
    lines = _read(fleet).splitlines(keepends=True)
    start, end = _span(lines, name)
    kept = lines[:start] + lines[end:]
    if start and start < len(kept) and not kept[start - 1].strip() and not kept[start].strip():
        del kept[start]
    wanted = [table for table in _tables(fleet, "".join(lines)) if table.get("name") != name]
    _replace(fleet, "".join(lines), "".join(kept), wanted)
    return gone


def rename_repository(fleet: Workspace, old: str, new: str) -> None:
    """Give `old` the name `new`, on its line. Raises `BadSettings`."""
    find_repository(fleet, old)
    lines = _read(fleet).splitlines(keepends=True)
    start, end = _span(lines, old)
    edited = [
        re.sub(r"^(\s*name\s*=\s*)(\"[^\"]*\"|'[^']*')", lambda found: found[1] + _quoted(new), line)
        if start <= number < end
        else line
        for number, line in enumerate(lines)
    ]
    wanted = [{**table, "name": new} if table.get("name") == old else table for table in _tables(fleet, "".join(lines))]
    _replace(fleet, "".join(lines), "".join(edited), wanted)


def find_repository(fleet: Workspace, name: str) -> RepositorySettings:
    """The repository of that name. Raises `BadSettings`, which lists those that there are."""
    repositories = FleetSettings.read(fleet).repositories
    for repository in repositories:
        if repository.name == name:
            return repository
    names = ", ".join(one.name for one in repositories) or "none yet: nightschool fleet add NAME SOURCE"
    raise BadSettings(f"there is no repository {name} in the fleet; there are: {names}")


def _span(lines: Sequence[str], name: str) -> tuple[int, int]:
    """First line, and the one after the last, of the table of `name`; comments before the next table stay."""
    for start, line in enumerate(lines):
        if not _HEADER.fullmatch(line.rstrip("\r\n")):
            continue
        end = next((n for n in range(start + 1, len(lines)) if _ANY_HEADER.match(lines[n])), len(lines))
        while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
            end -= 1
        if _parse("".join(lines[start:end])).get("fleet", {}).get("repositories", [{}])[0].get("name") == name:
            return start, end
    raise BadSettings(f"{name} has no [[fleet.repositories]] of its own in nightschool.toml: edit it by hand")


def _replace(fleet: Workspace, before: str, after: str, wanted: Sequence[dict[str, Any]]) -> None:
    """Write `after`, once it is sure that it says what `before` says and of the repositories what is `wanted`."""
    was, now = _parse(before), _parse(after)
    was_fleet, now_fleet = was.pop("fleet", {}), now.pop("fleet", {})
    was_fleet.pop("repositories", None)
    repositories = now_fleet.pop("repositories", [])
    if (was, was_fleet, list(wanted)) != (now, now_fleet, repositories):
        raise BadSettings(f"{fleet.settings_file} is written in a way that cannot be edited here: edit it by hand")
    FleetSettings.check(repositories)
    write_atomically(fleet.settings_file, after, mode=_mode(fleet))


def _tables(fleet: Workspace, text: str) -> list[dict[str, Any]]:
    FleetSettings.read(fleet)
    return list(_parse(text).get("fleet", {}).get("repositories", []))


def _parse(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"nightschool.toml cannot be edited here ({error}): edit it by hand") from error


def _read(fleet: Workspace) -> str:
    try:
        return fleet.settings_file.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{fleet.settings_file} cannot be read: {error}") from error


def _mode(fleet: Workspace) -> int:
    return fleet.settings_file.stat().st_mode & 0o777 if fleet.settings_file.exists() else 0o644


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
