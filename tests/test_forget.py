"""`nightschool forget`: what people may call a thing, and what it does to the index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from indexer.quarantine import read_quarantine
from indexer.workspace import Workspace
from server.forget_command import CannotForget, name_target


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    root = (tmp_path / "work").resolve()
    (root / "src/sub").mkdir(parents=True)
    (root / "src/a.py").write_text("def okapi():\n    return 1\n")
    (root / "2989").write_text("a file with a number for a name\n")
    (root / "link").symlink_to("src")
    return Workspace(root)


@pytest.mark.parametrize(
    ("what", "target"),
    [
        ("#2989", ("source", "pr:2989")),
        ("PR #12", ("source", "pr:12")),
        ("pr:12", ("source", "pr:12")),
        ("!12", ("source", "pr:12")),
        ("12", ("source", "pr:12")),
        ("2989", ("path", "2989")),
        ("https://github.com/o/r/pull/12/files", ("source", "pr:12")),
        ("wiki:Release notes", ("source", "wiki:Release notes")),
        ("src/a.py", ("path", "src/a.py")),
        ("src/", ("path", "src")),
        ("src/sub/../a.py", ("path", "src/a.py")),
        ("gone/é.py", ("path", "gone/é.py")),
        ("link", ("path", "link")),
    ],
)
def test_what_people_call_a_thing(what: str, target: tuple[str, str], place: Workspace) -> None:
    assert name_target(place, what) == target


@pytest.mark.parametrize(
    ("what", "fault"),
    [("../x", "outside"), ("/etc/passwd", "outside"), (".", "whole workspace"), ("commit:zz", "no commit")],
)
def test_what_cannot_be_told_is_said(what: str, fault: str, place: Workspace) -> None:
    with pytest.raises(CannotForget, match=fault):
        name_target(place, what)


def test_a_path_is_named_from_the_folder_one_stands_in(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.root / "src")
    assert name_target(place, "a.py") == ("path", "src/a.py")


def test_a_commit_is_named_in_full(place: Workspace, make_git) -> None:
    sha = make_git(place.root)
    assert name_target(place, f"commit:{sha[:8]}") == ("source", f"commit:{sha}")


def test_forget_takes_a_file_out_of_the_index_and_undo_lets_it_in(cli, place: Workspace) -> None:
    root = str(place.root)
    assert json.loads(cli("index", "-w", root, "--json").stdout)["files"] == 2
    done = cli("forget", "src/a.py", "--why", "personal", "-w", root, "--json")
    assert json.loads(done.stdout) == {
        "name": "src/a.py", "kind": "path", "held": True, "there": True, "indexed_files": 1,
    }  # fmt: skip
    found = json.loads(cli("search", "okapi", "-w", root, "--json").stdout)["passages"]
    assert [passage["path"] for passage in found if passage["path"] == "src/a.py"] == []
    assert read_quarantine(place).paths == {"src/a.py": "personal"}
    assert "src/a.py" in cli("forget", "-w", root).stdout
    assert cli("forget", "src/a.py", "--undo", "-w", root).returncode == 0
    again = cli("forget", "src/a.py", "--undo", "-w", root)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "is not held" in again.stderr


def test_forgetting_a_pull_request_deletes_what_was_fetched_of_it(cli, place: Workspace) -> None:
    place.pulls.mkdir(parents=True)
    (place.pulls / "7.json").write_text("{}")
    done = cli("forget", "#7", "-w", str(place.root))
    assert (done.returncode, list(place.pulls.iterdir())) == (0, [])
    assert read_quarantine(place).sources == {"pr:7": ""}
