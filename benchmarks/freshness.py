"""Random operations on a tree while it is indexed; nothing that a search returns may be stale at any time.

usage: ./run bench freshness [--operations 100000] [--seed 0] [--folder DIR]

Operations: save, atomic save, append, insert on top, rename, delete, checkout of many files, a lost event, an overflow,
a reopened index. One to two hundred of them, then questions: before their events have come, or after. The judge of each
passage is the file on disk; the judge of the whole index, every so often, a full rebuild. One process, no watcher
thread: events are handed over as the watcher would, some of them lost on purpose.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from indexer.files import SourceFile, source_files
from indexer.index import Index, open_index
from indexer.lines import cut_lines
from indexer.settings import IndexerSettings
from indexer.tokens import tokens
from indexer.update import describe
from indexer.workspace import Workspace

WORDS = ("route parse header café 🎓 render token cache load store merge split token view model query bind").split()
ENDS = ("\n", "\n", "\n", "\r\n", "\r")
FOLDERS = ("", "src/", "src/deep/", "docs/", "with space/")
SUFFIXES = (".py", ".js", ".md", ".go", ".txt")
OPERATIONS = {
    "save": 60.0, "insert": 20.0, "append": 20.0, "rename": 10.0, "delete": 8.0, "checkout": 0.3, "lose": 6.0,
    "overflow": 1.0, "reopen": 0.05,
}  # fmt: skip


class Words:
    """An embedder of words hashed into 32 dimensions: what is tested here is freshness, not meaning."""

    name = "words-32"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.full((len(texts), 32), 0.01, np.float32)
        for row, text in enumerate(texts):
            for token in tokens(text):
                vectors[row, crc32(token.encode()) % 32] += 1
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


@dataclass
class Machine:
    """A tree, its index, and a dice. `stale`: passages that were not what the disk says; it must stay empty."""

    root: Path
    seed: int = 0
    stale: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    passages: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.workspace = Workspace(self.root.resolve())
        self.stack = ExitStack()
        self.late: list[str] = []
        self.snapshots: list[dict[str, bytes]] = []
        self.index = self._open()

    def _open(self) -> Index:
        return self.stack.enter_context(open_index(self.workspace, IndexerSettings(), Words()))

    def close(self) -> None:
        self.stack.close()

    # Operations on the tree; each returns the paths that a watcher would name, or None for "look at everything"

    def round(self, most: int) -> int:
        """Up to `most` operations, what the index makes of their events at once, and questions; how many they were.

        A watcher gathers events the same way. Now and then they have not come yet when the questions are asked.
        """
        count = min(most, self.dice.choice((1, 1, 2, 5, 20, 60, 200)))
        named: list[str] | None = []
        for _ in range(count):
            paths = self.operate()
            named = None if named is None or paths is None else [*named, *paths]
        if self.dice.random() < 0.1:
            self.late += named if named is not None else [""]
        else:
            late, self.late = self.late, []
            self.index._reading.read(None if named is None or "" in late else sorted({*named, *late}) or [".none"])
        if self.dice.random() < 0.1:
            self.index._storing.store_all()
        for _ in range(1 + count // 8):
            self.search()
        return count

    def operate(self) -> list[str] | None:
        """One operation of the dice's choice."""
        name = self.dice.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
        self.done[name] += 1
        made: list[str] | None = getattr(self, f"_{name}")()
        return made

    def files(self) -> list[str]:
        root = f"{self.root}/"
        folders = ((folder, names) for folder, _, names in os.walk(self.root) if ".nightschool" not in folder)
        return sorted(f"{folder}/{name}".removeprefix(root) for folder, names in folders for name in names)

    def _path(self) -> str:
        return f"{self.dice.choice(FOLDERS)}f{self.dice.randrange(12)}{self.dice.choice(SUFFIXES)}"

    def _text(self) -> str:
        end = self.dice.choice(ENDS)
        lines = []
        for _ in range(self.dice.randrange(0, 12)):
            one, two = self.dice.choices(WORDS, k=2)
            body = [f"    {self.dice.choice(WORDS)} = {self.dice.randrange(9)}" for _ in range(self.dice.randrange(9))]
            lines += [
                f"def {one}_{self.dice.randrange(30)}({two}):",
                *body,
                self.dice.choice(("", "", "# h\x0c", "\u2028")),
            ]
        return end.join(lines) + self.dice.choice(("", end))

    def _put(self, path: str, content: bytes) -> list[str]:
        file = self.root / path
        if file.is_dir() or any(above.is_file() for above in file.parents if above != self.root):
            return []
        file.parent.mkdir(parents=True, exist_ok=True)
        if self.dice.random() < 0.5:
            file.write_bytes(content)
        else:
            staging = file.with_name(f".{file.name}.swp")
            staging.write_bytes(content)
            staging.replace(file)
        return [path]

    def _save(self) -> list[str]:
        return self._put(self._path(), self._text().encode())

    def _edit(self, before: bool) -> list[str]:
        if not (files := self.files()):
            return []
        path = self.dice.choice(files)
        old, new = (self.root / path).read_bytes(), self._text().encode()[:200] + b"\n"
        return self._put(path, (new + old if before else old + new)[:8_000].decode("utf-8", "ignore").encode())

    def _insert(self) -> list[str]:
        return self._edit(before=True)

    def _append(self) -> list[str]:
        return self._edit(before=False)

    def _rename(self) -> list[str]:
        if not (files := self.files()):
            return []
        old, new = self.dice.choice(files), self._path()
        if (self.root / new).exists():
            new = old.swapcase() if self.dice.random() < 0.3 else new
        target = self.root / new
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.root / old).rename(target)
        return [old, new]

    def _delete(self) -> list[str]:
        if not (files := self.files()):
            return []
        path = self.dice.choice(files)
        (self.root / path).unlink()
        return [path]

    def _checkout(self) -> list[str] | None:
        """Everything becomes what it was once; too many events to name."""
        self.snapshots = [*self.snapshots[-3:], {path: (self.root / path).read_bytes() for path in self.files()}]
        for path in self.files():
            (self.root / path).unlink()
        for path, content in self.dice.choice(self.snapshots).items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_bytes(content)
        return None

    def _lose(self) -> list[str]:
        """A save whose event never comes: what is returned must be right all the same."""
        self._save()
        return []

    def _overflow(self) -> None:
        """The watcher says that events were lost: everything is looked at."""

    def _reopen(self) -> None:
        self.stack.close()
        self.index = self._open()

    # Judges

    def search(self) -> None:
        """Each passage must be what its file says at those lines, now."""
        by_words, name = " ".join(self.dice.choices(WORDS, k=2)), f"{self.dice.choice(WORDS)}_{self.dice.randrange(30)}"
        query = by_words if self.dice.random() < 0.7 else name
        for passage in self.index.search(query, 5):
            self.passages += 1
            file = self.root / passage.path
            text = file.read_bytes().decode() if file.is_file() else ""
            if cut_lines(text, passage.start_line, passage.end_line) != passage.text:
                self.stale.append(f"{query!r}: {passage.path}:{passage.start_line}")

    def judge_all(self) -> None:
        """After everything has settled the index must be what a full rebuild would be."""
        self.index.update()
        judge(self.index, self.workspace)


