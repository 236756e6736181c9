"""The team: who may ask beside the owner, with the hash of their token and what they may read.

`.nightschool/team.json`, readable by its owner only. Tokens are 256 random bits, so one SHA-256 hides them: there is
nothing to guess, and a slow hash would only cost every request.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from indexer.workspace import Workspace, write_atomically

TEAM_FILE = "team.json"
OWNER_NAME = "owner"
# An address of mail too, which is what a proxy that signs people on often sends.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"
_BY_OTHERS = 0o077


class TeamError(Exception):
    """The team cannot be read or changed so; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What is given or taken: repositories and groups by name, or `everything` there is and will be."""

    repositories: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    everything: bool = False

    def __bool__(self) -> bool:
        return bool(self.repositories or self.groups or self.everything)


@dataclass(frozen=True, slots=True)
class Places:
    """What there is to be read: every repository's name, and by the name of each group those in it."""

    repositories: frozenset[str]
    groups: Mapping[str, frozenset[str]]


class Member(BaseModel):
    """One user. `token_sha256`: of the token's bytes, in hex. `per_minute` 0: as many requests as [server] says."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=NAME_PATTERN)
    token_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    everything: bool = False
    repositories: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    per_minute: int = Field(0, ge=0)
    added_at: str = ""

    @field_validator("name")
    @classmethod
    def is_not_the_owner(cls, name: str) -> str:
        if name == OWNER_NAME:
            raise ValueError(f"{OWNER_NAME} is who has the workspace's own token: give another name")
        return name

    def may_read(self, groups: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
        """The repositories of this user, those of their `groups` among them; None: all."""
        if self.everything:
            return None
        return frozenset(self.repositories).union(*(groups.get(name, frozenset()) for name in self.groups))


class Team(BaseModel):
    """Everybody, in the order in which they were added."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    members: tuple[Member, ...] = ()

    @field_validator("members")
    @classmethod
    def has_each_name_once(cls, members: tuple[Member, ...]) -> tuple[Member, ...]:
        if len({member.name for member in members}) < len(members):
            raise ValueError("a name stands there twice")
        return members

    def find(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)


def digest(token: bytes) -> str:
    """What is kept of a token."""
    return sha256(token).hexdigest()


def team_file(workspace: Workspace) -> Path:
    return workspace.state / TEAM_FILE


def read_team(workspace: Workspace) -> Team:
    """The team as it stands on disk; empty without a file. Raises `TeamError`, also where others can read the file."""
    file = team_file(workspace)
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode & 0o777
            text = opened.read()
    except FileNotFoundError:
        return Team()
    except OSError as error:
        raise TeamError(f"{file} cannot be read: {error.strerror}") from error
    if mode & _BY_OTHERS:
        raise TeamError(f"{file} can be read by others (mode {mode:o}): chmod 600 {file}")
    try:
        return Team.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise TeamError(f"{file}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from error


def add_member(workspace: Workspace, name: str, rights: Rights, per_minute: int = 0) -> str:
    """Make a user; their token, which is kept nowhere. Raises `TeamError`."""
    token = secrets.token_urlsafe(32)
    added_at = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        member = Member(
            name=name,
            token_sha256=digest(token.encode()),
            everything=rights.everything,
            repositories=tuple(sorted(rights.repositories)),
            groups=tuple(sorted(rights.groups)),
            per_minute=per_minute,
            added_at=added_at,
        )
    except ValidationError as error:
        raise TeamError(f"{name!r} cannot be a user's name: {error.errors()[0]['msg']}") from error
    with _changing(workspace) as team:
        if team.find(name) is not None:
            raise TeamError(f"{name} is in the team already: `nightschool team revoke {name}` first for a new token")
        _write(workspace, (*team.members, member))
    return token


def revoke(workspace: Workspace, name: str) -> None:
    """Take a user out: their token is worth nothing from now on. Raises `TeamError`."""
    with _changing(workspace) as team:
        _known(team, name)
        _write(workspace, tuple(member for member in team.members if member.name != name))


def grant(workspace: Workspace, name: str, rights: Rights) -> Member:
    """Let a user read more; the user as they stand then. Raises `TeamError`."""

    def more(member: Member) -> Member:
        repositories, groups = {*member.repositories, *rights.repositories}, {*member.groups, *rights.groups}
        return _with(member, repositories, groups, member.everything or rights.everything)

    return _change(workspace, name, more)


def deny(workspace: Workspace, name: str, rights: Rights, groups: Mapping[str, frozenset[str]]) -> Member:
    """Let a user read less; `everything` takes all that they have. The user as they stand then.

    Raises `TeamError` too where they could read on what is taken, through a group or because they may read everything.
    """

    def less(member: Member) -> Member:
        if rights.everything:
            return _with(member, set(), set(), False)
        if member.everything:
            raise TeamError(f"{name} may read everything: `team deny {name} --all`, then grant what they may read")
        kept = set(member.repositories) - rights.repositories, set(member.groups) - rights.groups
        left = _with(member, *kept, False)
        for group in left.groups:
            if still := rights.repositories & groups.get(group, frozenset()):
                raise TeamError(f"{name} reads {min(still)} through the group {group} too: deny --group {group}")
        return left

    return _change(workspace, name, less)


def _with(member: Member, repositories: set[str], groups: set[str], everything: bool) -> Member:
    changes = {"repositories": tuple(sorted(repositories)), "groups": tuple(sorted(groups)), "everything": everything}
    return member.model_copy(update=changes)


def _change(workspace: Workspace, name: str, change: Callable[[Member], Member]) -> Member:
    with _changing(workspace) as team:
        changed = change(_known(team, name))
        _write(workspace, tuple(changed if member.name == name else member for member in team.members))
    return changed


def _known(team: Team, name: str) -> Member:
    if (member := team.find(name)) is None:
        there = ", ".join(member.name for member in team.members) or "nobody"
        raise TeamError(f"{name} is not in the team; there is: {there}")
    return member


@contextmanager
def _changing(workspace: Workspace) -> Iterator[Team]:
    """The team, while no other process changes it: of two at once, neither must undo the other."""
    workspace.make_state_folder()
    descriptor = os.open(workspace.state / "team.lock", os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield read_team(workspace)


def _write(workspace: Workspace, members: tuple[Member, ...]) -> None:
    write_atomically(team_file(workspace), Team(members=members).model_dump_json(indent=2) + "\n", mode=0o600)
