"""What a night has done so far, on disk: written atomically, so that a night that was killed goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256

from indexer.workspace import Workspace, write_atomically
from server.base_model import BaseModel
from trainer.settings import TrainerSettings


@dataclass(frozen=True, slots=True)
class NightState:
    """A night: `head` is the commit it began at, `mark` stands for settings and base model, `version` is the adapter
    it makes.

    `seconds` are those of its stages, in this process.
    """

    night: str
    head: str
    mark: str
    version: str
    finished: bool = False
    promoted: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


# When a night runs, who is told, and what is kept: none of it changes what a night makes.
_BESIDE = {
    "nightly", "nightly_grace_hours", "webhook", "min_changed_lines", "require_gpu", "keep_adapters",
    "checkpoint_every_s",
}  # fmt: skip


def settings_mark(settings: TrainerSettings, base: BaseModel) -> str:
    """Changes with anything that decides what a night makes."""
    return sha256(f"{settings.model_dump_json(exclude=_BESIDE)} {base.sha256}".encode()).hexdigest()[:16]


def load_state(workspace: Workspace) -> NightState | None:
    """The night that was begun last; None without one."""
    return _read(workspace, "state.json")


def last_finished(workspace: Workspace) -> NightState | None:
    """The night that was finished last; None without one."""
    return _read(workspace, "last.json")


def save_state(workspace: Workspace, state: NightState) -> None:
    folder = workspace.state / "nights"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(state), indent=2)
    write_atomically(folder / "state.json", text)
    if state.finished:
        write_atomically(folder / "last.json", text)


def _read(workspace: Workspace, name: str) -> NightState | None:
    try:
        return NightState(**json.loads((workspace.state / "nights" / name).read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):  # none, or another version's: begin anew
        return None
