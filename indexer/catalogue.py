"""Our SQLite, the truth of the index: file -> content hash -> chunks, and what its projections still have to do."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from indexer.chunking import Chunk

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files(
    path TEXT PRIMARY KEY, sha256 TEXT NOT NULL, language TEXT NOT NULL, masked TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunks(
    id TEXT PRIMARY KEY, path TEXT NOT NULL, start_line INTEGER NOT NULL, end_line INTEGER NOT NULL,
    language TEXT NOT NULL, symbol TEXT NOT NULL, defines TEXT NOT NULL, copy INTEGER NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS chunks_by_path ON chunks(path);
CREATE TABLE IF NOT EXISTS definitions(
    name TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY(name, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS definitions_by_id ON definitions(id);
CREATE INDEX IF NOT EXISTS definitions_by_name ON definitions(lower(name));
CREATE TABLE IF NOT EXISTS outbox(
    seq INTEGER PRIMARY KEY AUTOINCREMENT, target INTEGER NOT NULL, id TEXT NOT NULL, UNIQUE(target, id));
CREATE INDEX IF NOT EXISTS outbox_by_target ON outbox(target, seq);
CREATE TABLE IF NOT EXISTS stored(id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = "id, path, start_line, end_line, language, symbol, defines, copy, text"
_MANY = 500  # SQLite takes at least 999 variables in a statement


class Target(IntEnum):
    """A projection of the catalogue; each has its own queue of chunk ids to bring up to date."""

    LEXICAL = 0
    STORE = 1


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file as it is now: its bytes' hash, what was masked in it (kind -> count), its chunks."""

    path: str
    sha256: str
    language: str
    masked: Mapping[str, int]
    chunks: Sequence[Chunk]


@dataclass(frozen=True, slots=True)
class Todo:
    """An id that a projection has to bring up to date; `chunk` is None when the chunk is gone."""

    seq: int
    id: str
    chunk: Chunk | None