def judge(index: Index, workspace: Workspace) -> None:
    """Raises `AssertionError` where an index that is up to date is not what a full rebuild would be."""
    parts = index._parts
    chunks = {chunk.id: chunk for chunk in parts.catalogue.every_chunk()}
    sources = [one for one in source_files(workspace, IndexerSettings()) if isinstance(one, SourceFile)]
    wanted = {chunk.id: chunk for source in sources for chunk in describe(source).chunks}
    assert chunks == wanted, "the catalogue is not what a rebuild makes"
    assert parts.lexical.count() == len(wanted), "the lexical index is not what a rebuild makes"
    if parts.store is not None:
        rows = {id: (c.text, c.path, c.start_line, c.end_line) for id, c in wanted.items()}
        assert parts.store.rows() == rows, "the store is not what a rebuild makes"


def run(root: Path, operations: int, seed: int, judge_every: int = 1_000) -> Machine:
    """That many operations; raises `AssertionError` when a judge finds a fault."""
    machine = Machine(root, seed)
    started = time.monotonic()
    try:
        number, judged = 0, 0
        while number < operations:
            number += machine.round(operations - number)
            assert not machine.stale, machine.stale
            if number - judged >= judge_every or number == operations:
                judged = number
                machine.judge_all()
                rate = number / (time.monotonic() - started)
                said = f"{number} operations, {machine.passages} passages, {len(machine.stale)} stale, {rate:.0f}/s"
                print(said, file=sys.stderr)
    finally:
        machine.close()
    return machine


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--operations", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--folder", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = given.folder or Path(folder)
        machine = run(root, given.operations, given.seed)
    print(json.dumps({"operations": dict(machine.done), "passages": machine.passages, "stale": len(machine.stale)}))


if __name__ == "__main__":
    main()
