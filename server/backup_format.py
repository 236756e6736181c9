"""What a backup is: which files of a workspace belong in one, and the two records around them.

A gzipped tar: `nightschool-backup.json` first (what it is), the files as they lie in the workspace, `files.json` last
(what each must be). It holds what cannot be made again; never the token, the index, merged weights or a run's state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from indexer.quarantine import QUARANTINE_FILE
from indexer.workspace import SETTINGS_FILE, STATE_FOLDER
from server.adapter import POINTER
from server.audit import AUDIT_FILE, FILES_BEFORE
from server.feedback import FEEDBACK_FILE
from server.team import TEAM_FILE

FORMAT = 2  # 2: a fleet's repositories, the audit log
HEAD = "nightschool-backup.json"
FILES = "files.json"
MOST_RECORD_BYTES = 64_000_000  # of `files.json`: a hundred thousand generated answers take 15 MB

FLEET = f"{STATE_FOLDER}/fleet"
TEAM = f"{STATE_FOLDER}/{TEAM_FILE}"
AUDIT = f"{STATE_FOLDER}/logs/{AUDIT_FILE}"
AUDIT_FILES = (AUDIT, *(f"{AUDIT}.{number}" for number in range(1, FILES_BEFORE + 1)))
# Of the workspace as a whole. Read whole; each is replaced in one step by whoever writes it.
SINGLE_FILES = (SETTINGS_FILE, TEAM)
# `last_failed.json`, `2026-11-24-0230.json`: what became of nights. Not `state.json`, which belongs to a run.
NIGHT_RECORD = re.compile(r"(2[0-9-]+[A-Za-z0-9._-]*|last_[a-z]+)\.json")
GENERATED_FILE = re.compile(r"\w[\w.-]*")
REPOSITORY_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}-[0-9a-f]{8}")  # as `RepositorySettings.id` makes them
_PLAIN = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}"
_STATE = rf"{re.escape(STATE_FOLDER)}(?:/fleet/{REPOSITORY_ID.pattern})?"
_IN_ADAPTER = re.compile(rf"{_STATE}/adapters/[a-z0-9][a-z0-9._-]{{0,63}}/{_PLAIN}")
_IN_STATE = re.compile(
    rf"{_STATE}/(?:adapters/{re.escape(POINTER)}|nights/{NIGHT_RECORD.pattern}|generated/{_PLAIN}"
    rf"|{re.escape(QUARANTINE_FILE)}|{re.escape(FEEDBACK_FILE)})"
)


class BackupError(Exception):
    """A backup cannot be made, read or restored, and nothing was changed; the message says why."""


class Head(BaseModel):
    """What an archive says of itself. A later format may say more: `format` alone decides whether we read on."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    format: int
    made_at: datetime
    workspace: str
    program: str


class Entry(BaseModel):
    """What a file of the archive must be."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str
    bytes: int


class Inventory(BaseModel):
    """The last record: every file by its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    files: Mapping[str, Entry]

    def adapters(self, state: str = STATE_FOLDER) -> list[str]:
        """The versions of the adapters that are in it, of the workspace or of the repository kept in `state`."""
        return sorted(
            {
                name.split("/")[-2]
                for name in self.files
                if is_in_adapter(name) and name.startswith(f"{state}/adapters/")
            }
        )

    def states(self) -> list[str]:
        """The folders that keep a state: the workspace's own, and that of every repository of its fleet."""
        in_fleet = {"/".join(name.split("/")[:3]) for name in self.files if name.startswith(f"{FLEET}/")}
        return [STATE_FOLDER, *sorted(in_fleet)]


def belongs(name: str) -> bool:
    """Is `name` (relative to the workspace, "/") a file that a backup may hold?"""
    known = name in SINGLE_FILES or name in AUDIT_FILES
    return known or is_in_adapter(name) or _IN_STATE.fullmatch(name) is not None


def is_in_adapter(name: str) -> bool:
    return _IN_ADAPTER.fullmatch(name) is not None


def is_pointer(name: str) -> bool:
    """Does it say which adapter is in service?"""
    return name.endswith(f"/adapters/{POINTER}")


def is_feedback(name: str) -> bool:
    return name.endswith(f"/{FEEDBACK_FILE}")


def mode_of(name: str, archived: int) -> int:
    """The mode that `name` gets: what is private is its owner's alone, and nothing becomes executable."""
    is_private = name == TEAM or name in AUDIT_FILES or is_feedback(name)
    return 0o600 if is_private else 0o600 | archived & 0o044


def unit_of(name: str) -> str:
    """What is put in place in one step: an adapter's folder, or the file itself."""
    return name.rpartition("/")[0] if is_in_adapter(name) else name


def is_inside(file: Path, folder: Path) -> bool:
    return folder.resolve() in file.resolve().parents
