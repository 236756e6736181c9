"""[fleet]: the repositories that one workspace serves together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from indexer.settings import SectionSettings, bad_settings
from indexer.workspace import Workspace

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# Encrypted, or on this machine. Never `ext::` or `fd::`, which run a program; a host never begins with "-".
_GIT_URL = re.compile(r"(?:(?:https|ssh)://(?:[^/\s@]+@)?[A-Za-z0-9\[][^\s]*|file:///[^\s]+|[\w.-]+@\w[\w.-]*:[^\s:]+)")
_WITH_PASSWORD = re.compile(r"\w+://[^/@\s]*:[^/@\s]*@|https://[^/@\s]+@")


class RepositorySettings(BaseModel):
    """One repository of a fleet: `source` is a git URL, or a folder (relative to the fleet's)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    source: str
    group: str = ""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name: give 1 to 64 of a-z 0-9 . _ -, the first a letter or a digit")
        return name

    @field_validator("group")
    @classmethod
    def _is_a_group(cls, group: str) -> str:
        if group and not NAME.fullmatch(group):
            raise ValueError(f"{group!r} is no group: give 1 to 64 of a-z 0-9 . _ -, the first a letter or a digit")
        return group

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, source: str) -> str:
        if _WITH_PASSWORD.match(source):
            raise ValueError("a URL must hold no user and token: leave them to git (a credential helper, an ssh key)")
        if not is_url(source) and ("://" in source or "::" in source or source.startswith("-") or not source.strip()):
            raise ValueError(f"{source!r} is no source: give https://, ssh://, file:/// or git@host:path, or a folder")
        return source

    @cached_property
    def id(self) -> str:
        """Says which repository it is, whatever its name: that of its source, and a hash of it."""
        source = self.source.rstrip("/").removesuffix(".git")
        last = re.sub(r"[^a-z0-9._-]+", "-", re.split(r"[/:]", source)[-1].lower()).strip("-._")[:40]
        return f"{last or 'repository'}-{sha256(source.encode()).hexdigest()[:8]}"

    @property
    def is_cloned(self) -> bool:
        return is_url(self.source)

    def place(self, fleet: Workspace) -> Workspace:
        """Where its files are, and where ours about it are: in the fleet's folder, never in its own."""
        state = fleet_folder(fleet) / self.id
        if self.is_cloned:
            return Workspace((clones_folder(fleet) / self.id).resolve(), state)
        return Workspace((fleet.root / Path(self.source).expanduser()).resolve(), state)


class FleetSettings(SectionSettings):
    """[fleet]"""

    section: ClassVar[str] = "fleet"
    model_config = SettingsConfigDict(env_prefix="NIGHTSCHOOL_FLEET__", extra="forbid", frozen=True)

    repositories: tuple[RepositorySettings, ...] = Field(
        (),
        description="served together: tables of `name`, `source` (git URL or folder) and, if you like, `group`; "
        "`nightschool fleet add` writes them",
    )
    search_threads: int = Field(8, ge=1, le=64, description="repositories searched at once for one query")
    git_timeout_s: float = Field(900.0, gt=0, description="a clone or fetch that takes longer has failed; seconds")

    @cached_property
    def by_name(self) -> dict[str, RepositorySettings]:
        return {one.name: one for one in self.repositories}

    @classmethod
    def check(cls, repositories: Sequence[object]) -> None:
        """Raise `BadSettings` when these are no repositories of a fleet."""
        with bad_settings(cls.section):
            cls(repositories=repositories)

    @model_validator(mode="after")
    def _are_told_apart(self) -> Self:
        for what, values in (
            ("name", [one.name for one in self.repositories]),
            ("source", [one.source.rstrip("/").removesuffix(".git") for one in self.repositories]),
        ):
            if twice := [value for value, count in Counter(values).items() if count > 1]:
                raise ValueError(f"two repositories have the {what} {twice[0]!r}: give each its own")
        return self


def make_repository(name: str, source: str, group: str = "") -> RepositorySettings:
    """One repository. Raises `BadSettings`."""
    with bad_settings(FleetSettings.section):
        return RepositorySettings(name=name, source=source, group=group)


def is_url(source: str) -> bool:
    """Is this for git to clone, and no folder?"""
    return bool(_GIT_URL.fullmatch(source))


def fleet_folder(fleet: Workspace) -> Path:
    """What is kept about the repositories: their indexes, the embeddings and Chroma."""
    return fleet.state / "fleet"


def clones_folder(fleet: Workspace) -> Path:
    return fleet.state / "repositories"


def is_fleet(workspace: Workspace) -> bool:
    """Has this workspace repositories in [fleet]? Raises `BadSettings`."""
    return bool(FleetSettings.read(workspace).repositories)
