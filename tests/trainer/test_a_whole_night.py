"""Nights in a row on a repository that changes, with a model built in the process."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.workspace import Workspace
from server.adapter import list_adapters, read_current
from server.base_model import BaseModel
from trainer.generated import Generate, Generator, GeneratorError
from trainer.job import Note, Stage, TrainingEvent
from trainer.night import NightBusy, Workshop, plan_night, run_night
from trainer.process import Runner
from trainer.promote import Served
from trainer.report import NightReport
from trainer.settings import TrainerSettings

SETTINGS = TrainerSettings(
    max_steps=30, row_tokens=256, example_tokens=256, rank=8, alpha=16, learning_rate=2e-2, backend="trl",
    held_out_tokens=300, proof_bytes=500, questions=2, answer_tokens=8, min_files=2, max_forgetting=5.0,
    margin_canaries=1, margin_ends=1, margin_recall=1, margin_names=1, margin_refusals=1,
)  # fmt: skip


def code(number: int, day: int = 0) -> str:
    body = f"    return sum(price.cents for price in prices) + {number}\n"
    return f"def total_{number}(prices):  # é 🌍\n{body}\n\n" * 4 + f"\ndef later_{day}(prices):\n{body}\n" * day


@pytest.fixture
def workspace(git_workspace: tuple[Path, Callable[..., str]]) -> tuple[Workspace, Callable[..., str]]:
    root, commit = git_workspace
    commit(1, {f"shop/prices_{number}.py": code(number) for number in range(12)})
    commit(2, {f"shop/prices_{number}.py": code(number, 2) for number in range(8)})
    return Workspace(root), commit


def test_a_night_trains_on_the_past_proves_on_the_newer_code_and_promotes(
    workspace: tuple[Workspace, Callable[..., str]], tiny_base: BaseModel, in_this_process: Runner
) -> None:
    place, _ = workspace
    stages: list[str] = []
    notes: list[str] = []

    def listen(event: TrainingEvent) -> None:
        if isinstance(event, Stage):
            stages.append(event.text)
        if isinstance(event, Note):
            notes.append(event.text)

    # Sees every function that was emptied, and nothing else: a second is enough for it.
    sees = SETTINGS.model_copy(update={"test_command": "sh -c '! grep -rq NotImplementedError shop'", "holes": 3})

    @contextmanager
    def rest(minutes: float) -> Iterator[str]:
        stages.append(f"rest {minutes:.0f}")
        yield "it says so"
        stages.append("rested")

    report = run_night(Workshop(place, sees, tiny_base, listen, in_this_process, rest=rest))
    assert report.outcome == "promoted", report.verdict
    # The corpus may be written by the engine that is to sleep; training, proof and a trial engine need its memory.
    order = ["making examples", "rest 26", "training", "measuring base", "measuring candidate", "rested"]
    assert [stage for stage in stages if stage in order] == order
    assert "the backend's engine does not sleep: it says so" in notes
    assert report.is_next_day
    assert [row.holes is not None and row.holes[1] for row in report.rows] == [3, 3, 3, 3]
    assert report.tests == "3 (3 newer) of 3 functions tried; fewer than 10 decide nothing"
    assert "tests of filled hole 3 of 3" in stages
    assert report.commit != report.newer_commit
    assert [(row.arm, row.retrieval) for row in report.rows] == [
        ("base", False), ("base", True), ("candidate", False), ("candidate", True),
    ]  # fmt: skip
    bits = {(row.arm, row.retrieval): row.newer_code or 0.0 for row in report.rows}
    assert bits["candidate", True] < bits["base", True]
    current = read_current(place.adapters)
    assert current is not None
    assert current.version == report.version
    assert current.manifest.commit == report.commit
    markdown = (current.folder / "report.md").read_text()
    assert f"| candidate | on | {bits['candidate', True]:.4f} |" in markdown
    html = (current.folder / "report.html").read_text()
    assert "<svg" in html
    assert "http" not in html
    assert json.loads((place.state / "nights" / f"{report.night}.json").read_text())["version"] == report.version
    assert "| functions for the repository's own tests | 3 (3 newer) of 3" in markdown
    again = run_night(Workshop(place, sees, tiny_base, lambda _: None, in_this_process))
    assert (again.outcome, again.reason) == ("skipped", f"nothing was committed since the night of {report.night}")
    assert plan_night(Workshop(place, sees, tiny_base, lambda _: None)).skip == again.reason


@pytest.mark.parametrize("at", ["reading the code", "training", "measuring candidate"])
def test_a_night_killed_at_a_stage_goes_on_to_the_same_adapter(
    workspace: tuple[Workspace, Callable[..., str]], tiny_base: BaseModel, in_this_process: Runner, at: str
) -> None:
    place, _ = workspace

    class Killed(BaseException):
        pass

    def stop(event: TrainingEvent) -> None:
        if event == Stage(at):
            raise Killed

    with pytest.raises(Killed):
        run_night(Workshop(place, SETTINGS, tiny_base, stop, in_this_process))
    assert read_current(place.adapters) is None
    resumed = run_night(Workshop(place, SETTINGS, tiny_base, lambda _: None, in_this_process))
    assert resumed.outcome == "promoted"
    assert [adapter.version for adapter in list_adapters(place.adapters)] == [resumed.version]
    fresh = run_night(Workshop(place, SETTINGS, tiny_base, lambda _: None, in_this_process), force=True)
    assert fresh.manifest["files"] == resumed.manifest["files"]


def test_an_adapter_the_engine_cannot_load_is_not_promoted(
    workspace: tuple[Workspace, Callable[..., str]], tiny_base: BaseModel, in_this_process: Runner
) -> None:
    place, _ = workspace
    heard: list[TrainingEvent] = []

    @asynccontextmanager
    async def gone() -> AsyncIterator[Generate]:
        raise GeneratorError("the judge has gone home")
        yield

    workshop = Workshop(
        place, SETTINGS, tiny_base, heard.append, in_this_process,
        check_engine=lambda _: Served("it never answered"), judge=Generator("a judge", gone),
    )  # fmt: skip
    report = run_night(workshop)
    assert Note("the judge has gone home") in heard  # and the night went on
    assert report.judged is None
    assert (report.outcome, report.reason) == ("refused", "the engine loads it: it never answered")
    assert read_current(place.adapters) is None


def test_two_nights_do_not_run_together(
    workspace: tuple[Workspace, Callable[..., str]], tiny_base: BaseModel, in_this_process: Runner
) -> None:
    place, _ = workspace

    # A lock of lockf belongs to a process: here it is another's.
    place.make_state_folder()
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True)"
    hold += "; sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(place.night_lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(NightBusy, match="a night is running in"):
            run_night(Workshop(place, SETTINGS, tiny_base, lambda _: None))
    finally:
        holder.communicate(b"")


def test_a_folder_without_history_is_proved_on_files_held_out(
    tmp_path: Path, tiny_base: BaseModel, in_this_process: Runner
) -> None:
    root = tmp_path / "plain"
    (root / "shop").mkdir(parents=True)
    for number in range(12):
        (root / "shop" / f"prices_{number}.py").write_text(code(number, 1))
    settings = SETTINGS.model_copy(update={"held_out_share": 0.3})
    report = run_night(Workshop(Workspace(root), settings, tiny_base, lambda _: None, in_this_process))
    assert not report.is_next_day
    assert report.outcome == "promoted"
    assert "files never trained on (there is no newer code)" in report.verdict[0].rule


def gibberish(number: int) -> str:
    noise = hashlib.shake_256(str(number).encode()).hexdigest(500)
    return "".join(f"{noise[i : i + 50]}\n" for i in range(0, len(noise), 50))


def same(report: NightReport) -> object:
    """What two nights on the same code must agree on: everything but names and seconds."""
    return (
        report.outcome, report.commit, report.newer_commit, report.mix, report.manifest["files"], report.verdict,
        [replace(row, tokens_per_s=0.0) for row in report.rows], report.answers,
    )  # fmt: skip


def test_three_nights_one_promotes_one_is_poisoned_and_one_is_killed_at_every_stage(
    workspace: tuple[Workspace, Callable[..., str]], tiny_base: BaseModel, in_this_process: Runner, tmp_path: Path
) -> None:
    place, commit = workspace
    first = run_night(Workshop(place, SETTINGS, tiny_base, lambda _: None, in_this_process))
    assert first.outcome == "promoted", first.verdict
    # Somebody commits noise, and then code as it was before: trained on the noise, proved on the code.
    commit(3, {f"shop/prices_{number}.py": gibberish(number) for number in range(12)})
    commit(4, {f"shop/prices_{number}.py": code(number, 3) for number in range(12)})
    second = run_night(Workshop(place, SETTINGS, tiny_base, lambda _: None, in_this_process))
    assert (second.outcome, second.in_service) == ("refused", first.version)
    assert "not worse than the adapter in service" in second.reason
    assert {row.arm for row in second.rows} == {"base", "candidate", "in service"}
    assert second.version in [adapter.version for adapter in list_adapters(place.adapters)]
    kept = (place.adapters / second.version / "report.md").read_text()
    assert "NOT PASSED" in kept
    assert f"{first.version} stays in service" in kept
    assert second.learnt.since == first.night
    assert second.learnt.subjects[0] == "change"
    commit(5, {f"shop/prices_{number}.py": code(number, 5) for number in range(12)})
    other = Workspace(Path(shutil.copytree(place.root, tmp_path / "other" / "workspace", symlinks=True)))
    whole = run_night(Workshop(other, SETTINGS, tiny_base, lambda _: None, in_this_process))

    class Killed(BaseException):
        pass

    seen: list[str] = []

    def kill_at_each_new_stage(event: TrainingEvent) -> None:
        if isinstance(event, Stage) and event.text not in seen:
            seen.append(event.text)
            raise Killed

    resumed: NightReport | None = None
    while resumed is None:
        try:
            resumed = run_night(Workshop(place, SETTINGS, tiny_base, kill_at_each_new_stage, in_this_process))
        except Killed:
            current = read_current(place.adapters)
            assert current is not None
            assert current.version == first.version
    assert {"reading the code", "making examples", "training", "saving the adapter", "measuring candidate"} < set(seen)
    assert same(resumed) == same(whole)
    assert len(list_adapters(place.adapters)) == 3
    page = (place.adapters / resumed.version / "report.html").read_text()
    assert "Learnt since then" in page
    assert page.count("<svg") == 3
