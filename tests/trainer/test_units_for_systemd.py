"""The units that `--systemd` prints: as systemd itself reads them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import time
from pathlib import Path

import pytest

from indexer.workspace import Workspace
from trainer.units import backend_unit, night_units

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


@pytest.fixture(params=["plain", "a b %n $HOME é"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    root = tmp_path / request.param
    (root / ".nightschool").mkdir(parents=True)
    return Workspace(root)


def verify(*units: Path) -> list[str]:
    """What systemd has to say about these units; nothing when it takes them as they are."""
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, units)]
    done = subprocess.run(command, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if any(unit.name in line for unit in units)]
    return said if done.returncode == 0 else [*said, f"status {done.returncode}: {done.stderr}"]


@needs_systemd
def test_the_timer_and_its_service_are_ones_that_systemd_takes(workspace: Workspace, tmp_path: Path) -> None:
    name, service, timer = night_units(workspace, time(2, 30))
    files = [tmp_path / f"{name}.{kind}" for kind in ("service", "timer")]
    for file, text in zip(files, (service, timer), strict=True):
        file.write_text(text)
    assert verify(*files) == []
    assert "OnCalendar=*-*-* 02:30:00 UTC" in timer


@needs_systemd
def test_the_backends_unit_is_one_that_systemd_takes(workspace: Workspace, tmp_path: Path) -> None:
    name, text = backend_unit(workspace, ["--port", "8765"])
    file = tmp_path / f"{name}.service"
    file.write_text(text)
    assert verify(file) == []


@needs_systemd
def test_a_word_that_systemd_does_not_know_would_be_found(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "wrong.service"
    file.write_text(backend_unit(workspace)[1].replace("ProtectSystem=strict", "ProtectSistem=strict"))
    assert "ProtectSistem" in verify(file)[0]


@needs_systemd
def test_what_the_backends_unit_leaves_open_is_little(workspace: Workspace, tmp_path: Path) -> None:
    """systemd's own score: 0 is shut, 10 is open; a service without a word about it gets 9.6."""
    file = tmp_path / "one.service"
    file.write_text(backend_unit(workspace)[1])
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(file)]
    score = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Overall exposure level for one\.service: ([\d.]+)", score.stdout)
    assert found, score.stdout + score.stderr
    assert float(found[1]) < 5


def test_the_backend_may_write_its_own_folder_and_no_code(workspace: Workspace) -> None:
    _, text = backend_unit(workspace)
    (writable,) = (line.partition("=")[2] for line in text.splitlines() if line.startswith("ReadWritePaths="))
    first = shlex.split(writable)[0].replace("%%", "%")
    assert first == str(workspace.state)
    assert "UMask=0077" in text


def test_the_command_prints_what_was_asked_for_and_touches_nothing(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    printed = cli("serve", "--systemd", "--port", "8765", "--nightly", "02:30", cwd=tmp_path)
    line = f"ExecStart={sys.executable} -P -m nightschool serve --workspace {tmp_path} --port 8765 --nightly 02:30"
    assert line in printed.stdout.splitlines()
    refused = cli("serve", "--systemd", "--nightly", "half past two", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "such as 02:30" in refused.stderr
    assert not (tmp_path / ".nightschool").exists()
