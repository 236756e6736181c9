"""Nights of many repositories, one after another within a budget of hours: the most changed first.

Each is the ordinary night, as a process of its own: one that fails or is ended does not touch the others. What was done
is on disk after each, so that a queue that was killed goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from indexer.workspace import Workspace, write_atomically
from trainer.only_one import only_one

Became = Literal["promoted", "refused", "skipped", "failed", "cut short", "not begun"]
STATE_FILE = "fleet_night.json"
# A queue that was killed goes on for so long; after that its order says nothing any more.
GOES_ON_WITHIN = timedelta(hours=20)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A repository whose night is due. `lines`: added since its last night, all of them before its first; `minutes`:
    what a night of it is expected to take; `fault`: why it can have none, "" when it can."""

    name: str
    lines: int
    minutes: float
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one repository. `minutes` is what it took."""

    name: str
    outcome: Became
    reason: str
    lines: int
    minutes: float


@dataclass(frozen=True, slots=True)
class Ended:
    """How a night's process ended."""

    outcome: Became
    reason: str


@dataclass(frozen=True, slots=True)
class FleetNight:
    """A whole queue: its budget, and what became of each repository so far. `running` is "" between two nights."""

    began_at: str
    hours: float
    outcomes: tuple[Outcome, ...] = ()
    running: str = ""
    finished: bool = False

    @property
    def minutes_left(self) -> float:
        return self.hours * 60 - sum(one.minutes for one in self.outcomes)


Night = Callable[[str, float], Ended]


@dataclass
class Queue:
    """What runs a queue: `night(name, minutes)` runs one and ends it after so many; `tell` hears of each."""

    fleet: Workspace
    night: Night
    tell: Callable[[str], None]
    clock: Callable[[], float] = field(default=time.monotonic)


def order(waiting: Sequence[Waiting], min_lines: int = 1) -> tuple[list[Waiting], list[Waiting]]:
    """Those that get a night, the most changed first, and those that do not: at fault, or too little changed."""
    due = [one for one in waiting if not one.fault and one.lines >= min_lines]
    rest = [one for one in waiting if one.fault or one.lines < min_lines]
    return sorted(due, key=lambda one: (-one.lines, one.name)), sorted(rest, key=lambda one: one.name)


def next_that_fits(due: Sequence[Waiting], minutes_left: float) -> Waiting | None:
    """The first whose night is expected to end in time; a large one at the head does not hold up the smaller ones."""
    return next((one for one in due if one.minutes <= minutes_left), None)


def plan(waiting: Sequence[Waiting], hours: float, min_lines: int = 1) -> list[Outcome]:
    """What a queue would do if each night took what is expected: `promoted` stands for a night, whatever it decides."""
    due, rest = order(waiting, min_lines)
    outcomes, left = [_left_out(one) for one in rest], hours * 60
    planned: list[Outcome] = []
    while (one := next_that_fits(due, left)) is not None:
        due.remove(one)
        left -= one.minutes
        planned.append(Outcome(one.name, "promoted", "", one.lines, one.minutes))
    return [*planned, *(_not_begun(one, left) for one in due), *outcomes]


def run_queue(queue: Queue, waiting: Sequence[Waiting], hours: float, min_lines: int = 1) -> FleetNight:
    """Nights until the hours are used or nobody waits. Raises `NightBusy` when another queue of this fleet runs.

    A queue that was killed goes on with the hours that it had left; the night that it was in is begun again, and goes
    on from its own last stage.
    """
    with only_one(queue.fleet):
        state = _begin(queue.fleet, hours)
        known = {one.name for one in state.outcomes}
        due, rest = order([one for one in waiting if one.name not in known], min_lines)
        state = _note(queue.fleet, state, [_left_out(one) for one in rest])
        while (one := next_that_fits(due, state.minutes_left)) is not None:
            due.remove(one)
            state = _one_night(queue, state, one)
        return _finish(queue.fleet, state, [_not_begun(one, state.minutes_left) for one in due])


def _one_night(queue: Queue, state: FleetNight, one: Waiting) -> FleetNight:
    queue.tell(f"{one.name}: {one.lines} lines, {state.minutes_left:.0f} minutes left")
    _save(queue.fleet, replace(state, running=one.name))
    began = queue.clock()
    ended = queue.night(one.name, state.minutes_left)
    minutes = (queue.clock() - began) / 60
    queue.tell(f"{one.name}: {ended.outcome} after {minutes:.1f} minutes. {ended.reason}".rstrip())
    return _note(queue.fleet, state, [Outcome(one.name, ended.outcome, ended.reason, one.lines, round(minutes, 2))])


def _left_out(one: Waiting) -> Outcome:
    if one.fault:
        return Outcome(one.name, "failed", one.fault, one.lines, 0.0)
    return Outcome(one.name, "skipped", f"{one.lines} lines were added since its last night", one.lines, 0.0)


def _not_begun(one: Waiting, minutes_left: float) -> Outcome:
    reason = f"it takes about {one.minutes:.0f} minutes and {max(0.0, minutes_left):.0f} were left"
    return Outcome(one.name, "not begun", reason, one.lines, 0.0)


def load_queue(fleet: Workspace) -> FleetNight | None:
    """The queue that was begun last; None without one."""
    try:
        read = json.loads((fleet.state / "nights" / STATE_FILE).read_text("utf-8"))
        return FleetNight(**{**read, "outcomes": tuple(Outcome(**one) for one in read["outcomes"])})
    except (OSError, ValueError, TypeError, KeyError):  # none, or another version's
        return None


def _begin(fleet: Workspace, hours: float) -> FleetNight:
    now = datetime.now(UTC)
    last = load_queue(fleet)
    if last is not None and not last.finished and now - datetime.fromisoformat(last.began_at) < GOES_ON_WITHIN:
        return replace(last, hours=hours, running="")
    return FleetNight(now.isoformat(timespec="seconds"), hours)


def _note(fleet: Workspace, state: FleetNight, outcomes: Sequence[Outcome]) -> FleetNight:
    state = replace(state, outcomes=(*state.outcomes, *outcomes), running="")
    _save(fleet, state)
    return state


def _finish(fleet: Workspace, state: FleetNight, outcomes: Sequence[Outcome]) -> FleetNight:
    state = replace(state, outcomes=(*state.outcomes, *outcomes), finished=True)
    _save(fleet, state)
    return state


def _save(fleet: Workspace, state: FleetNight) -> None:
    folder = fleet.make_state_folder() / "nights"
    folder.mkdir(exist_ok=True)
    write_atomically(folder / STATE_FILE, json.dumps(asdict(state), indent=2))
