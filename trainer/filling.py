"""Holes filled: functions that the arms write, proved by the repository's own tests.

A hole counts only where the tests see the function: they pass with the body that is there, and fail with one that does
nothing. It costs a run of the tests for each hole, and one for each body; what was run is kept, and not run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from indexer.languages import language_of
from indexer.places import is_core
from indexer.workspace import write_atomically
from trainer.comparison import Difference, difference
from trainer.holes import Hole, Origin, find_holes, written_body
from trainer.job import Note, Stage, TrainingEvent
from trainer.proof import SnapshotPassages
from trainer.sandbox import Checkout, Outcome, checked_out, keeps_from_network
from trainer.sides import mark
from trainer.sources.history import AddedLines, NoHistory
from trainer.sources.snapshot import Snapshot
from trainer.writing import Answer, Prompted

FILLED_TOKENS = 160  # of a body: 500 characters
_ENOUGH = 10  # holes; a guardrail over fewer says nothing
_CHOOSING_SHARE = 0.5  # of the time, for finding holes that the tests see
_RUN_SHARE = 0.1  # of the time: where one run of the tests takes longer, too little is left to compare
_SLOWER = 3.0  # than the tests as they are: then a body goes on for ever, or nearly

Tell = Callable[[TrainingEvent], None]


@dataclass(frozen=True, slots=True)
class OwnTests:
    """The tests to run: `command` at `commit` of the repository at `root`, `minutes` in all; no run is ended before
    `least_limit_s`. `kept` is the file of what was run already."""

    root: Path
    commit: str
    command: str
    minutes: float
    kept: Path
    least_limit_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Filling:
    """The holes that every arm fills, of `tried` functions; for each the prompt without passages and the one with them.
    `run_s` is how long the tests take as they are; `why` says why there are no holes, or fewer than were wanted."""

    holes: tuple[Hole, ...] = ()
    prompts: tuple[Prompted, ...] = ()
    tried: int = 0
    run_s: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Filled:
    """What came of it: for each arm, without passages and with them, whether the tests passed, hole by hole; the holes
    are the same ones for all."""

    passed: Mapping[str, Mapping[bool, tuple[bool, ...]]] = field(default_factory=dict)
    holes: tuple[Hole, ...] = ()
    said: str = ""

    def of(self, arm: str, retrieval: bool) -> tuple[int, int] | None:
        """How many of how many; None where nothing was filled."""
        found = self.passed.get(arm, {}).get(retrieval)
        return (sum(found), len(found)) if found else None

    def against(self, arm: str, other: str) -> Difference | None:
        """With retrieval; None for fewer holes than say anything."""
        if len(self.holes) < _ENOUGH:
            return None
        mine, its = self.passed[arm][True], self.passed[other][True]
        return difference([float(one) for one in mine], [float(one) for one in its])


class _OutOfTime(Exception):
    """The minutes for the tests are used."""


@dataclass(slots=True)
class _Bench:
    """Runs the tests on a checkout while there is time, and remembers how each run ended. `limit_s` is of one run."""

    checkout: Checkout
    tests: OwnTests
    limit_s: float
    left_s: float
    outcomes: dict[str, Outcome]

    def outcome(self, path: str, text: str) -> Outcome:
        """How the tests end when the file at `path` says `text`. Raises `_OutOfTime`."""
        key = sha256(f"{self.tests.commit}\0{self.tests.command}\0{path}\0{text}".encode()).hexdigest()[:24]
        if key not in self.outcomes:
            if self.left_s <= 0:
                raise _OutOfTime
            ran = self.checkout.run(self.tests.command, self.limit_s, (path, text))
            self.left_s -= ran.seconds
            self.outcomes[key] = ran.outcome
            write_atomically(self.tests.kept, json.dumps(self.outcomes))
        return self.outcomes[key]


def choose_holes(
    tests: OwnTests, candidates: Callable[[Checkout], Sequence[Hole]], most: int, snapshot: Snapshot, tell: Tell
) -> Filling:
    """The first `most` of the candidates that the tests see, with their prompts; passages are the snapshot's."""
    tell(Stage("running the repository's tests as they are"))
    if not keeps_from_network():
        tell(Note("nothing here keeps the repository's tests from the network"))
    try:
        with checked_out(tests.root, tests.commit) as checkout:
            longest_s = tests.minutes * 60 * _RUN_SHARE
            ran = checkout.run(tests.command, longest_s)
            if ran.outcome == "too long":
                return Filling(why=f"one run of {tests.command} takes longer than {longest_s:.0f} s")
            if ran.outcome == "failed":
                return Filling(why=f"{tests.command} fails on the repository as it is: {ran.last_line}")
            bench = _bench(checkout, tests, ran.seconds, _CHOOSING_SHARE)
            holes, tried, why = _seen_by_tests(bench, candidates(checkout), most, tell)
    except NoHistory as error:
        return Filling(why=str(error))
    return Filling(holes, tuple(_prompts(holes, snapshot)), tried, ran.seconds, why)


