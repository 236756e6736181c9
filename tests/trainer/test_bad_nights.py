"""What cannot become a night is one line and exit code 1, and the adapter in service is as it was. No engine here."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from indexer.workspace import Workspace
from server.adapter import TrainedOn, finish_adapter, promote
from server.base_model import BaseModel
from server.prompt import PROMPT_VERSION
from trainer.night import Workshop, plan_night
from trainer.settings import TrainerSettings

IN_SERVICE = "2026-11-01-0000-abc"


@pytest.fixture
def workspace(tmp_path: Path, tiny_base: BaseModel) -> Workspace:
    """A git repository with nothing to learn from, and an adapter in service from better days."""
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    who = ["-c", "user.name=A", "-c", "user.email=a@x.org"]
    for arguments in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "a logo"]):
        subprocess.run(["git", "-C", str(root), *arguments], check=True)
    place = Workspace(root)
    staging = place.make_state_folder() / "adapters" / ".staging"
    staging.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(4)
    (staging / "adapter_model.safetensors").write_bytes(weights)
    (staging / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    created = datetime(2026, 11, 1, tzinfo=UTC)
    trained_on = TrainedOn.of(tiny_base)
    about = {"version": IN_SERVICE, "created_at": created, "base_model": trained_on, "prompt_version": PROMPT_VERSION}
    finish_adapter(staging, place.adapters, about)
    promote(place.adapters, IN_SERVICE)
    return place


@pytest.fixture
def night(cli: Any, workspace: Workspace, tmp_path: Path) -> Callable[..., str]:
    """Runs the command on a base model's folder; its one line, when it failed as it should and nothing was lost."""

    def run(base: Path, command: str = "night") -> str:
        before = contents(workspace.adapters)
        cache = str(tmp_path / "models")
        settings = {"NIGHTSCHOOL_SERVER__MODEL": str(base), "NIGHTSCHOOL_SERVER__MODELS_CACHE": cache}
        failed = cli(command, "--json", cwd=workspace.root, NIGHTSCHOOL_CORPUS__GENERATOR="off", **settings)
        assert (failed.returncode, failed.stdout) == (1, ""), failed.stderr
        assert contents(workspace.adapters) == before
        lines = [line for line in failed.stderr.splitlines() if line.startswith("nightschool: ")]
        assert len(lines) == 1, failed.stderr
        assert "Traceback" not in failed.stderr
        return str(lines[0])

    return run


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_repository_with_nothing_to_learn_from(
    night: Callable[[Path], str], workspace: Workspace, tiny_base: BaseModel
) -> None:
    said = night(tiny_base.folder)
    assert said == "nightschool: no source file to learn from in workspace: 1 binary"
    last = json.loads((workspace.state / "nights" / "last_failed.json").read_text())
    assert (last["outcome"], f"nightschool: {last['reason']}", last["version"]) == ("failed", said, "")


def test_a_base_model_whose_template_has_no_end_token(
    night: Callable[[Path], str], save_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    endless = save_tiny_model(tmp_path / "endless", "{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    assert "its chat template has no end token after an answer" in night(endless)


def test_a_base_model_whose_weights_are_cut_off(
    night: Callable[[Path], str], save_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    damaged = save_tiny_model(tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert str(damaged) in night(damaged)


@pytest.mark.parametrize("command", ["night", "train"])
def test_what_trains_is_not_started_beside_a_night(
    command: str, night: Callable[..., str], workspace: Workspace, tiny_base: BaseModel
) -> None:
    with workspace.night_lock.open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        assert "a night is running in" in night(tiny_base.folder, command)
    assert not (workspace.state / "nights" / "last_failed.json").exists(), "the other one will tell"


@pytest.mark.parametrize("harm", ["a pickle", "a changed byte", "weights cut off", "another tokenizer"])
def test_what_cannot_be_served_is_not_what_a_candidate_is_compared_with(
    harm: str, workspace: Workspace, tiny_base: BaseModel, tmp_path: Path
) -> None:
    folder, base = workspace.adapters / IN_SERVICE, tiny_base
    three_arms = plan_night(Workshop(workspace, TrainerSettings(), base, lambda _: None)).minutes
    weights = folder / "adapter_model.safetensors"
    if harm == "a pickle":
        (folder / "optimizer.pt").write_bytes(b"\x80\x04.")
    elif harm == "a changed byte":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    elif harm == "weights cut off":
        weights.write_bytes(weights.read_bytes()[:-1])
    else:
        base = replace(base, folder=tmp_path)
    two_arms = plan_night(Workshop(workspace, TrainerSettings(), base, lambda _: None)).minutes
    assert round(three_arms - two_arms, 1) == 2.5
