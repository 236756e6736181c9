"""The schedule: one night a slot, whatever the clock does; and what starts it from outside."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.workspace import Workspace
from trainer.schedule import (
    BadTime,
    Schedule,
    _night_process,
    due_slot,
    keep_nights,
    nights_of,
    read_time,
)
from trainer.units import cron_lines, night_command

NIGHTLY = Schedule(time(2, 30, tzinfo=UTC), timedelta(hours=4))
BEGIN = datetime(2026, 3, 27, tzinfo=UTC)
DAY = timedelta(days=1)


def at(day: int, clock: str) -> datetime:
    hour, minute = map(int, clock.split(":"))
    return BEGIN + timedelta(days=day, hours=hour, minutes=minute)


def nights(moments: list[datetime], schedule: Schedule = NIGHTLY) -> list[datetime]:
    """The slots that are run when the schedule is asked at `moments`, in this order; a night takes no time."""
    done: datetime | None = None
    run: list[datetime] = []
    for now in moments:
        slot = due_slot(schedule, now, done)
        if slot is not None:
            done = slot
            run.append(slot)
    return run


@pytest.mark.parametrize(
    ("now", "done", "due"),
    [
        (at(1, "02:29"), None, None),
        (at(1, "02:30"), None, at(1, "02:30")),
        (at(1, "06:30"), None, at(1, "02:30")),
        (at(1, "06:31"), None, None),
        (at(1, "02:31"), at(1, "02:30"), None),
        (at(1, "02:31"), at(0, "02:30"), at(1, "02:30")),
        (at(0, "01:00"), at(1, "02:30"), None),  # the clock was set back across the slot
        (at(1, "02:30"), at(900, "02:30"), at(1, "02:30")),  # it had been years ahead
    ],
)
def test_a_night_is_due_once_within_its_grace(now: datetime, done: datetime | None, due: datetime | None) -> None:
    assert due_slot(NIGHTLY, now, done) == due


def test_a_slot_before_midnight_is_made_up_for_after_it() -> None:
    late = Schedule(time(23, 0, tzinfo=UTC), timedelta(hours=4))
    assert due_slot(late, at(1, "01:00"), None) == at(0, "23:00")


MINUTES = st.integers(0, 4 * 24 * 60)


@given(st.lists(MINUTES, max_size=60), st.integers(0, 24 * 60 - 1), st.integers(1, 23))
def test_no_slot_is_run_twice_whatever_the_clock_does_within_a_day(
    minutes: list[int], start: int, grace_hours: int
) -> None:
    schedule = Schedule(time(start // 60, start % 60, tzinfo=UTC), timedelta(hours=grace_hours))
    moments: list[datetime] = []
    for minute in minutes:  # jumps back of a day at most from the furthest it had been
        furthest = max(moments, default=BEGIN)
        moments.append(max(BEGIN + timedelta(minutes=minute), furthest - DAY + timedelta(minutes=1)))
    run = nights(moments, schedule)
    assert len(run) == len(set(run))


@given(st.integers(0, 24 * 60 - 1), st.integers(1, 23), st.integers(1, 59))
def test_a_clock_that_runs_on_gives_one_night_a_day(start: int, grace_hours: int, step: int) -> None:
    schedule = Schedule(time(start // 60, start % 60, tzinfo=UTC), timedelta(hours=grace_hours))
    moments = [BEGIN + DAY + timedelta(minutes=minute) for minute in range(0, 5 * 24 * 60, step)]
    run = nights(moments, schedule)
    assert 4 <= len(run) <= 6
    assert all(later - earlier == DAY for earlier, later in pairwise(run))


@pytest.mark.parametrize("text", ["", "2", "24:00", "02:60", "02:30:00", "é", "-1:00", "2:30 pm"])
def test_what_is_no_time_of_day_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadTime, match="write HH:MM in UTC, such as 02:30"):
        read_time(text)


def test_without_a_time_nothing_is_scheduled(tmp_path: Path) -> None:
    assert nights_of(Workspace(tmp_path), "", 4) is None
    assert nights_of(Workspace(tmp_path), "02:30", 4) is not None


async def test_the_backend_runs_a_night_when_it_is_due_and_not_again_after_a_restart(tmp_path: Path) -> None:
    place, now = Workspace(tmp_path), at(1, "02:00")
    began: list[datetime] = []

    async def until(moment: datetime, nights: int) -> None:
        nonlocal now
        now = moment
        async with asyncio.timeout(10):
            while len(began) < nights:
                await asyncio.sleep(0.001)

    async def night() -> int:
        began.append(now)
        return 0

    def start() -> asyncio.Task[None]:
        return asyncio.create_task(keep_nights(place, NIGHTLY, lambda: now, night, poll_s=0.001))

    first = start()
    await until(at(1, "02:31"), 1)
    await until(at(2, "02:31"), 2)
    first.cancel()
    second = start()
    await until(at(3, "02:31"), 3)
    second.cancel()
    assert began == [at(1, "02:31"), at(2, "02:31"), at(3, "02:31")]


async def test_a_night_cut_short_with_the_backend_is_due_when_it_starts_again(tmp_path: Path) -> None:
    place, began = Workspace(tmp_path), asyncio.Event()

    async def long_night() -> int:
        began.set()
        await asyncio.sleep(3600)
        return 0

    task = asyncio.create_task(keep_nights(place, NIGHTLY, lambda: at(1, "02:31"), long_night))
    await asyncio.wait_for(began.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    began.clear()
    again = asyncio.create_task(keep_nights(place, NIGHTLY, lambda: at(1, "03:31"), long_night))
    await asyncio.wait_for(began.wait(), 10)
    again.cancel()


@pytest.fixture
def odd_workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "a b %n $HOME é"
    root.mkdir()
    return Workspace(root)


def test_the_line_for_cron_runs_what_it_says(odd_workspace: Workspace) -> None:
    zone, line = cron_lines(odd_workspace, time(2, 5)).splitlines()
    assert zone == "CRON_TZ=UTC"
    assert line.startswith("5 2 * * * ")
    # What cron hands to the shell: everything after the five fields, its own escapes undone.
    command = line.split(" ", 5)[5].replace("\\%", "%")
    echoed = command.replace(sys.executable, "printf '%s\\n'", 1)
    words = subprocess.run(["sh", "-c", echoed], capture_output=True, text=True, check=True).stdout.splitlines()
    assert words == night_command(odd_workspace)[1:]


def test_the_command_prints_a_timer_and_touches_nothing(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / ".git").mkdir()
    printed = cli("night", "--systemd", "--at", "04:15", cwd=tmp_path)
    assert "OnCalendar=*-*-* 04:15:00 UTC" in printed.stdout
    (tmp_path / "nightschool.toml").write_text('[trainer]\nnightly = "05:00"\n')
    assert "0 5 * * * " in cli("night", "--cron", cwd=tmp_path).stdout
    wrong = cli("night", "--cron", "--at", "5 o'clock", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "such as 02:30" in wrong.stderr
    assert not (tmp_path / ".nightschool").exists()


def test_a_record_that_cannot_be_read_is_no_night(tmp_path: Path) -> None:
    from trainer.schedule import _read_done

    place = Workspace(tmp_path)
    assert _read_done(place) is None
    (place.make_state_folder() / "nights").mkdir()
    for text in ("", "{}", "[]", json.dumps({"done": "yesterday"})):
        (place.state / "nights" / "schedule.json").write_text(text)
        assert _read_done(place) is None


async def test_the_night_is_a_process_of_its_own_and_what_it_says_is_kept(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    (tmp_path / "nightschool.toml").write_text("[trainer]\nbudget_minutes = 'long'\n")
    assert await _night_process(place) == 1
    assert "budget_minutes" in (place.logs / "night.log").read_text()


async def test_a_night_under_way_ends_with_the_backend(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    task = asyncio.create_task(_night_process(place))
    async with asyncio.timeout(60):
        while not (running := _processes_on(tmp_path)):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [process for process in running if process.is_running()]


def _processes_on(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if str(folder) in command and "night" in command:
            found.append(process)
    return found
