"""The retrieval benchmarks that need no labels: what they ask, what they take away, and how they count."""

import os
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from indexer.chunking import Chunk

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module


def chunk(path, start_line=1, end_line=50):
    return Chunk(path, start_line, end_line, "python", "", (), "")


PYTHON = '''@cache
def area(radius):
    """Compute how much a circle covers.

    More of it.
    """
    square = radius**2
    return 3 * square


def silent(x):
    return x
'''
GO = """package shop

// Sell takes one thing off the shelf for good.
// It is quick.
func Sell(name string) error {
	shelf.take(name)
	return nil
}

func other() {
}
"""


@pytest.mark.parametrize(
    ("path", "text", "sentence", "lines"),
    [
        ("a.py", PYTHON, "Compute how much a circle covers.", ["def area(radius):", "    return 3 * square"]),
        ("a.go", GO, "Sell takes one thing off the shelf for good.", ["func Sell(name string) error {", "}"]),
    ],
)
def test_a_description_is_taken_out_and_its_function_is_found_in_the_rest(path, text, sentence, lines, benchmark):
    docstrings = benchmark("docstrings")
    taken = docstrings.descriptions(path, text)
    bare, [(first, last)] = docstrings.without(text, taken)
    assert [one.sentence for one in taken] == [sentence]
    assert sentence not in bare
    assert "More of it" not in bare
    assert "It is quick" not in bare
    assert [bare.split("\n")[first - 1], bare.split("\n")[last - 1]] == lines


def test_a_sentence_that_stands_twice_is_no_question(tmp_path, benchmark):
    (tmp_path / "tree").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "tree" / "a.py").write_text(PYTHON)
    (tmp_path / "tree" / "b.py").write_text(PYTHON)
    (tmp_path / "tree" / "c.py").write_text(PYTHON.replace("circle", "disc"))
    asked = benchmark("docstrings").ask_without(tmp_path / "tree", tmp_path / "bare", 10)
    assert [(one.text, one.targets) for one in asked] == [
        ("Compute how much a disc covers.", ({"path": "c.py", "start_line": 2, "end_line": 4},))
    ]
    assert '"""' not in (tmp_path / "bare" / "a.py").read_text()


@pytest.fixture
def git(tmp_path):
    settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]

    def run(*arguments):
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env={**os.environ, **settings})
        return done.stdout.decode().strip()

    run("init", "-q")
    return run


def test_a_commit_asks_for_the_files_that_it_changed_and_that_were_there(tmp_path, git, benchmark):
    def commit(subject, **files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        git("add", ".")
        git("commit", "-q", "-m", subject)

    commit("begin with é and two files", é="1", b="1")
    base = git("rev-parse", "HEAD")
    commit("make the first one better", é="2")
    commit("bump to 2", b="2")
    commit("add what was not there", c="1")
    commit("change all of them now", é="3", b="3", c="3")
    commits = benchmark("commits")
    assert [(one.text, one.targets) for one in commits.commits_after(tmp_path / ".git", base, 2)] == [
        ("make the first one better", ("é.py",)),
        ("change all of them now", ("b.py", "é.py")),
    ]
    commits.export(tmp_path / ".git", base, tmp_path / "old")
    assert {file.name: file.read_text() for file in (tmp_path / "old").iterdir()} == {"é.py": "1", "b.py": "1"}


def test_the_measures_count_files_passages_and_lines(benchmark):
    measures = benchmark("unlabelled")
    found = [chunk("a.py"), chunk("a.py", 51, 90), chunk("b.py", 1, 20), chunk("b.py", 21, 40)]
    lines = {"path": "b.py", "start_line": 30, "end_line": 35}
    assert measures.recall(found, ["b.py", "c.py"]) == 0.5
    assert measures.reciprocal_rank(found, ["b.py", "c.py"]) == 1 / 2
    assert measures.passage_rank(found, [lines]) == 1 / 4
    assert measures.passage_rank(found, ["c.py"]) == 0


def test_the_floor_finds_the_window_that_has_the_rare_word(benchmark):
    windows = benchmark("windows").Windows({"a.py": "x = 1\n" * 60 + "needle = 2\n", "b.py": "x = 1\n" * 30})
    assert [(one.path, one.start_line, one.end_line) for one in windows.search("needle x", 1)] == [("a.py", 51, 61)]
    assert windows.search("nothing", 5) == []
