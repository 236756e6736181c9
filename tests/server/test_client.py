"""How a backend is found, and when it is not."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from indexer.workspace import Workspace
from server.client import BackendUnavailable, find_backend, read_backend, start_backend, stop_backend


@pytest.fixture
def workspace(tmp_path):
    place = Workspace(tmp_path)
    (place.make_state_folder() / "token").write_text("secret\n")
    return place


def announce(workspace, **about):
    started = psutil.Process(about.get("pid", os.getpid())).create_time()
    known = {"pid": os.getpid(), "process_started": started, "url": "http://127.0.0.1:9"}
    (workspace.state / "backend.json").write_text(json.dumps(known | about))


def test_a_backend_that_says_it_lives_is_read(workspace):
    announce(workspace)
    found = read_backend(workspace)
    assert (found.url, found.pid) == ("http://127.0.0.1:9", os.getpid())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"pid": "x", "url": 3}', '{"pid": 999999999, "url": "http://x"}']
)
def test_what_is_no_backend_is_none(text, workspace):
    (workspace.state / "backend.json").write_text(text)
    assert read_backend(workspace) is None


def test_a_process_that_only_has_the_number_is_not_the_backend_and_is_not_stopped(workspace):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        announce(workspace, pid=other.pid, process_started=psutil.Process(other.pid).create_time() - 3600)
        assert read_backend(workspace) is None
        assert stop_backend(workspace) is False
        assert other.poll() is None
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()


async def test_a_backend_that_does_not_answer_is_not_found(workspace):
    announce(workspace)
    assert await find_backend(workspace) is None


async def test_a_backend_that_cannot_start_says_why(workspace):
    (workspace.root / "nightschool.toml").write_text("[server]\nport = 'x'\n")
    with pytest.raises(BackendUnavailable, match=r"\[server\] port"):
        await start_backend(workspace)


def test_a_backend_that_is_started_in_a_repository_imports_nothing_of_it(workspace):
    """`python -m` puts the current folder first on the path, and editors start us in the repository."""
    for name in ("secrets", "json", "token", "server", "trainer", "indexer", "nightschool", "uvicorn"):
        (workspace.root / f"{name}.py").write_text("raise SystemExit('code of the repository ran')\n")
    workspace.settings_file.write_text('[server]\nengine_url = "http://127.0.0.1:9/v1"\n')
    start = (
        "import asyncio, sys; from pathlib import Path; from indexer.workspace import Workspace\n"
        "from server.client import start_backend\n"
        "async def start(): await (await start_backend(Workspace(Path(sys.argv[1])))).close()\n"
        "asyncio.run(start())"
    )
    command = [sys.executable, "-P", "-c", start, str(workspace.root)]
    started = subprocess.run(command, cwd=workspace.root, capture_output=True, text=True, timeout=120)
    assert (started.returncode, stop_backend(workspace)) == (0, True), started.stderr


def test_no_child_of_ours_has_the_current_folder_on_its_path():
    root = Path(__file__).parents[2]
    modules = [path for package in ("indexer", "server", "trainer") for path in (root / package).rglob("*.py")]
    bare = re.compile(r'(sys\.executable,|= \()\s*"-m", "')
    # Ray's pipeline is started in our own folder.
    assert [path.name for path in modules if bare.search(path.read_text("utf-8"))] == ["cluster.py"]