class Catalogue:
    """Safe to use from several threads: one connection writes, one reads, each under its lock."""

    def __init__(self, file: Path) -> None:
        self._write = _connect(file)
        self._write.executescript(_SCHEMA)
        self._read = _connect(file)
        self._write_lock, self._read_lock = threading.RLock(), threading.Lock()

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._read.close()
            self._write.close()

    def check(self) -> bool:
        """Does SQLite find its pages in order?"""
        return bool(self._fetch("PRAGMA quick_check(1)") == [("ok",)])

    # What is there

    def hashes(self, only: Sequence[str] = ()) -> dict[str, str]:
        """Path -> hash of the bytes that are indexed, of every file; with `only`, of these files and folders."""
        if not only:
            return dict(self._fetch("SELECT path, sha256 FROM files"))
        found: dict[str, str] = {}
        for part in _parts(only):
            found.update(self._fetch(f"SELECT path, sha256 FROM files WHERE path IN ({_marks(part)})", part))
        for top in (one for one in only if one not in found):  # "0" is the character after "/"
            below = "SELECT path, sha256 FROM files WHERE path > ? AND path < ?"
            found.update(self._fetch(below, (f"{top}/", f"{top}0")))
        return found

    def file_hash(self, path: str) -> str | None:
        found = self._fetch("SELECT sha256 FROM files WHERE path = ?", (path,))
        return str(found[0][0]) if found else None

    def chunks(self, ids: Sequence[str]) -> dict[str, Chunk]:
        """Those of `ids` that are chunks of the tree as last read."""
        rows: list[tuple[Any, ...]] = []
        for part in _parts(ids):
            rows += self._fetch(f"SELECT {_COLUMNS} FROM chunks WHERE id IN ({_marks(part)})", part)
        return {str(row[0]): _to_chunk(row) for row in rows}

    def chunks_of(self, path: str) -> list[Chunk]:
        rows = self._fetch(f"SELECT {_COLUMNS} FROM chunks WHERE path = ? ORDER BY start_line", (path,))
        return [_to_chunk(row) for row in rows]

    def every_chunk(self) -> Iterator[Chunk]:
        """All chunks, in the order of their ids; for rebuilding, and for tests."""
        after = ""
        while rows := self._fetch(
            f"SELECT {_COLUMNS} FROM chunks WHERE id > ? ORDER BY id LIMIT ?",
            (after, 2_000),
        ):
            yield from map(_to_chunk, rows)
            after = str(rows[-1][0])

    def count(self) -> tuple[int, int]:
        """Files and chunks."""
        return self._number("SELECT count(*) FROM files"), self._number("SELECT count(*) FROM chunks")

    def masked(self) -> dict[str, int]:
        """Kind of secret -> how many were masked, over all files."""
        totals: dict[str, int] = {}
        for (masked,) in self._fetch("SELECT masked FROM files WHERE masked != '{}'"):
            for kind, number in json.loads(masked).items():
                totals[kind] = totals.get(kind, 0) + number
        return totals

    def has_symbol(self, name: str) -> bool:
        """Is `name`, or a dotted name that ends in it, defined anywhere?"""
        last = name.rsplit(".", 1)[-1]
        found = self._fetch("SELECT c.defines FROM definitions d JOIN chunks c USING(id) WHERE d.name = ?", (last,))
        return any(n == name or n.endswith(f".{name}") for (defines,) in found for n in json.loads(defines))

    def definers(self, last_names: Sequence[str], limit: int) -> list[str]:
        """Ids of the chunks that define one of these names (last component, lower case)."""
        part = list(last_names)[:_MANY]
        rows = self._fetch(
            f"SELECT DISTINCT id FROM definitions WHERE lower(name) IN ({_marks(part)}) LIMIT {limit}", part
        )
        return [str(row[0]) for row in rows]

    def paths_named(self, name: str, limit: int) -> list[str]:
        """Indexed paths that are `name` or end in `/name`, those nearest to the root first."""
        escaped = name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        rows = self._fetch(
            "SELECT path FROM files WHERE path = ? OR path LIKE ? ESCAPE '\\' ORDER BY length(path), path LIMIT ?",
            (name, f"%/{escaped}", limit),
        )
        return [str(row[0]) for row in rows]

    # What changes

    def put_files(self, changes: Iterable[FileChange], gone: Iterable[str] = ()) -> None:
        """Make these files be as `changes` say, and `gone` not be, in one transaction; queue what it means."""
        with self._writing() as write:
            for change in changes:
                self._put_file(write, change)
            for path in gone:
                self._drop_chunks(
                    write, [row[0] for row in write.execute("SELECT id FROM chunks WHERE path = ?", (path,))]
                )
                write.execute("DELETE FROM files WHERE path = ?", (path,))

    def _put_file(self, write: sqlite3.Connection, change: FileChange) -> None:
        rows = write.execute("SELECT id, start_line, end_line FROM chunks WHERE path = ?", (change.path,))
        there = {id: (start, end) for id, start, end in rows}
        now = {chunk.id: chunk for chunk in change.chunks}
        new = [chunk for id, chunk in now.items() if id not in there]
        moved = [c for id, c in now.items() if id in there and there[id] != (c.start_line, c.end_line)]
        self._drop_chunks(write, [id for id in there if id not in now])
        write.executemany(f"INSERT INTO chunks({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", map(_to_row, new))
        names = {(name.rsplit(".", 1)[-1], chunk.id) for chunk in new for name in chunk.defines}
        write.executemany("INSERT OR IGNORE INTO definitions VALUES (?, ?)", names)
        write.executemany(
            "UPDATE chunks SET start_line = ?, end_line = ? WHERE id = ?",
            [(c.start_line, c.end_line, c.id) for c in moved],
        )
        _queue(write, Target.LEXICAL, [chunk.id for chunk in new])
        _queue(write, Target.STORE, [chunk.id for chunk in (*new, *moved)])
        row = (change.path, change.sha256, change.language, json.dumps(dict(change.masked)))
        write.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", row)

    def _drop_chunks(self, write: sqlite3.Connection, ids: list[str]) -> None:
        write.executemany("DELETE FROM chunks WHERE id = ?", [(id,) for id in ids])
        write.executemany("DELETE FROM definitions WHERE id = ?", [(id,) for id in ids])
        for target in Target:
            _queue(write, target, ids)

    # What the projections still have to do

    def todo(self, target: Target, limit: int) -> list[Todo]:
        """The newest ids that `target` has not brought up to date: what was just edited comes before the backlog."""
        rows = self._fetch("SELECT seq, id FROM outbox WHERE target = ? ORDER BY seq DESC LIMIT ?", (target, limit))
        chunks = self.chunks([str(id) for _, id in rows])
        return [Todo(int(seq), str(id), chunks.get(str(id))) for seq, id in rows]

    def waiting(self, target: Target) -> int:
        return self._number("SELECT count(*) FROM outbox WHERE target = ?", (target,))

    def done(self, todo: Iterable[Todo]) -> None:
        """These are up to date; an id that was queued again meanwhile stays queued."""
        with self._writing() as write:
            write.executemany("DELETE FROM outbox WHERE seq = ?", [(one.seq,) for one in todo])

    def queue_all(self, target: Target) -> None:
        """Let `target` be built anew from all chunks."""
        with self._writing() as write:
            write.execute("DELETE FROM outbox WHERE target = ?", (target,))
            if target is Target.STORE:
                write.execute("DELETE FROM stored")
            write.execute("INSERT INTO outbox(target, id) SELECT ?, id FROM chunks", (target,))

    def stored(self, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that the store has."""
        found: set[str] = set()
        for part in _parts(ids):
            found.update(row[0] for row in self._fetch(f"SELECT id FROM stored WHERE id IN ({_marks(part)})", part))
        return found

    def note_stored(self, added: Iterable[str], removed: Iterable[str]) -> None:
        with self._writing() as write:
            write.executemany("INSERT OR IGNORE INTO stored VALUES (?)", [(id,) for id in added])
            write.executemany("DELETE FROM stored WHERE id = ?", [(id,) for id in removed])

    def count_stored(self) -> int:
        return self._number("SELECT count(*) FROM stored")

    def fact(self, name: str) -> str | None:
        found = self._fetch("SELECT value FROM facts WHERE name = ?", (name,))
        return str(found[0][0]) if found else None

    def set_fact(self, name: str, value: str) -> None:
        with self._writing() as write:
            write.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock, self._write:
            yield self._write

    def _fetch(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._read_lock:
            return self._read.execute(statement, values).fetchall()

    def _number(self, statement: str, values: Sequence[object] = ()) -> int:
        return int(str(self._fetch(statement, values)[0][0]))


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA cache_size = -16000")  # kB; the default of 2,000 reads a large index again and again
    connection.execute("PRAGMA synchronous = NORMAL")  # with WAL: a power cut loses the last commits, never the file
    return connection


def _queue(write: sqlite3.Connection, target: Target, ids: Iterable[str]) -> None:
    # REPLACE: a new seq, so that `done` for what was queued before does not take this one with it.
    write.executemany("INSERT OR REPLACE INTO outbox(target, id) VALUES (?, ?)", [(target, id) for id in ids])


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _MANY] for start in range(0, len(ids), _MANY))


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))


def _to_row(c: Chunk) -> tuple[Any, ...]:
    return c.id, c.path, c.start_line, c.end_line, c.language, c.symbol, json.dumps(c.defines), c.copy, c.text


def _to_chunk(row: tuple[Any, ...]) -> Chunk:
    id, path, start, end, language, symbol, defines, copy, text = row
    names = tuple(json.loads(defines)) if defines != "[]" else ()
    chunk = Chunk(path, start, end, language, symbol, names, text, copy)
    vars(chunk)["id"] = id  # known: making it anew is a SHA-256 of the text
    return chunk
