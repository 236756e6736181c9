"""What the doctor looks at where a team asks: the file's mode, and what each user may read."""

from __future__ import annotations

from collections.abc import Iterator

from indexer.settings import BadSettings
from indexer.workspace import Workspace
from server.audit import AUDIT_FILE
from server.doctor import Finding
from server.places import places_of
from server.team import Member, Places, TeamError, read_team, team_file


def look_at_team(workspace: Workspace) -> Iterator[Finding]:
    """The team's file, users without repositories, the audit log's mode; nothing where there is no team."""
    if not team_file(workspace).exists():
        return
    try:
        members, places = read_team(workspace).members, places_of(workspace)
    except (TeamError, BadSettings) as error:
        yield Finding("team", False, str(error), "until then nobody of the team is let in")
        return
    yield Finding("team", True, f"{len(members)} users")
    for member in members:
        if (finding := _rights(member, places)) is not None:
            yield finding
    yield from _audit_mode(workspace)


def _rights(member: Member, places: Places) -> Finding | None:
    """What is wrong with what a user may read; None when nothing is."""
    may, name = member.may_read(places.groups), f"team: {member.name}"
    gone = sorted({*member.repositories} - places.repositories) + [
        f"group {group}" for group in member.groups if group not in places.groups
    ]
    if may is not None and not may & places.repositories:
        return Finding(name, False, "may read no repository", f"nightschool team grant {member.name}, or revoke")
    if gone:
        said = f"may read what is not here: {', '.join(gone)}"
        return Finding(
            name, False, said, f"nightschool team deny {member.name}, so that a new one of that name is not theirs"
        )
    return None


def _audit_mode(workspace: Workspace) -> Iterator[Finding]:
    for file in sorted(workspace.logs.glob(f"{AUDIT_FILE}*")):
        if (mode := file.stat().st_mode & 0o777) != 0o600:
            yield Finding("audit log", False, f"mode {mode:o}", f"chmod 600 {file}")
