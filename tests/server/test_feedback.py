"""Feedback: off by default; what is on is written without secrets, for its owner only, and can be erased for good."""

import json
from dataclasses import replace

import pytest

from indexer.workspace import Workspace
from server.feedback import Exchange, Feedback, FeedbackError, UnknownAnswer

ASKED = {"question": "where is é 🙂?", "path": "app.py"}
EXCHANGE = Exchange("a1", "2026-01-01T00:00:00+00:00", "q?", "It is\r\nthere. 🙂", None, "c0ffee", None, "scripted")
# Put together here, so that no scanner takes this file for a leak.
SECRET = "gh" + "p_" + "Z9x8" * 9


@pytest.fixture
def feedback(workspace):
    return Feedback(workspace)


async def test_by_default_nothing_is_written(client, feedback):
    async with client() as http:
        answered = (await http.post("/ask", json=ASKED)).json()
        refused = await http.post("/feedback", json={"id": answered["id"], "kept": True})
        assert (await http.get("/readyz")).json()["feedback"] is False
    assert refused.status_code == 403
    assert "[server] feedback = true" in refused.json()["error"]["message"]
    assert not feedback.file.exists()


async def test_asked_answered_kept_and_edited_are_written_down(client, feedback):
    async with client(feedback=True) as http:
        answered = (await http.post("/ask", json=ASKED)).json()
        streamed = await http.post("/ask", json=ASKED, headers={"Accept": "text/event-stream"})
        chat = {"messages": [{"role": "user", "content": "and then?"}]}
        chatted = (await http.post("/v1/chat/completions", json=chat)).json()
        for body in ({"id": answered["id"], "kept": True}, {"id": chatted["id"], "edited": "It is in go."}):
            assert (await http.post("/feedback", json=body)).status_code == 204
    first, second, third = feedback.read()
    texts, weights = ("where is é 🙂?", "It is in run [1].", "app.py"), ("2026-01-01-0000-abc", "scripted")
    assert replace(first, asked_at="") == Exchange(answered["id"], "", *texts, "c0ffee", *weights, kept=True)
    assert json.loads(streamed.text.split("data: ")[-1])["id"] == second.id
    assert (third.question, third.kept, third.edited) == ("and then?", None, "It is in go.")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "nobody", "kept": True}, 404),
        ({"id": "nobody"}, 400),
        ({"id": "nobody", "kept": None}, 400),
        ({"kept": True}, 400),
        ({"id": "nobody", "kept": True, "stars": 5}, 400),
    ],
)
async def test_feedback_on_nothing_is_refused(body, status, client):
    async with client(feedback=True) as http:
        assert (await http.post("/feedback", json=body)).status_code == status


def test_secrets_are_masked_before_anything_is_written(feedback):
    told = f"token = {SECRET}"
    feedback.note_answer(replace(EXCHANGE, question=told, answer=told))
    feedback.note_verdict("a1", None, told)
    (written,) = feedback.read()
    assert {written.question, written.answer, written.edited} == {"token = <secret:github-token>"}
    assert SECRET.encode() not in feedback.file.read_bytes()


def test_a_later_word_leaves_what_was_said_before(feedback):
    feedback.note_answer(EXCHANGE)
    feedback.note_verdict("a1", False, None)
    feedback.note_verdict("a1", None, "better")
    assert feedback.read() == [replace(EXCHANGE, kept=False, edited="better")]
    with pytest.raises(UnknownAnswer, match="b2"):
        feedback.note_verdict("b2", True, None)


def test_only_the_owner_reads_it(feedback):
    feedback.note_answer(EXCHANGE)
    assert feedback.file.stat().st_mode & 0o777 == 0o600


def test_what_was_erased_is_not_on_the_disk_any_more(feedback):
    feedback.note_answer(replace(EXCHANGE, question="xyzzyquux"))
    assert b"xyzzyquux" in feedback.file.read_bytes()
    assert feedback.erase() == 1
    assert feedback.read() == []
    assert b"xyzzyquux" not in feedback.file.read_bytes()


def test_a_damaged_file_is_one_clear_error_and_erasing_mends_it(feedback, workspace):
    workspace.make_state_folder()
    feedback.file.write_bytes(b"no database " * 1000)
    with pytest.raises(FeedbackError, match="nightschool feedback erase"):
        feedback.read()
    assert feedback.erase() == 0
    feedback.note_answer(EXCHANGE)
    assert feedback.read() == [EXCHANGE]


async def test_an_answer_comes_though_its_record_cannot_be_written(client, feedback, workspace):
    workspace.make_state_folder()
    feedback.file.write_bytes(b"no database " * 1000)
    async with client(feedback=True) as http:
        assert (await http.post("/ask", json=ASKED)).json()["answer"] == "It is in run [1]."


def test_the_command_shows_exports_and_erases(cli, tmp_path):
    feedback = Feedback(Workspace(tmp_path))
    for number in range(3):
        feedback.note_answer(replace(EXCHANGE, id=f"a{number}", question=f"question {number} é"))
    feedback.note_verdict("a1", True, None)
    where = ("--workspace", str(tmp_path))
    shown = json.loads(cli("feedback", "show", "--json", "-n", "1", *where).stdout)
    assert {name: shown[name] for name in ("on", "asked", "kept", "not_kept", "edited")} == {
        "on": False, "asked": 3, "kept": 1, "not_kept": 0, "edited": 0,
    }  # fmt: skip
    assert [e["question"] for e in shown["newest"]] == ["question 2 é"]
    lines = cli("feedback", "export", *where).stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a0", "a1", "a2"]
    assert cli("feedback", "erase", *where, stdin="n\n").returncode == 1
    assert len(feedback.read()) == 3
    assert cli("feedback", "erase", "--yes", *where).stdout == "erased 3 exchanges\n"
    assert feedback.read() == []
