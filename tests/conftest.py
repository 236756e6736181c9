"""What the tests share: a real repository that nobody here wrote, and the command line as its users run it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parent.parent
# A well-known package, pinned: 8 modules, tests, and documentation, small enough to train on in seconds.
SDIST = ("itsdangerous", "2.2.0")
PRIVATE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "120"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files anew; review the difference")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quick tests first: what starts a real engine or training comes last."""
    items.sort(key=lambda item: item.get_closest_marker("engine") is not None)


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution, fetched by pip once."""
    folder = tmp_path_factory.mktemp("sdist")
    name, version = SDIST
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--dest",
        str(folder),
    ]
    subprocess.run([*pip, f"{name}=={version}"], check=True, capture_output=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"{name}-{version}"


@pytest.fixture(scope="session")
def cli():
    """Runs `nightschool ARGUMENTS` in a process of its own; the finished process with its text."""

    def run(*arguments: str, cwd: Path | None = None, timeout_s: float = 300, stdin: str = "", **env: str):
        return subprocess.run(
            [sys.executable, "-m", "nightschool", *arguments],
            cwd=cwd,
            env={**os.environ, **PRIVATE, **env},
            capture_output=True,
            text=True,
            input=stdin,
            timeout=timeout_s,
        )

    return run


@pytest.fixture(scope="session")
def make_git():
    """Makes a git repository of a folder, with one commit; its hash."""

    def git(folder: Path, *arguments: str) -> str:
        who = ["-c", "user.name=A. Tester", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
        command = ["git", "-C", str(folder), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def make(folder: Path) -> str:
        git(folder, "init", "--quiet")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "Begin")
        return git(folder, "rev-parse", "HEAD")

    make.git = git
    return make


class ChromaServer:
    """A real `chroma run` on loopback, in a process group of its own. It keeps its port and folder over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        chroma = Path(sys.executable).with_name("chroma")
        command = [str(chroma), "run", "--path", str(self.folder), "--host", "127.0.0.1", "--port", str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, "chroma run has ended"
            assert time.monotonic() < deadline, "chroma run does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.address}/api/v2/heartbeat", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


@pytest.fixture(scope="session")
def chroma_server() -> type[ChromaServer]:
    return ChromaServer


@pytest.fixture
def chroma(tmp_path: Path) -> Iterator[ChromaServer]:
    """A Chroma server that runs."""
    server = ChromaServer(tmp_path / "chroma-server")
    server.start()
    yield server
    server.kill()
