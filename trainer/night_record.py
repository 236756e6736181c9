"""What became of the last night, for whoever asks later: a record on disk, and a webhook where one is set."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import httpx

from indexer.workspace import Workspace, write_atomically

log = logging.getLogger(__name__)

Outcome = Literal["promoted", "refused", "skipped", "failed"]
_WEBHOOK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class NightRecord:
    """How a night ended. `night` is its name, "" when it failed before it had one; `version` the adapter it made,
    "" for none; times in ISO 8601, UTC."""

    outcome: Outcome
    reason: str
    night: str
    version: str
    began_at: str
    ended_at: str


def new_record(outcome: Outcome, reason: str, began_at: datetime, night: str = "", version: str = "") -> NightRecord:
    """The record of a night that ends now."""
    ended_at = datetime.now(UTC)
    return NightRecord(outcome, reason, night, version, _iso(began_at), _iso(ended_at))


def keep_record(workspace: Workspace, record: NightRecord) -> None:
    """Write `nights/last_night.json`, and the same as the last of its outcome (`nights/last_failed.json`)."""
    folder = workspace.make_state_folder() / "nights"
    folder.mkdir(exist_ok=True)
    for name in ("night", record.outcome):
        write_atomically(folder / f"last_{name}.json", json.dumps(asdict(record), indent=2))


def read_last_night(workspace: Workspace) -> NightRecord | None:
    """The night that ended last, however it ended; None when none has."""
    try:
        return NightRecord(**json.loads((workspace.state / "nights" / "last_night.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def send_to_webhook(url: str, workspace: Workspace, record: NightRecord) -> str:
    """POST the record as JSON to `url`; why that failed, "" when it did not. Never raises: the night is over.

    `text` is one line for people, where Slack and Mattermost look for it. No code and no path leaves the machine.
    """
    name = workspace.root.name
    told = replace(record, reason=record.reason.replace(str(workspace.root), name))
    body = {"workspace": name, "text": f"nightschool, {name}: {told.outcome}. {told.reason}", **asdict(told)}
    try:
        httpx.post(url, json=body, timeout=_WEBHOOK_TIMEOUT_S).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fault = f"the webhook could not be told: {error}".splitlines()[0]
        log.warning("%s", fault)
        return fault
    return ""


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
