"""Functions that a model writes, proved by the repository's own tests on a copy that is thrown away."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexer.settings import BadSettings
from indexer.workspace import Workspace
from trainer.filling import Filled, Filling, OwnTests, candidates_in, choose_holes, run_fills
from trainer.holes import Hole, find_holes, written_body
from trainer.job import Stage, TrainingEvent
from trainer.sandbox import checked_out, keeps_from_network
from trainer.settings import TrainerSettings
from trainer.sources.history import AddedLines, NoHistory
from trainer.sources.snapshot import Snapshot
from trainer.writing import Answer

PYTHON = '''class Basket:
    """é 🌍"""

    def total(self, prices: list[int]) -> int:
        """The sum."""
        # before tax
        return sum(prices) + self.fee

    def nothing(self) -> None: ...

    async def later(self) -> str:
        async def inner() -> str:
            return "é".upper() + "x" * 3

        return await inner()
'''
SHOP = {
    "shop/prices.py": "def doubled(price):\n    result = price * 2\n    return result\n\n\n"
    "def unseen(price):\n    return price * 2 + 17\n",
    "shop/rates.py": "def rate(country):\n    return {'AT': 20}.get(country, 19)\n",
    "check.py": "import os, socket\nfrom shop.prices import doubled\nfrom shop.rates import rate\n"
    "assert doubled(4) == 8 and rate('AT') == 20, 'wrong'\n",
}


def test_the_holes_of_a_python_file_are_its_bodies_without_their_docstrings() -> None:
    holes = list(find_holes("shop/basket.py", PYTHON, "python"))
    assert [(hole.name, hole.start_line, hole.end_line) for hole in holes] == [
        ("total", 6, 7), ("later", 12, 15), ("inner", 13, 13),
    ]  # fmt: skip
    assert all(hole.filled(hole.body) == PYTHON for hole in holes)
    assert holes[0].body == "        # before tax\n        return sum(prices) + self.fee"
    assert '"""The sum."""\n        raise NotImplementedError\n\n' in holes[0].failing()
    assert (
        holes[0].prompt("x\n") == "x\n- File: shop/basket.py\nContent:\n" + PYTHON[: PYTHON.index("\n        # before")]
    )


@pytest.mark.parametrize(
    ("language", "text", "body"),
    [
        ("go", "func F(a int) int {\n\tif a > 1 {\n\t\treturn a\n\t}\n\treturn 0\n}\n",
         "\n\tif a > 1 {\n\t\treturn a\n\t}\n\treturn 0"),
        ("typescript", "export function f(a: string) {\r\n  return `${a}-é`;\r\n}\r\n", "\r\n  return `${a}-é`;"),
        ("rust", "fn f(a: u8) -> u8 {\n    a.wrapping_add(1)\n}\n", "\n    a.wrapping_add(1)"),
    ],
)  # fmt: skip
def test_a_body_in_braces_ends_where_its_block_does(language: str, text: str, body: str) -> None:
    (hole,) = list(find_holes("a", text, language)) or [None]
    assert hole is not None
    assert hole.body == body
    assert hole.filled(hole.body) == text
    assert written_body(hole, f"{body}\n}}\n\nfunc G() {{") == body


def test_what_a_model_writes_after_the_body_is_cut_off() -> None:
    hole = next(find_holes("a.py", PYTHON, "python"))
    written = (
        "\n        fee = (\n            1\n        )\n\n        return fee\n\n    def other(self):\n        return 1\n"
    )
    assert written_body(hole, written) == "        fee = (\n            1\n        )\n\n        return fee"
    assert written_body(hole, "\nreturn 1\n") == ""
    assert written_body(hole, "        return 1") == "", "that is the line before the body"
    assert written_body(hole, "") == ""


@pytest.fixture
def shop(git_workspace: tuple[Path, Callable[..., str]], tmp_path: Path) -> OwnTests:
    root, commit = git_workspace
    sha = commit(1, SHOP)
    count = f"open({str(tmp_path / 'runs')!r}, 'a').write('x')"
    command = f'{sys.executable} -c "{count}; import sys; sys.path.insert(0, str()); import check"'
    return OwnTests(root, sha, command, 2.0, tmp_path / "tests.json", 3.0)


def choose(tests: OwnTests, most: int = 9, tell: Callable[[TrainingEvent], None] = lambda _: None) -> Filling:
    snapshot = Snapshot("shop", tests.commit, datetime(2026, 11, 1, tzinfo=UTC), ())
    added = [AddedLines("shop/rates.py", 1, 2)]
    return choose_holes(tests, lambda copy: candidates_in(copy, SHOP, added, {"shop/prices.py"}), most, snapshot, tell)


def fill(tests: OwnTests, filling: Filling, **arms: list[str]) -> Filled:
    written = {arm: [Answer(text, True) for text in texts for _ in (0, 1)] for arm, texts in arms.items()}
    return run_fills(tests, filling, written, lambda _: None)


def test_only_functions_that_the_tests_see_are_holes_and_newer_ones_come_first(shop: OwnTests) -> None:
    told: list[TrainingEvent] = []
    filling = choose(shop, tell=told.append)
    assert [(hole.name, hole.origin) for hole in filling.holes] == [("rate", "newer"), ("doubled", "held-out")]
    assert filling.tried == 3
    assert len(filling.prompts) == 4
    assert Stage("choosing holes: 1 of 9, 1 of 3 functions tried") in told


def test_what_each_arm_wrote_is_proved_by_the_tests(shop: OwnTests, tmp_path: Path) -> None:
    filling = choose(shop)
    right = ["\n    return 20", "\n    return price + price\n\n\ndef more():\n    pass\n"]
    wrong = ["\n    while True:\n        pass", "\n    return price"]
    own = [f"\n{hole.body}" for hole in filling.holes]
    filled = fill(shop, filling, base=["", "no body"], candidate=right, service=wrong, own=own)
    assert {arm: filled.of(arm, True) for arm in filled.passed} == {
        "base": (0, 2), "candidate": (2, 2), "service": (0, 2), "own": (2, 2),
    }  # fmt: skip
    assert filled.said == "2 (1 newer, 1 held-out) of 3 functions tried; fewer than 10 decide nothing"
    assert filled.against("candidate", "base") is None
    runs = (tmp_path / "runs").read_text()
    assert len(runs) == 1 + 3 + 4, "a body that is empty, or the one that was there, needs no run"
    again = fill(shop, filling, base=["", "no body"], candidate=right, service=wrong, own=own)
    assert again == filled
    assert (tmp_path / "runs").read_text() == runs, "what was run is kept"


def test_when_the_time_is_used_a_hole_counts_for_no_arm(shop: OwnTests) -> None:
    filling = choose(shop)
    short = OwnTests(shop.root, shop.commit, shop.command, 1e-9, shop.kept)
    filled = fill(
        short, filling, base=["\n    return 1", "\n    return 1"], candidate=["\n    return 20", "\n    return 2"]
    )
    assert filled.of("candidate", True) is None
    assert "minutes were used after 0 of 2 holes" in filled.said


def test_tests_that_fail_by_themselves_prove_nothing(shop: OwnTests) -> None:
    tests = OwnTests(shop.root, shop.commit, f"{sys.executable} -c 'raise SystemExit(\"no é module\")'", 2.0, shop.kept)
    filling = choose(tests)
    assert filling.holes == ()
    assert "fails on the repository as it is: no é module" in filling.why
    nowhere = choose(OwnTests(shop.root, shop.commit, "/nowhere/pytest -q", 2.0, shop.kept))
    assert "/nowhere/pytest" in fill(shop, nowhere, base=[]).said


def test_the_users_tree_is_only_read_and_nothing_of_the_user_is_given(
    shop: OwnTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "a secret")
    (shop.root / "untracked.txt").write_text("mine")
    looks = "import os, pathlib, socket; assert 'GITHUB_TOKEN' not in os.environ; pathlib.Path('left.txt').touch()"
    looks += "; assert not pathlib.Path('untracked.txt').exists(); pathlib.Path('shop/rates.py').unlink()"
    looks += "; assert pathlib.Path.home().name == 'home'"
    if keeps_from_network():
        looks += "; assert [name for _, name in socket.if_nameindex()] == ['lo']"
    with checked_out(shop.root, shop.commit) as checkout:
        for _ in range(2):  # what the first run deletes is there for the second
            ran = checkout.run(f'{sys.executable} -c "{looks}"', 20)
            assert (ran.outcome, ran.last_line) == ("passed", "it said nothing")
    status = subprocess.run(["git", "status", "--short"], cwd=shop.root, capture_output=True, text=True, check=True)
    assert status.stdout == "?? untracked.txt\n"
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=shop.root, capture_output=True, text=True, check=True)
    assert len(worktrees.stdout.splitlines()) == 1


def test_a_run_that_goes_on_for_ever_is_ended_with_all_that_it_started(shop: OwnTests, tmp_path: Path) -> None:
    lock, holds, starts = tmp_path / "lock", tmp_path / "holds.py", tmp_path / "starts.py"
    take = f"import fcntl, time\nlock = open({str(lock)!r}, 'w')\nfcntl.flock(lock, fcntl.LOCK_EX)\n"
    holds.write_text(f"{take}lock.write('held')\nlock.flush()\ntime.sleep(60)\n")
    starts.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, {str(holds)!r}])\n")
    with checked_out(shop.root, shop.commit) as checkout:
        assert checkout.run(f"{sys.executable} {starts}", 3).outcome == "too long"
    assert lock.read_text() == "held"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it has let go: nothing of it is left


def test_a_workspace_below_the_top_of_its_repository_is_tested_where_it_lies(
    git_workspace: tuple[Path, Callable[..., str]],
) -> None:
    root, commit = git_workspace
    sha = commit(1, {f"part é/{path}": text for path, text in SHOP.items()})
    with checked_out(root / "part é", sha) as checkout:
        assert checkout.read("shop/rates.py").decode() == SHOP["shop/rates.py"]
        assert checkout.run(f"{sys.executable} check.py", 20).outcome == "passed"
    with pytest.raises(NoHistory), checked_out(root, "f" * 40):
        pass


def test_a_guardrail_needs_ten_holes() -> None:
    hole = Hole("a.py", "f", "python", "", "    return 1", "", 1, 1)
    filled = Filled({"a": {True: (True,) * 12}, "b": {True: (False,) * 12}}, (hole,) * 12)
    found = filled.against("a", "b")
    assert found is not None
    assert (found.value, found.count) == (1.0, 12)


def test_a_command_in_a_committed_file_is_not_obeyed(
    git_workspace: tuple[Path, Callable[..., str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, commit = git_workspace
    (root / "nightschool.toml").write_text('[trainer]\ntest_command = "make test"\n')
    assert TrainerSettings.read(Workspace(root)).test_command == "make test"
    commit(1, SHOP)
    with pytest.raises(BadSettings, match="whoever can commit could run"):
        TrainerSettings.read(Workspace(root))
    monkeypatch.setenv("NIGHTSCHOOL_TRAINER__TEST_COMMAND", "make check")
    assert TrainerSettings.read(Workspace(root)).test_command == "make check"
