"""What the night reads from git."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.sources.history import AddedLines, History, NoHistory


def test_added_lines_are_those_the_newer_commit_has(git_workspace: tuple[Path, Callable[..., str]]) -> None:
    root, commit = git_workspace
    old = commit(1, {"a.py": "one\ntwo\nthree\n", "gone.py": "x\n"})
    (root / "gone.py").unlink()
    new = commit(2, {"a.py": "one\nTWO\nthree\nfour é\nfive\n", "b c.py": "n\r\n"})
    assert History(root).added_lines(old, new) == [
        AddedLines("a.py", 2, 2),
        AddedLines("a.py", 4, 5),
        AddedLines("b c.py", 1, 1),
    ]


def test_each_line_has_the_date_of_its_last_change(git_workspace: tuple[Path, Callable[..., str]]) -> None:
    root, commit = git_workspace
    commit(1, {"a.py": "one\ntwo\n"})
    commit(2, {"a.py": "one\nTWO\n"})
    first, second = History(root).line_dates("HEAD", "a.py")
    assert second - first == 24 * 3600


def test_history_of_a_folder_is_that_of_the_folder(git_workspace: tuple[Path, Callable[..., str]]) -> None:
    root, commit = git_workspace
    old = commit(1, {"part/a.py": "one\n", "other/b.py": "b\n"})
    new = commit(2, {"part/a.py": "two\n", "other/b.py": "c\n"})
    part = History(root / "part")
    assert dict(part.files(new, 1000)) == {"a.py": b"two\n"}
    assert part.added_lines(old, new) == [AddedLines("a.py", 1, 1)]
    assert part.changes(new, 10) == {"a.py": [0, 1]}


def test_without_a_repository_or_a_commit_there_is_no_history(
    tmp_path: Path, git_workspace: tuple[Path, Callable[..., str]]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(NoHistory):
        History(bare).head()
    with pytest.raises(NoHistory):
        History(git_workspace[0]).head()
