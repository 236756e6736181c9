"""The queue of a fleet's nights: its order, its budget, and what becomes of it when something ends early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from indexer.workspace import Workspace
from trainer.fleet_night import (
    Ended,
    FleetNight,
    Outcome,
    Queue,
    Waiting,
    load_queue,
    next_that_fits,
    order,
    plan,
    run_queue,
)
from trainer.fleet_night_command import place_of
from trainer.fleet_repository import lines_since_last_night, night_process, waiting_of
from trainer.night_state import NightState, save_state
from trainer.only_one import NightBusy, only_one
from trainer.settings import TrainerSettings

ROOT = Path(__file__).parents[2]
APP, WEB, LIB, OLD = Waiting("app", 900, 30), Waiting("web", 400, 20), Waiting("lib", 400, 10), Waiting("old", 0, 10)
GONE = Waiting("gone", 0, 10, "no such folder")
WAITING = [OLD, LIB, GONE, APP, WEB]


@pytest.fixture
def fleet(tmp_path: Path) -> Workspace:
    (tmp_path / "fleet").mkdir()
    return Workspace(tmp_path / "fleet")


class Clock:
    """Moves by as many minutes as each night takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def queue(fleet: Workspace, said: dict[str, Ended | BaseException], minutes: float = 20) -> tuple[Queue, list[str]]:
    """A queue whose nights take `minutes` and end as `said`; and the names of those it ran, in order."""
    ran: list[str] = []
    clock = Clock()

    def night(name: str, left: float) -> Ended:
        ran.append(name)
        clock.now += min(minutes, left) * 60
        ended = said.get(name, Ended("promoted", ""))
        if isinstance(ended, BaseException):
            raise ended
        return ended

    return Queue(fleet, night, lambda _: None, clock), ran


def test_the_most_changed_come_first_and_what_has_not_changed_gets_no_night() -> None:
    due, rest = order(WAITING)
    assert [one.name for one in due] == ["app", "lib", "web"]
    assert [one.name for one in rest] == ["gone", "old"]
    assert [one.name for one in order(WAITING, min_lines=500)[0]] == ["app"]


def test_what_does_not_fit_into_the_time_left_does_not_hold_up_what_does() -> None:
    assert next_that_fits([APP, LIB, WEB], 30) == APP
    assert next_that_fits([APP, LIB, WEB], 29) == LIB
    assert next_that_fits([APP, LIB, WEB], 9) is None
    assert next_that_fits([], 60) is None


def test_a_plan_names_every_repository_once_and_stays_within_the_hours() -> None:
    planned = plan(WAITING, hours=0.75)
    assert [(one.name, one.outcome) for one in planned] == [
        ("app", "promoted"), ("lib", "promoted"), ("web", "not begun"), ("gone", "failed"), ("old", "skipped"),
    ]  # fmt: skip
    assert sum(one.minutes for one in planned) <= 45


def test_one_that_fails_does_not_stop_the_others(fleet: Workspace) -> None:
    one, ran = queue(fleet, {"app": Ended("failed", "out of memory"), "lib": Ended("refused", "no gain")})
    done = run_queue(one, WAITING, hours=2)
    assert ran == ["app", "lib", "web"]
    assert done.finished
    assert [(o.name, o.outcome, o.reason, o.minutes) for o in done.outcomes] == [
        ("gone", "failed", "no such folder", 0),
        ("old", "skipped", "0 lines were added since its last night", 0),
        ("app", "failed", "out of memory", 20),
        ("lib", "refused", "no gain", 20),
        ("web", "promoted", "", 20),
    ]
    assert load_queue(fleet) == done


def test_no_night_begins_that_is_not_expected_to_end_in_time(fleet: Workspace) -> None:
    one, ran = queue(fleet, {}, minutes=30)
    done = run_queue(one, WAITING, hours=0.7)
    assert ran == ["app", "lib"]  # 42 minutes: 12 are left after the first, which is room for lib alone
    assert [o.name for o in done.outcomes if o.outcome == "not begun"] == ["web"]
    assert done.minutes_left >= 0


