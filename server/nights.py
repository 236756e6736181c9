"""The nights of a workspace as the trainer left them on disk: what was decided, on what numbers, and how it learnt.

Trainer and server meet on disk only: this reads `nights/<night>.json` and the events of a night's training run. What
another version wrote and this one does not know is passed over.
"""

from __future__ import annotations

import fcntl
import json
import logging
import struct
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from indexer.workspace import Workspace

log = logging.getLogger(__name__)

MOST_POINTS = 400  # of a curve: more than a page is wide tells nothing
_FLOCK = "hhqqi"  # struct flock of Linux on 64 bits: type, whence, start, length, pid
_TAIL_BYTES = 4096


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class NightRow(_Read):
    """A line of the four-way table: an arm with or without retrieval. Bits per byte; None where it was not measured."""

    arm: str
    retrieval: bool
    newer_code: float | None = None
    elsewhere: float | None = None


class NightLine(_Read):
    """One line of the verdict."""

    rule: str
    measured: str
    passed: bool


class Night(_Read):
    """What a night decided and why. `night` is its name (UTC, sorts by time), `outcome` promoted, refused or skipped.

    `version` is the adapter it made, `in_service` the one that served before it (None: the base model).
    """

    night: str
    outcome: str
    reason: str = ""
    version: str = ""
    in_service: str | None = None
    base_model: str = ""
    commit: str = ""
    newer_commit: str = ""
    is_next_day: bool = False
    rows: tuple[NightRow, ...] = ()
    verdict: tuple[NightLine, ...] = ()
    seconds: dict[str, float] = {}


class LastNight(_Read):
    """How the night that ended last ended. `outcome`: promoted, refused, skipped or failed; `version` "" for none.

    Times in ISO 8601, UTC.
    """

    outcome: str
    reason: str = ""
    night: str = ""
    version: str = ""
    began_at: str = ""
    ended_at: str = ""


class RunningNight(_Read):
    """A night that is running. `step` of `steps` of its training, 0 of 0 before it; `left_s`: the rest of that."""

    night: str = ""
    version: str = ""
    step: int = 0
    steps: int = 0
    left_s: float = 0.0


def read_last_night(workspace: Workspace) -> LastNight | None:
    """The night that ended last, however it ended; None when none has, or its record cannot be read."""
    try:
        return LastNight.model_validate_json((workspace.state / "nights" / "last_night.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("the last night's record cannot be read: %s", error)
        return None


def read_running_night(workspace: Workspace) -> RunningNight | None:
    """The night that holds the workspace now, and how far its training is; None when none does."""
    if not is_night(workspace):
        return None
    try:
        state = RunningNight.model_validate_json((workspace.state / "nights" / "state.json").read_bytes())
    except (OSError, ValidationError):  # it has only just begun
        return RunningNight()
    return state.model_copy(update=_last_step(workspace.state / "runs" / state.version / "events.jsonl"))


def _last_step(events: Path) -> dict[str, float]:
    """How far a training is by the end of its record; empty before its first step."""
    try:
        with events.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            event = json.loads(line)
            if event["event"] == "Step":
                return {"step": int(event["step"]), "steps": int(event["steps"]), "left_s": float(event["left_s"])}
        except (ValueError, LookupError, TypeError):  # half a line, or another event
            continue
    return {}


def is_night(workspace: Workspace) -> bool:
    """Whether a night, or a sweep, runs in this workspace now."""
    return _is_locked(workspace.night_lock)


def _is_locked(file: Path) -> bool:
    """Whether another process holds the lock. Asked, not tried: while we held it, a night would be refused."""
    try:
        with file.open("r+b") as lock:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0)
            kind, *_ = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
            return bool(kind != fcntl.F_UNLCK)
    except OSError:
        return False


def read_nights(workspace: Workspace, most: int) -> list[Night]:
    """The newest `most` nights, newest first. A record that cannot be read is left out, with a line in the log."""
    nights: list[Night] = []
    for file in sorted((workspace.state / "nights").glob("2*.json"), reverse=True):
        if len(nights) == most:
            break
        try:
            nights.append(Night.model_validate_json(file.read_bytes()))
        except (OSError, ValidationError) as error:
            log.warning("%s is left out: %s", file.name, error)
    return nights


def read_curve(workspace: Workspace, version: str) -> list[tuple[int, float]]:
    """The training loss of an adapter by step, nats a token; thinned to at most `MOST_POINTS`, empty without a run."""
    steps: dict[int, float] = {}
    for line in _lines(workspace.state / "runs" / version / "events.jsonl"):
        try:
            event = json.loads(line)
            if event.get("event") == "Step":
                steps[int(event["step"])] = float(event["loss"])
        except (ValueError, KeyError, TypeError, AttributeError):  # cut off while it was written
            continue
    curve = sorted(steps.items())
    stride = -(-len(curve) // MOST_POINTS) or 1
    return curve[::stride]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
