"""When a night is due, and how the backend starts it. What starts it from outside is printed by `trainer/units.py`."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from indexer.child import end_group
from indexer.workspace import Workspace, write_atomically
from trainer.units import night_command

log = logging.getLogger(__name__)

_DAY = timedelta(days=1)
_POLL_S = 20.0
_ENDED_POLL_S = 0.5
_END_TIMEOUT_S = 10.0


class BadTime(Exception):
    """No time of day; the message shows what one looks like."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Every day at `at` (UTC); a slot that was missed is made up for until `grace` is over."""

    at: time
    grace: timedelta


def read_time(text: str) -> time:
    """ "02:30" -> that time of day, UTC. Raises `BadTime`."""
    try:
        return datetime.strptime(text.strip(), "%H:%M").replace(tzinfo=UTC).timetz()
    except ValueError:
        raise BadTime(f"{text!r} is no time of day: write HH:MM in UTC, such as 02:30") from None


def due_slot(schedule: Schedule, now: datetime, done: datetime | None) -> datetime | None:
    """The slot for which a night must begin at `now` (UTC); None when there is none.

    `done` is the slot of the last night that ended. A clock that is set back across a slot does not bring it a second
    time. One that had been far ahead does not stop the nights: a `done` more than a day ahead is of a wrong clock.
    """
    slot = datetime.combine(now.date(), schedule.at)
    if slot > now:
        slot -= _DAY
    if now - slot > schedule.grace:
        return None
    if done is not None and slot <= done <= now + _DAY:
        return None
    return slot


def nights_of(workspace: Workspace, at: str, grace_hours: float) -> Callable[[], Awaitable[None]] | None:
    """What starts the nights of `workspace` for as long as it runs; None without a time. Raises `BadTime`."""
    if not at:
        return None
    schedule = Schedule(read_time(at), timedelta(hours=grace_hours))
    return lambda: keep_nights(workspace, schedule, lambda: datetime.now(UTC), lambda: _night_process(workspace))


async def keep_nights(
    workspace: Workspace,
    schedule: Schedule,
    clock: Callable[[], datetime],
    night: Callable[[], Awaitable[int]],
    poll_s: float = _POLL_S,
) -> None:
    """Run a night whenever one is due, until cancelled. Its slot is noted when it has ended, however it ended: a night
    that was cut short with the backend is due again when that starts, and goes on where it was."""
    while True:
        slot = due_slot(schedule, clock(), _read_done(workspace))
        if slot is not None:
            log.info("the night of %s begins", slot.isoformat(timespec="minutes"))
            status = await night()
            log.log(logging.WARNING if status else logging.INFO, "the night ended with status %d", status)
            _note_done(workspace, slot)
        await asyncio.sleep(poll_s)


async def _night_process(workspace: Workspace) -> int:
    """`nightschool night` in a process group of its own, which ends with us; its exit status."""
    process = _start_night(workspace)
    try:
        while (status := process.poll()) is None:
            await asyncio.sleep(_ENDED_POLL_S)
        return status
    except asyncio.CancelledError:
        await asyncio.to_thread(end_group, process, _END_TIMEOUT_S)
        raise


def _start_night(workspace: Workspace) -> subprocess.Popen[bytes]:
    workspace.logs.mkdir(parents=True, exist_ok=True)
    with (workspace.logs / "night.log").open("ab") as output:
        return subprocess.Popen(
            night_command(workspace), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def _read_done(workspace: Workspace) -> datetime | None:
    try:
        return datetime.fromisoformat(json.loads((workspace.state / "nights" / "schedule.json").read_text())["done"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note_done(workspace: Workspace, slot: datetime) -> None:
    folder = workspace.make_state_folder() / "nights"
    folder.mkdir(exist_ok=True)
    write_atomically(folder / "schedule.json", json.dumps({"done": slot.isoformat()}))
