"""What was asked, answered, kept and edited, in SQLite: off unless `[server] feedback` is on, and never sent anywhere.

A contract: the trainer reads it. Secrets are replaced by placeholders before anything is written.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from indexer.secrets import mask_secrets
from indexer.workspace import Workspace

FEEDBACK_FILE = "feedback.sqlite"
# What is older goes: a night learns from the newest, and nothing grows without end.
MOST_EXCHANGES = 20_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS exchange (
  id TEXT PRIMARY KEY, asked_at TEXT NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL, path TEXT,
  "commit" TEXT NOT NULL, adapter TEXT, base_model TEXT NOT NULL, kept INTEGER, edited TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS asked_by (id TEXT PRIMARY KEY, name TEXT NOT NULL) STRICT;
"""
_FORGET_WHO = "DELETE FROM asked_by WHERE id NOT IN (SELECT id FROM exchange)"


class FeedbackError(Exception):
    """The feedback cannot be read or written; the message says why and what to do."""


class UnknownAnswer(FeedbackError):
    """No answer of that id was written down."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer. `asked_at`: ISO 8601, UTC. `path`: the file that was open, relative.

    `kept`: whether the user kept it; None: they did not say. `edited`: what they made of the answer.
    """

    id: str
    asked_at: str
    question: str
    answer: str
    path: str | None
    commit: str
    adapter: str | None
    base_model: str
    kept: bool | None = None
    edited: str | None = None


_COLUMNS = ", ".join(f'"{each.name}"' for each in fields(Exchange))


class Feedback:
    """The feedback of one workspace. Every method raises `FeedbackError`; safe to use from several threads."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @property
    def file(self) -> Path:
        return self._workspace.state / FEEDBACK_FILE

    def note_answer(self, exchange: Exchange, asked_by: str = "") -> None:
        """Write an exchange down, without its secrets, and who of the team asked ("": nobody in particular)."""
        clean = replace(
            exchange,
            question=mask_secrets(exchange.question).text,
            answer=mask_secrets(exchange.answer).text,
            edited=None if exchange.edited is None else mask_secrets(exchange.edited).text,
        )
        with self._open() as database:
            marks = ", ".join("?" * len(fields(Exchange)))
            database.execute(f"INSERT INTO exchange ({_COLUMNS}) VALUES ({marks})", tuple(asdict(clean).values()))
            database.execute("INSERT INTO asked_by VALUES (?, ?)", (exchange.id, asked_by))
            newest = "SELECT rowid FROM exchange ORDER BY rowid DESC LIMIT ?"
            if database.execute(f"DELETE FROM exchange WHERE rowid NOT IN ({newest})", (MOST_EXCHANGES,)).rowcount:
                database.execute(_FORGET_WHO)

    def note_verdict(self, answer_id: str, kept: bool | None, edited: str | None, asked_by: str | None = None) -> None:
        """What the user did with the answer; what is None stays as it was.

        With `asked_by` an answer to somebody else is as unknown as one that never was. Raises `UnknownAnswer`.
        """
        clean = None if edited is None else mask_secrets(edited).text
        with self._open() as database:
            change = (
                "UPDATE exchange SET kept = coalesce(?1, kept), edited = coalesce(?2, edited) WHERE id = ?3 "
                "AND (?4 IS NULL OR EXISTS (SELECT 1 FROM asked_by WHERE asked_by.id = ?3 AND name = ?4))"
            )
            if database.execute(change, (kept, clean, answer_id, asked_by)).rowcount == 0:
                raise UnknownAnswer(f"no answer {answer_id} was written down")

    def read(self) -> list[Exchange]:
        """Every exchange, oldest first; none when nothing was ever written."""
        if not self.file.exists():
            return []
        with self._open() as database:
            rows = database.execute(f"SELECT {_COLUMNS} FROM exchange ORDER BY rowid").fetchall()
        return [_exchange(row) for row in rows]

    def copy(self) -> bytes | None:
        """The database as a file, consistent whoever writes meanwhile; None when nothing was ever written."""
        if not self.file.exists():
            return None
        with self._open() as database, closing(sqlite3.connect(":memory:")) as copied:
            database.backup(copied)
            # A copy counts its changes of the schema anew: with the same count it is the same, byte for byte.
            (count,) = database.execute("PRAGMA schema_version").fetchone()
            copied.execute(f"PRAGMA schema_version = {count}")
            return copied.serialize()

    def erase(self) -> int:
        """Overwrite and forget every exchange; how many there were. A damaged file is removed."""
        if not self.file.exists():
            return 0
        try:
            with self._open() as database:
                erased = database.execute("DELETE FROM exchange").rowcount
                database.execute(_FORGET_WHO)
            with self._open() as database:
                database.execute("VACUUM")
        except FeedbackError as error:
            if not isinstance(error.__cause__, sqlite3.DatabaseError) or isinstance(
                error.__cause__, sqlite3.OperationalError
            ):
                raise  # somebody else holds it, or the disk does not let us
            self.file.unlink()
            return 0
        return erased

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._workspace.make_state_folder()
        try:
            # Made by us first, so that it is never readable for others, not even for a moment.
            os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(sqlite3.connect(self.file, timeout=10)) as database:
                database.execute("PRAGMA secure_delete = ON")
                database.executescript(_SCHEMA)
                database.commit()
                with database:
                    yield database
        except (sqlite3.Error, OSError) as error:
            raise FeedbackError(f"{self.file}: {error}; `nightschool feedback erase`, or move it away") from error


def _exchange(row: tuple[object, ...]) -> Exchange:
    named = dict(zip((each.name for each in fields(Exchange)), row, strict=True))
    kept = named["kept"]
    return Exchange(**{**named, "kept": None if kept is None else bool(kept)})  # type: ignore[arg-type]