def test_a_queue_that_was_interrupted_goes_on_where_it_was_and_keeps_its_budget(fleet: Workspace) -> None:
    one, _ = queue(fleet, {"lib": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        run_queue(one, WAITING, hours=1)
    left = load_queue(fleet)
    assert left is not None
    assert (left.running, left.finished) == ("lib", False)
    again, ran = queue(fleet, {})
    done = run_queue(again, WAITING, hours=1)
    assert ran == ["lib", "web"]
    assert [o.name for o in done.outcomes] == ["gone", "old", "app", "lib", "web"]
    assert done.minutes_left == 0
    third, ran = queue(fleet, {})
    run_queue(third, WAITING, hours=1)
    assert ran == ["app", "lib", "web"]  # a new queue: the last one was finished


def test_a_queue_of_another_day_or_version_is_begun_anew(fleet: Workspace) -> None:
    folder = fleet.make_state_folder() / "nights"
    folder.mkdir()
    old = FleetNight("2026-01-01T00:00:00+00:00", 1, (Outcome("app", "promoted", "", 1, 60.0),))
    for text in (json.dumps({**vars_of(old)}), "{", json.dumps({"hours": 3})):
        (folder / "fleet_night.json").write_text(text)
        one, ran = queue(fleet, {})
        run_queue(one, WAITING, hours=2)
        assert ran == ["app", "lib", "web"]


def vars_of(state: FleetNight) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(state)


def test_two_queues_of_a_fleet_do_not_run_at_once(fleet: Workspace) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(fleet.root)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    one, ran = queue(fleet, {})
    with pytest.raises(NightBusy):
        run_queue(one, WAITING, hours=1)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert ran == []
    with only_one(fleet):
        pass


HOLD = """
import sys, time
from pathlib import Path
from indexer.workspace import Workspace
from trainer.only_one import only_one
with only_one(Workspace(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""

# What plays `nightschool night`: does as the file `how` in its folder says.
PLAYED = """
import subprocess, sys, time
from datetime import UTC, datetime
from pathlib import Path
from indexer.workspace import Workspace
from trainer.night_record import keep_record, new_record
place = Workspace(Path(sys.argv[1]))
how = (place.root / "how").read_text()
began = datetime.now(UTC)
if how == "hangs":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (place.root / "child").write_text(str(child.pid))
    time.sleep(600)
if how == "breaks":
    sys.exit("RuntimeError: no memory")
keep_record(place, new_record(how, "because", began))
sys.exit(how == "failed")
"""


def play(place: Workspace, how: str, tmp_path: Path, minutes: float = 10) -> Ended:
    place.root.mkdir(exist_ok=True)
    (place.root / "how").write_text(how)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PLAYED}", str(place.root)]
    return night_process(command, place, tmp_path / "logs" / "night.log", minutes)


def test_a_nights_process_is_judged_by_the_record_that_it_leaves(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "app")
    for how in ("promoted", "refused", "failed", "skipped"):
        assert play(place, how, tmp_path) == Ended(how, "because")
    time.sleep(1.1)  # records tell whole seconds: the last one must not be taken for one of this night
    broken = play(place, "breaks", tmp_path)
    assert (broken.outcome, broken.reason.split(" (")[0]) == (
        "failed",
        "it ended with status 1: RuntimeError: no memory",
    )


def test_a_night_that_is_not_over_in_time_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "app")
    ended = play(place, "hangs", tmp_path, minutes=3 / 60)
    assert ended.outcome == "cut short"
    child = int((place.root / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_lines_are_counted_from_the_last_night_and_all_of_them_before_the_first(
    git_workspace: tuple[Path, Callable[..., str]],
) -> None:
    root, commit = git_workspace
    place = Workspace(root)
    place.make_state_folder()  # with what keeps it out of git
    first = commit(1, {"a.py": "x = 1\ny = 2\n", "b.py": "z = 3\n"})
    assert lines_since_last_night(place) == 3
    night = NightState("2026-11-01-020000", first, "m", "v", finished=True)
    save_state(place, night)
    assert lines_since_last_night(place) == 0
    commit(2, {"a.py": "x = 1\ny = 2\nw = 4\n"})
    assert lines_since_last_night(place) == 1
    save_state(place, replace(night, head="0" * 40))
    assert lines_since_last_night(place) == 4  # a commit that is there no more


def test_a_repository_that_vanished_is_told_and_waits_with_its_reason(tmp_path: Path) -> None:
    waiting = waiting_of("app", Workspace(tmp_path / "nowhere"), TrainerSettings())
    assert waiting.fault
    assert "\n" not in waiting.fault


def test_a_killed_queue_leaves_what_was_done_on_disk(fleet: Workspace) -> None:
    run = (
        "import sys, time\nfrom pathlib import Path\nfrom indexer.workspace import Workspace\n"
        "from trainer.fleet_night import *\n"
        "def night(name, minutes):\n"
        "    print(name, flush=True)\n"
        "    if name == 'lib': time.sleep(600)\n"
        "    return Ended('promoted', '')\n"
        "waiting = [Waiting('app', 9, 1), Waiting('lib', 5, 1), Waiting('web', 3, 1)]\n"
        "run_queue(Queue(Workspace(Path(sys.argv[1])), night, lambda _: None), waiting, 1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", run, str(fleet.root)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout
    assert [process.stdout.readline() for _ in range(2)] == ["app\n", "lib\n"]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    left = load_queue(fleet)
    assert left is not None
    assert ([one.name for one in left.outcomes], left.running) == (["app"], "lib")
    again, ran = queue(fleet, {}, minutes=1)
    run_queue(again, [Waiting("app", 9, 1), Waiting("lib", 5, 1), Waiting("web", 3, 1)], 1)
    assert ran == ["lib", "web"]


@pytest.fixture
def two_repositories(fleet: Workspace, make_git: Callable[[Path], str], tmp_path: Path) -> Workspace:
    """A fleet of a small repository, a larger one with settings of its own, and one that has vanished."""
    for name, lines in (("small", 3), ("large", 30)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("x = 1\n" * lines)
        make_git(tmp_path / name)
    (tmp_path / "large" / "nightschool.toml").write_text('[trainer]\nwebhook = "http://elsewhere.example"\nrank = 0\n')
    tables = (f'[[fleet.repositories]]\nname = "{n}"\nsource = "{tmp_path / n}"\n' for n in ("small", "gone", "large"))
    fleet.settings_file.write_text('[server]\nmodel = "/no/such/model"\n' + "".join(tables))
    return fleet


def test_the_command_plans_in_the_order_of_what_has_changed(
    two_repositories: Workspace, cli: Callable[..., Any]
) -> None:
    run = cli("fleet", "night", "--dry-run", "--json", "--hours", "0.5", "--workspace", str(two_repositories.root))
    planned = json.loads(run.stdout)["outcomes"]
    assert [(one["name"], one["outcome"], one["lines"]) for one in planned] == [
        ("large", "promoted", 30), ("small", "not begun", 3), ("gone", "failed", 0),
    ]  # fmt: skip
    assert run.returncode == 1
    assert not (two_repositories.state / "nights").exists()


def test_the_command_runs_each_as_a_process_and_tells_of_those_that_failed(
    two_repositories: Workspace, cli: Callable[..., Any], tmp_path: Path
) -> None:
    run = cli("fleet", "night", "--json", "--hours", "0.5", "--workspace", str(two_repositories.root))
    outcomes = {one["name"]: (one["outcome"], one["reason"]) for one in json.loads(run.stdout)["outcomes"]}
    assert run.returncode == 1
    assert list(outcomes) == ["gone", "large", "small"]
    assert {outcome for outcome, _ in outcomes.values()} == {"failed"}
    assert all("/no/such/model" in outcomes[name][1] for name in ("large", "small"))
    assert not (tmp_path / "large" / ".nightschool").exists()  # it is only read
    assert "elsewhere" not in run.stderr


def test_a_repositorys_own_settings_are_not_obeyed_in_a_fleet(two_repositories: Workspace) -> None:
    settings = TrainerSettings.read(place_of(two_repositories, "large"))
    assert (settings.webhook, settings.rank) == ("", None)


def test_a_name_that_the_fleet_has_not_and_a_folder_that_is_no_fleet_are_one_line_each(
    two_repositories: Workspace, cli: Callable[..., Any], tmp_path: Path
) -> None:
    unknown = cli("fleet", "night", "--only", "web", "--workspace", str(two_repositories.root))
    assert (unknown.returncode, "no repository web; it has gone, large, small" in unknown.stderr) == (1, True)
    alone = cli("fleet", "night", "--workspace", str(tmp_path / "small"))
    assert (alone.returncode, "nightschool fleet add" in alone.stderr) == (1, True)
