"""The loop itself: one repository, one backend with a real vLLM, shared by the three flows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest


@pytest.fixture(scope="session")
def repository(sdist: Path, tmp_path_factory: pytest.TempPathFactory, make_git) -> Path:
    folder = tmp_path_factory.mktemp("loop") / "itsdangerous"
    shutil.copytree(sdist, folder)
    # Eager: ready in half the time, and what is tested is the same.
    (folder / "nightschool.toml").write_text("[server]\nmodel = 'smollm2-135m'\neager = true\nmax_tokens = 48\n")
    make_git(folder)
    return folder


@pytest.fixture(scope="session")
def backend(repository: Path):
    """A running backend: its url, token and an HTTP client; ended by its own process group."""
    log = (repository.parent / "serve.log").open("wb")
    command = [sys.executable, "-m", "nightschool", "serve", "--workspace", str(repository)]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    state = repository / ".nightschool"
    try:
        wait_until((state / "backend.json").exists, 60, "the backend does not answer", process)
        url = json.loads((state / "backend.json").read_text())["url"]
        token = (state / "token").read_text().strip()
        http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=400, trust_env=False)
        wait_until(lambda: http.get("/readyz").status_code == 200, 400, "the engine is not ready", process)
        yield SimpleNamespace(url=url, token=token, http=http, process=process)
        http.close()
        # The hard end: a backend killed with SIGKILL must leave no engine behind.
        recorded = [pid for pid, _ in json.loads((state / "engines.json").read_text())]
        groups = [pid for pid in recorded if psutil.pid_exists(pid)]
        assert groups
        process.kill()
        wait_until(lambda: not members(groups), 30, "an engine outlived its backend")
    finally:
        process.kill()
        process.wait()
        log.close()


def members(groups: list[int]) -> list[int]:
    """Living processes of the process groups `groups`."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) in groups and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found


def wait_until(predicate, seconds: float, otherwise: str, process=None) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if predicate():
            return
        assert process is None or process.poll() is None, f"{otherwise}: it ended with {process.returncode}"
        time.sleep(0.2)
    pytest.fail(f"{otherwise} after {seconds:.0f} s")


@pytest.fixture(scope="session")
def wait():
    return wait_until
