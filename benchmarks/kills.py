"""kill -9 while indexing, round after round: the next start repairs alone, and nothing that was acknowledged is lost.

usage: ./run bench kills [--rounds 50] [--seed 0]

Each round writes some files, starts a process that indexes them and kills it at a random moment. Then: what the process
had acknowledged (a count of files that it printed) is in the catalogue; no text is embedded twice but those of the one
batch that the kill cut off; and, every few rounds and at the end, the index is what a full rebuild makes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from freshness import Words, judge
from numpy.typing import NDArray

from indexer.index import Progress, open_index
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace

FILES = 120
JUDGE_EVERY = 5


class LoggedWords(Words):
    """An embedder that notes in `file` what it embedded, a batch a line, before it gives it back."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = super().embed(texts)
        if len(texts) > 1 or "\n" in texts[0]:  # not a query
            with self.file.open("a") as log:
                log.write(" ".join(sha256(text.encode()).hexdigest()[:16] for text in texts) + "\n")
        return vectors


def index_until_killed(root: Path, log: Path) -> None:
    """What the killed process does; says how many files are safe after each step."""
    with open_index(Workspace(root), IndexerSettings(), LoggedWords(log)) as index:

        def tell(_: Progress) -> None:
            print(index._parts.catalogue.count()[0], flush=True)

        print("open", flush=True)
        index.update(tell)
        print("done", flush=True)


@dataclass
class Rounds:
    """A tree under attack. `moments`: how often a kill hit while opening, at work, and after the end."""

    root: Path
    log: Path
    dice: random.Random
    moments: Counter[str] = field(default_factory=Counter)
    batches: list[set[str]] = field(default_factory=list)

    def write_files(self, count: int) -> None:
        for number in self.dice.sample(range(FILES), count):
            body = "".join(f"    value_{i} = {self.dice.randrange(10**9)}\n" for i in range(40))
            file = self.root / f"src/f{number}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"def function_{number}():\n{body}\n\ndef other_{number}():\n{body}")

    def strike(self) -> None:
        """One process, killed; and what it had acknowledged is there."""
        self.write_files(30)
        command = [sys.executable, "-W", "ignore", __file__, "--child", str(self.root), str(self.log)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        opened = process.stdout.readline()
        assert opened == "open\n", process.communicate()
        time.sleep(self.dice.uniform(0.0, 2.5))
        process.kill()
        said, _ = process.communicate()
        lines = said.split("\n")[:-1]
        self.moments["after the end" if "done" in lines else "at work" if lines else "before the first word"] += 1
        acknowledged = max((int(line) for line in lines if line.isdigit()), default=0)
        self._forget_cut_off("done" in lines)
        with open_index(Workspace(self.root), IndexerSettings(), LoggedWords(self.log)) as index:
            assert index._parts.catalogue.count()[0] >= acknowledged, "an acknowledged file is lost"

    def _forget_cut_off(self, whole: bool) -> None:
        """The last batch of a killed process may come again: it was embedded and never kept."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        new = [set(line.split()) for line in lines[len(self.batches) :]]
        self.batches += new if whole or not new else [*new[:-1], set()]

    def settle(self) -> None:
        """The next start does the rest, and the index is what a rebuild makes."""
        with open_index(Workspace(self.root), IndexerSettings(), LoggedWords(self.log)) as index:
            index.update()
            judge(index, Workspace(self.root))
        self._forget_cut_off(whole=True)
        counts = Counter(text for batch in self.batches for text in batch)
        assert not [text for text, count in counts.items() if count > 1], "what was kept is embedded again"


def run(root: Path, rounds: int, seed: int) -> Rounds:
    """That many kills; raises `AssertionError` when a judge finds a fault."""
    (root / "tree").mkdir()
    attack = Rounds((root / "tree").resolve(), root / "embedded.log", random.Random(seed))
    attack.write_files(FILES)
    for number in range(1, rounds + 1):
        attack.strike()
        if number % JUDGE_EVERY == 0 or number == rounds:
            attack.settle()
            print(f"{number} kills, {sum(map(len, attack.batches))} texts embedded", file=sys.stderr)
    return attack


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        index_until_killed(*given.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        attack = run(Path(folder), given.rounds, given.seed)
    found = {"kills": dict(attack.moments), "texts embedded": sum(map(len, attack.batches)), "lost": 0, "twice": 0}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
