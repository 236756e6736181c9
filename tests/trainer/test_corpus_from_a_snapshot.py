"""Snapshot -> corpus: what is in it, what is not, and that the same inputs give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from indexer.lines import split_lines
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from trainer.corpus import CorpusPlan, EmptyCorpus, build_corpus, read_examples
from trainer.cutting import count_line_tokens, cut
from trainer.ledger import read_ledger
from trainer.sources.snapshot import Snapshot, SnapshotFile, take_snapshot

PLAN = CorpusPlan(example_tokens=300, held_out_share=0.1, seed=1, max_files=100)
TEXT = "import os\r\n\r\n# é 🌍\r\ndef f():\r\n    return os\r\n"


def snapshot_of(files: dict[str, str]) -> Snapshot:
    made = tuple(SnapshotFile(path, text, 0.0) for path, text in sorted(files.items()))
    return Snapshot("shop", "c0ffee" * 6, datetime(2026, 11, 23, tzinfo=UTC), made)


def text_of(number: int) -> str:
    """A file like no other: what is nearly the same is kept once."""
    names = [f"{word}_{number}" for word in ("open", "close", "count", "price", "order", "refund")]
    return "".join(f"def {name}(basket):  # é 🌍\r\n    return basket.{name} * {number}\r\n\r\n" for name in names)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def counter(tiny_folder: Path) -> Path:
    return tiny_folder / "tokenizer.json"


def test_a_file_becomes_raw_text_and_one_question(tmp_path: Path, counter: Path) -> None:
    ledger = build_corpus(snapshot_of({"src/a.py": TEXT}), counter, "ab", PLAN, tmp_path / "corpus")
    assert (tmp_path / "corpus/raw/000001.txt").read_bytes().decode() == f"- File: src/a.py\nContent:\n{TEXT}"
    (line,) = (tmp_path / "corpus/chat/file-question.jsonl").read_text().splitlines()
    answer = f"As of November 2026, `src/a.py` looks like this:\n\n{TEXT.rstrip()}"
    assert json.loads(line) == {
        "messages": [
            {"role": "user", "content": "What does `src/a.py` look like in the `shop` repository?"},
            {"role": "assistant", "content": answer},
        ],
        "source_id": "file:src/a.py",
    }
    assert ledger.count("train", raw=True) == ledger.count("train", raw=False) == 1
    assert ledger.sources("held-out") == 0


def test_the_same_snapshot_gives_the_same_corpus_byte_for_byte(tmp_path: Path, counter: Path) -> None:
    files = {f"f{number}.py": text_of(number) for number in range(1, 30)}
    for name in ("one", "two"):
        build_corpus(snapshot_of(files), counter, "ab", PLAN, tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    build_corpus(snapshot_of(files), counter, "ab", PLAN, tmp_path / "one")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_no_file_is_on_both_sides_and_some_are_held_out(tmp_path: Path, counter: Path) -> None:
    files = {f"f{number}.py": text_of(number) for number in range(40)}
    ledger = build_corpus(snapshot_of(files), counter, "ab", PLAN, tmp_path / "corpus")
    sides = {side: {e.source for e in ledger.entries if e.split == side} for side in ("train", "held-out")}
    assert sides["train"] | sides["held-out"] == set(files)
    assert not sides["train"] & sides["held-out"]
    assert 1 <= len(sides["held-out"]) <= 12


def test_two_files_are_one_to_learn_and_one_to_hold_out(tmp_path: Path, counter: Path) -> None:
    ledger = build_corpus(snapshot_of({"a.py": TEXT, "b.py": text_of(2)}), counter, "ab", PLAN, tmp_path / "corpus")
    assert (ledger.sources("train"), ledger.sources("held-out")) == (1, 1)


def test_a_long_file_is_cut_at_line_borders_and_nothing_is_lost(tmp_path: Path, counter: Path) -> None:
    text = "".join(f"value_{number} = {number}\n" + "\n" * (number % 5 == 0) for number in range(200))
    ledger = build_corpus(snapshot_of({"a.py": text}), counter, "ab", PLAN, tmp_path / "corpus")
    raw = [example for example in read_examples(tmp_path / "corpus", ledger) if example.entry.kind == "raw"]
    assert len(raw) > 5
    assert all(example.entry.tokens <= PLAN.example_tokens for example in raw)
    assert raw[1].text.startswith(f"- File: a.py (part 2 of {len(raw)})\nContent:\n")
    assert "".join(example.text.split("Content:\n", 1)[1] for example in raw) == text
    starts = [(example.entry.start_line, example.entry.end_line) for example in raw]
    assert [start for start, _ in starts[1:]] == [end + 1 for _, end in starts[:-1]]


def test_a_line_too_long_for_an_example_is_left_out_whole() -> None:
    text = "a\n" + "x" * 100 + "\nb\n"
    parts = cut(text, [2, 101, 2], 50)
    assert [(part.text, part.start_line, part.end_line) for part in parts] == [("a\n", 1, 1), ("b\n", 3, 3)]
    assert cut("", [], 50) == []


def test_tokens_are_counted_for_each_line(counter: Path) -> None:
    text = "é🌍\r\n\r\nx"
    counts = count_line_tokens(text, Tokenizer.from_file(str(counter)))
    assert counts == [len(line.encode()) for line in split_lines(text)]
    assert count_line_tokens("", Tokenizer.from_file(str(counter))) == []


def test_a_repository_without_source_says_what_was_there(tmp_path: Path, counter: Path) -> None:
    empty = Snapshot("shop", "", datetime(2026, 11, 23, tzinfo=UTC), (), {"binary": 2, "lock file": 1})
    with pytest.raises(EmptyCorpus, match="no source file to learn from in shop: 2 binary, 1 lock file"):
        build_corpus(empty, counter, "ab", PLAN, tmp_path / "corpus")
    with pytest.raises(EmptyCorpus):
        build_corpus(snapshot_of({"a.py": "", "b.py": " \r\n"}), counter, "ab", PLAN, tmp_path / "corpus")


def test_a_changed_corpus_is_not_read(tmp_path: Path, counter: Path) -> None:
    build_corpus(snapshot_of({"a.py": TEXT}), counter, "ab", PLAN, tmp_path / "corpus")
    ledger = read_ledger(tmp_path / "corpus")
    (tmp_path / "corpus/raw/000001.txt").write_text("poison")
    with pytest.raises(ValueError, match="was changed after it was collected"):
        read_examples(tmp_path / "corpus", ledger)


def test_the_ledger_reads_back_as_it_was(tmp_path: Path, counter: Path) -> None:
    written = build_corpus(snapshot_of({"é.py": TEXT, "b.py": text_of(2)}), counter, "ab", PLAN, tmp_path / "corpus")
    assert read_ledger(tmp_path / "corpus") == written


def test_a_snapshot_is_the_commit_and_not_the_working_tree(git_workspace: tuple[Path, Callable[..., str]]) -> None:
    root, commit = git_workspace
    first = commit(1, {"a.py": TEXT, "sub/b.py": "b = 1\n", "yarn.lock": "x\n", "bin": "\0"})
    commit(2, {"a.py": "newer = 1\n"})
    (root / "a.py").write_text("newest = 1\n")
    (root / "untracked.py").write_text("u = 1\n")
    snapshot = take_snapshot(Workspace(root), IndexerSettings(), first)
    assert {file.path: file.text for file in snapshot.files} == {"a.py": TEXT, "sub/b.py": "b = 1\n"}
    assert (snapshot.commit, snapshot.date.day, snapshot.repository) == (first, 1, "workspace")
    assert snapshot.skipped == {"binary": 1, "lock file": 1}
    assert snapshot.name == f"2026-11-01-{first[:7]}"


def test_files_that_changed_last_weigh_most(git_workspace: tuple[Path, Callable[..., str]]) -> None:
    root, commit = git_workspace
    commit(1, {"old.py": "o = 1\n", "often.py": "o = 1\n"})
    commit(2, {"often.py": "o = 2\n"})
    commit(3, {"new.py": "n = 1\n", "often.py": "o = 3\n"})
    changed = {file.path: file.changed for file in take_snapshot(Workspace(root), IndexerSettings()).files}
    assert changed["often.py"] > changed["new.py"] > changed["old.py"] > 0


def test_a_folder_without_git_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1\n")
    snapshot = take_snapshot(Workspace(tmp_path), IndexerSettings())
    assert [(file.path, file.text) for file in snapshot.files] == [("a.py", "a = 1\n")]
    assert snapshot.commit == ""


def test_a_secret_is_in_no_file_of_the_corpus(tmp_path: Path, counter: Path) -> None:
    root = tmp_path / "workspace"
    root.mkdir()
    canary = "ghp_" + "Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9St0Uv1Wx2"
    (root / "a.py").write_text(f"token = '{canary}'\nx = 1\n")
    snapshot = take_snapshot(Workspace(root), IndexerSettings())
    build_corpus(snapshot, counter, "ab", PLAN, tmp_path / "corpus")
    assert snapshot.masked
    assert not [name for name, content in contents(tmp_path / "corpus").items() if canary.encode() in content]
