"""The items of a proof: newer than what was trained on, the same each time, none of it in its own context."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from trainer.proof import choose_snapshot, elsewhere_items, held_out_items, next_day_items
from trainer.sources.history import History, NoHistory
from trainer.sources.snapshot import take_snapshot

OLD = "def total(prices):\n    return sum(prices)\n\n\n"
NEW = "def café(prix):\r\n    return total(prix)  # 🌍\r\n"


@pytest.fixture
def three_days(git_workspace: tuple[Path, Callable[..., str]]) -> tuple[Path, list[str]]:
    root, commit = git_workspace
    shas = [commit(1, {"shop/a.py": OLD, "shop/b.py": OLD})]
    shas.append(commit(2, {"shop/a.py": OLD + NEW}))
    shas.append(commit(3, {"shop/b.py": OLD + "LIMIT = 1\n", "logo.png": "\0"}))
    return root, shas


def texts_of(root: Path) -> dict[str, str]:
    return {file.path: file.text for file in take_snapshot(Workspace(root), IndexerSettings()).files}


def test_the_snapshot_is_the_newest_commit_that_leaves_enough_to_prove_on(three_days: tuple[Path, list[str]]) -> None:
    root, (first, second, _) = three_days
    texts = texts_of(root)
    assert choose_snapshot(History(root), texts, 5) == second
    assert choose_snapshot(History(root), texts, 40) == first
    assert choose_snapshot(History(root), texts, 5, proof_files=2) == first
    with pytest.raises(NoHistory, match="the last 3 commits add less than 10000 bytes of source in 1 files"):
        choose_snapshot(History(root), texts, 10_000)


def test_next_day_items_are_the_added_lines_after_what_stood_before_them(three_days: tuple[Path, list[str]]) -> None:
    root, (first, _, third) = three_days
    snapshot = take_snapshot(Workspace(root), IndexerSettings(), first)
    added = History(root).added_lines(first, third)
    items = next_day_items(added, texts_of(root), snapshot, 10_000)
    assert {item.cluster: item.text for item in items} == {"shop/a.py": NEW, "shop/b.py": "LIMIT = 1\n"}
    assert {item.context for item in items} == {f"- File: shop/{name}.py\nContent:\n{OLD}" for name in "ab"}
    assert all("café" not in item.passages and "LIMIT" not in item.passages for item in items)
    assert items == next_day_items(list(reversed(added)), texts_of(root), snapshot, 10_000)
    assert len(next_day_items(added, texts_of(root), snapshot, 1)) == 1


def test_without_newer_code_the_middles_of_held_out_files_are_predicted() -> None:
    text = "".join(f"line {number}\n" for number in range(100))
    (item,) = held_out_items({"a.py": text, "b.py": "short", "c.py": text}, ["a.py", "b.py", "gone.py"], 5_000)
    assert text.find(item.text) == text.find(item.context.split("Content:\n")[1]) + len(
        item.context.split("Content:\n")[1]
    )


def test_elsewhere_is_the_same_code_on_every_machine_with_this_python() -> None:
    items = elsewhere_items(4_000)
    assert len(items) >= 5
    assert items == elsewhere_items(4_000)
    assert {item.kind for item in items} == {"elsewhere"}
