"""The nights of a workspace as the trainer left them on disk: what was decided, on what numbers, and how it learnt.

Trainer and server meet on disk only: this reads `nights/<night>.json` and the events of a night's training run. What
another version wrote and this one does not know is passed over.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from indexer.workspace import Workspace

log = logging.getLogger(__name__)

MOST_POINTS = 400  # of a curve: more than a page is wide tells nothing


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
