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
from server.feedback import FEEDBACK_FILE
from server.team import TEAM_FILE

FORMAT = 1
HEAD = "nightschool-backup.json"
FILES = "files.json"
MOST_RECORD_BYTES = 64_000_000  # of `files.json`: a hundred thousand generated answers take 15 MB

ADAPTERS = f"{STATE_FOLDER}/adapters"
NIGHTS = f"{STATE_FOLDER}/nights"
GENERATED = f"{STATE_FOLDER}/generated"
FEEDBACK = f"{STATE_FOLDER}/{FEEDBACK_FILE}"
POINTER_NAME = f"{ADAPTERS}/{POINTER}"
TEAM = f"{STATE_FOLDER}/{TEAM_FILE}"
# Read whole; each is replaced in one step by whoever writes it.
SINGLE_FILES = (SETTINGS_FILE, f"{STATE_FOLDER}/{QUARANTINE_FILE}", TEAM)
PRIVATE = frozenset({TEAM, FEEDBACK})
# `last_failed.json`, `2026-11-24-0230.json`: what became of nights. Not `state.json`, which belongs to a run.
NIGHT_RECORD = re.compile(r"(2[0-9-]+[A-Za-z0-9._-]*|last_[a-z]+)\.json")
_PLAIN = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}"
_IN_FOLDERS = re.compile(
    rf"{re.escape(ADAPTERS)}/[a-z0-9][a-z0-9._-]{{0,63}}/{_PLAIN}"
    rf"|{re.escape(NIGHTS)}/{NIGHT_RECORD.pattern}|{re.escape(GENERATED)}/{_PLAIN}"
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

    def adapters(self) -> list[str]:
        """The versions of the adapters that are in it."""
        return sorted({name.split("/")[2] for name in self.files if is_in_adapter(name)})


def belongs(name: str) -> bool:
    """Is `name` (relative to the workspace, "/") a file that a backup may hold?"""
    known = name in SINGLE_FILES or name in (FEEDBACK, POINTER_NAME)
    return known or _IN_FOLDERS.fullmatch(name) is not None


def is_in_adapter(name: str) -> bool:
    return name.startswith(f"{ADAPTERS}/") and name.count("/") == 3


def mode_of(name: str, archived: int) -> int:
    """The mode that `name` gets: what is private is its owner's alone, and nothing becomes executable."""
    return 0o600 if name in PRIVATE else 0o600 | archived & 0o044


def unit_of(name: str) -> str:
    """What is put in place in one step: an adapter's folder, or the file itself."""
    return name.rpartition("/")[0] if is_in_adapter(name) else name


def is_inside(file: Path, folder: Path) -> bool:
    return folder.resolve() in file.resolve().parents
