"""The questions of benchmarks/answers.py: their answers stand in the repository, and are told from wrong ones."""

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def questions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("answer_questions")


@pytest.fixture
def tasks(questions, sdist):
    return {task.text: task for task in questions.load_tasks({"itsdangerous": sdist})}


def test_every_answer_stands_in_the_syntax_tree(tasks):
    assert len(tasks) == 54
    assert tasks["Which file defines TimestampSigner?"].expected == "timed.py"
    assert tasks["Which separator does Signer use by default?"].expected == "b'.'"
    assert tasks["What does load_payload raise when the payload is not valid?"].expected == "BadPayload"
    assert {task.expected for task in tasks.values() if task.kind == "nothing"} == {""}


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("Which file defines TimestampSigner?", "In `src/itsdangerous/timed.py` [1].", "In signer.py."),
        ("Which separator does Signer use by default?", 'sep: str | bytes = b".",', 'sep=b","'),
        ("What is the default of errors in want_bytes?", "The default is `strict`.", "It is `None`, not `strict`."),
        ("Which exception does base64_decode raise?", "BadData", "BadDataError"),
    ],
)
def test_right_answers_are_told_from_wrong_ones(question, right, wrong, questions, tasks):
    task = tasks[question]
    assert (questions.holds(task, right), questions.holds(task, wrong)) == (True, False)


def test_a_locator_that_the_tree_does_not_bear_out_is_refused(questions, tmp_path):
    (tmp_path / "a.py").write_text("def f(x=1):\n    raise ValueError\n")
    for kind, locator in (("exception", "a.py:f!KeyError"), ("file", "a.py:g"), ("default", "a.py:Y")):
        with pytest.raises(ValueError, match=r"raises|not defined|assigned nowhere"):
            questions._expected(tmp_path, kind, locator)


def test_the_first_that_is_named_counts_and_the_questions_own_names_do_not(questions, tasks):
    task = tasks["Which exception does Signer.unsign raise when the signature does not match?"]
    rivals = frozenset({"BadData", "Signer", "BadPayload"})
    assert questions.names_first(task, "Signer.unsign raises BadSignature, never BadData.", rivals)
    assert not questions.names_first(task, "It raises BadData or BadSignature.", rivals)