def run_fills(tests: OwnTests, filling: Filling, fills: Mapping[str, Sequence[Answer]], tell: Tell) -> Filled:
    """Run the tests on what each arm wrote. A hole for which the time did not last counts for none of them."""
    passed: dict[str, dict[bool, list[bool]]] = {arm: {False: [], True: []} for arm in fills}
    done: list[Hole] = []
    why = filling.why
    if filling.holes:
        with checked_out(tests.root, tests.commit) as checkout:
            bench = _bench(checkout, tests, filling.run_s, 1 - _CHOOSING_SHARE)
            try:
                for number, hole in enumerate(filling.holes):
                    tell(Stage(f"tests of filled hole {number + 1} of {len(filling.holes)}"))
                    pairs = {arm: answers[2 * number : 2 * number + 2] for arm, answers in fills.items()}
                    found = {arm: [_passes(bench, hole, fill) for fill in pair] for arm, pair in pairs.items()}
                    for arm, (without, with_passages) in found.items():
                        passed[arm][False].append(without)
                        passed[arm][True].append(with_passages)
                    done.append(hole)
            except _OutOfTime:
                why = f"the {tests.minutes:g} minutes were used after {len(done)} of {len(filling.holes)} holes"
    each = {arm: {flag: tuple(marks) for flag, marks in found.items()} for arm, found in passed.items()}
    return Filled(each if done else {}, tuple(done), _said(filling, done, why))


def candidates_in(
    checkout: Checkout, texts: Mapping[str, str], added: Sequence[AddedLines], held_out: Collection[str]
) -> list[Hole]:
    """Functions of the code in `texts`: those written after the snapshot first, then those of files held out, one of
    each file before a second one."""
    newer: dict[str, set[int]] = {}
    for lines in added:
        newer.setdefault(lines.path, set()).update(range(lines.start, lines.end + 1))
    ranked: list[tuple[int, int, float, Hole]] = []
    for path, text in texts.items():
        language = language_of(path, text[:100])
        if not is_core(path, language) or not _is_as_checked_out(checkout, path, text):
            continue
        found = [_with_origin(hole, newer.get(path, set()), held_out) for hole in find_holes(path, text, language)]
        found.sort(key=lambda hole: (_ORIGINS.index(hole.origin), mark(f"hole:{path}:{hole.start_line}")))
        for place, hole in enumerate(found):
            ranked.append((_ORIGINS.index(hole.origin), place, mark(f"hole:{path}"), hole))
    return [hole for *_, hole in sorted(ranked, key=lambda entry: (*entry[:3], entry[3].start_line))]


_ORIGINS: tuple[Origin, ...] = ("newer", "held-out", "learnt")


def _with_origin(hole: Hole, newer: set[int], held_out: Collection[str]) -> Hole:
    lines = range(hole.start_line, hole.end_line + 1)
    if 2 * sum(line in newer for line in lines) >= len(lines):
        return replace(hole, origin="newer")
    return replace(hole, origin="held-out" if hole.path in held_out else "learnt")


def _is_as_checked_out(checkout: Checkout, path: str, text: str) -> bool:
    """Not where secrets were masked: a prompt would show them, and without them the file is another."""
    try:
        return checkout.read(path) == text.encode()
    except OSError:
        return False


def _bench(checkout: Checkout, tests: OwnTests, run_s: float, share: float) -> _Bench:
    try:
        outcomes = json.loads(tests.kept.read_text("utf-8"))
    except (OSError, ValueError):
        outcomes = {}
    limit_s = max(tests.least_limit_s, _SLOWER * run_s)
    return _Bench(checkout, tests, limit_s, tests.minutes * 60 * share - run_s, outcomes)


def _seen_by_tests(
    bench: _Bench, candidates: Sequence[Hole], most: int, tell: Tell
) -> tuple[tuple[Hole, ...], int, str]:
    holes: list[Hole] = []
    for tried, hole in enumerate(candidates):
        if len(holes) == most:
            return tuple(holes), tried, ""
        tell(Stage(f"choosing holes: {len(holes)} of {most}, {tried} of {len(candidates)} functions tried"))
        try:
            if bench.outcome(hole.path, hole.failing()) != "passed":
                holes.append(hole)
        except _OutOfTime:
            return tuple(holes), tried, f"the time for choosing was used after {tried} functions"
    return tuple(holes), len(candidates), "" if candidates else "no function is short enough and says something"


def _passes(bench: _Bench, hole: Hole, fill: Answer) -> bool:
    body = written_body(hole, fill.text)
    if not body.strip():
        return False
    same = body.strip() == hole.body.strip()
    return same or bench.outcome(hole.path, hole.filled(body)) == "passed"


def _prompts(holes: Sequence[Hole], snapshot: Snapshot) -> Iterator[Prompted]:
    with TemporaryDirectory(prefix="nightschool-proof-") as folder:
        search = SnapshotPassages(snapshot, Path(folder))
        for hole in holes:
            # What is to be written must not be read, wherever it stands.
            longest = max((line.strip() for line in hole.body.split("\n")), key=len)
            passages = search.before(hole.path, hole.before[-700:], longest)
            for text in (hole.prompt(), hole.prompt(passages)):
                yield Prompted(text=text, max_tokens=FILLED_TOKENS)


def _said(filling: Filling, done: Sequence[Hole], why: str) -> str:
    """One line for the report."""
    if not filling.holes:
        return f"none: {why or 'the tests see none of the functions that were tried'} ({filling.tried} tried)"
    kinds = ", ".join(f"{count} {origin}" for origin in _ORIGINS if (count := sum(h.origin == origin for h in done)))
    few = f"; fewer than {_ENOUGH} decide nothing" if len(done) < _ENOUGH else ""
    return f"{len(done)} ({kinds}) of {filling.tried} functions tried{few}{'; ' + why if why else ''}"
