"""What the tests share: a real repository that nobody here wrote, and the command line as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

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
