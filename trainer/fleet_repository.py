"""What the queue of a fleet's nights needs of each repository: how much has changed, and a night as a process."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from indexer.child import end_group
from indexer.workspace import Workspace
from trainer.fleet_night import Ended, Waiting
from trainer.night_record import read_last_night
from trainer.night_state import last_finished
from trainer.settings import TrainerSettings
from trainer.sources.history import History, NoHistory

# git's name for a tree without files: what stands in it is nothing.
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_BESIDE_TRAINING_MINUTES = 5.0  # corpus and proof, before the first night has shown what they take here
_END_TIMEOUT_S = 15.0


def waiting_of(name: str, place: Workspace, settings: TrainerSettings) -> Waiting:
    """How much of the repository at `place` is new to its adapter, and what a night of it is expected to take."""
    expected = settings.budget_minutes + settings.answer_minutes + _BESIDE_TRAINING_MINUTES
    last = read_last_night(place)
    if last is not None and last.outcome in ("promoted", "refused"):
        expected = (datetime.fromisoformat(last.ended_at) - datetime.fromisoformat(last.began_at)).total_seconds() / 60
    try:
        return Waiting(name, lines_since_last_night(place), expected)
    except (NoHistory, OSError) as error:
        return Waiting(name, 0, expected, str(error).splitlines()[0])


def lines_since_last_night(place: Workspace) -> int:
    """Lines that were added since the last finished night; all of them before the first. Raises `NoHistory`."""
    history, last = History(place.root), last_finished(place)
    head = history.head().sha
    older = last.head if last is not None and last.head else _EMPTY_TREE
    try:
        added = history.added_lines(older, head)
    except NoHistory:  # rewritten since
        added = history.added_lines(_EMPTY_TREE, head)
    return sum(lines.end - lines.start + 1 for lines in added)


def night_process(command: Sequence[str], place: Workspace, log_file: Path, minutes: float) -> Ended:
    """Run `command`, which runs one night of `place`; end it after `minutes`. Its record says what became of it."""
    began = datetime.now(UTC).replace(microsecond=0)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=place.root
        )
        try:
            status = process.wait(minutes * 60)
        except subprocess.TimeoutExpired:
            return Ended("cut short", "the hours are used; the next queue goes on where it stopped")
        finally:
            end_group(process, _END_TIMEOUT_S)
    record = read_last_night(place)
    if record is not None and datetime.fromisoformat(record.ended_at) >= began:
        return Ended(record.outcome, record.reason)
    return Ended("failed", f"it ended with status {status}: {_last_line(log_file)}")


def _last_line(log_file: Path) -> str:
    lines = [line for line in log_file.read_text("utf-8", "replace").splitlines() if line.strip()]
    return f"{lines[-1].strip()[:300] if lines else 'it said nothing'} (log: {log_file})"
