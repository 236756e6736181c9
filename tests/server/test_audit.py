"""The audit log: who read from what, in a private file that is bounded, and nothing of what was asked."""

import json
import logging

import pytest

from server.access import ROUTES
from server.audit import FILES_BEFORE, AuditLog
from server.auth import read_or_make_token
from server.team import Rights, add_member

SECRET = "xyzzyquux"


@pytest.fixture
def lines(workspace):
    def read():
        file = workspace.logs / "audit.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    return read


@pytest.fixture
def anna(workspace):
    name = workspace.root.name
    return {"Authorization": f"Bearer {add_member(workspace, 'anna', Rights(frozenset({name})), 100)}"}


async def test_a_line_says_who_read_from_what_and_how_it_ended(client, workspace, anna, lines):
    async with client() as http:
        asked = await http.post("/ask", json={"question": "where?"}, headers={**anna, "X-Request-Id": "r-1"})
        await http.get("/search", params={"q": "run"})
        await http.post("/index", headers=anna)
        await http.get("/search", params={"q": "run"}, headers={"Authorization": "Bearer no"})
    name, told = workspace.root.name, lines()
    assert [(one["user"], one["method"], one["route"], one["status"], one["repositories"]) for one in told] == [
        ("anna", "POST", "/ask", 200, [name]),
        ("owner", "GET", "/search", 200, [name]),
        ("anna", "POST", "/index", 403, []),
        (None, "GET", "/search", 401, []),
    ]
    assert (told[0]["answer"], told[0]["request"]) == (asked.json()["id"], "r-1")
    assert set(told[0]) == {"time", "user", "method", "route", "status", "repositories", "answer", "request"}
    assert (workspace.logs / "audit.jsonl").stat().st_mode & 0o777 == 0o600


async def test_a_streamed_answer_is_told_when_it_has_ended_with_its_id(client, anna, lines):
    async with client() as http:
        headers = {**anna, "Accept": "text/event-stream"}
        text = (await http.post("/ask", json={"question": "where?"}, headers=headers)).text
    done = json.loads(text.rsplit("data: ", 1)[1])
    assert [(one["answer"], one["status"]) for one in lines()] == [(done["id"], 200)]


async def test_nothing_of_what_is_asked_or_who_proves_it_stands_in_it(client, workspace, anna, scripted):
    model = scripted([f"It is {SECRET}."])
    async with client(model, trusted_proxy="127.0.0.1", user_header="X-User") as http:
        for route in ROUTES:
            method, path = route.replace("{version}", SECRET).replace("{name}", SECRET).replace("*", "POST").split(" ")
            body = {"question": SECRET, "path": SECRET, "input": SECRET, "prompt": SECRET, "text": SECRET}
            for headers in (anna, {"X-User": SECRET}, {"Authorization": f"Bearer {SECRET}"}, {}):
                await http.request(method, path, params={"q": SECRET, "path": SECRET}, json=body, headers=headers)
                await http.request(method, f"{path}/{SECRET}", json={"question": SECRET}, headers=headers)
                await http.request(
                    method, path, json={"question": SECRET}, headers={**headers, "X-Request-Id": f"a {SECRET}"}
                )
        await http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": SECRET}]}, headers=anna)
        await http.post("/ask", json={"question": SECRET, "overlays": {SECRET: SECRET}}, headers=anna)
    text = (workspace.logs / "audit.jsonl").read_text()
    assert text.count("\n") > 100
    assert SECRET not in text
    assert anna["Authorization"].split()[1] not in text
    assert read_or_make_token(workspace) not in text


async def test_it_is_written_while_there_is_a_team_and_not_before(client, workspace, lines):
    async with client() as http:
        await http.get("/search", params={"q": "run"})
        assert lines() == []
        add_member(workspace, "anna", Rights(everything=True))
        await http.get("/search", params={"q": "run"})
        assert len(lines()) == 1


async def test_what_is_asked_every_few_seconds_is_told_only_when_it_is_refused(client, anna, lines):
    async with client() as http:
        await http.get("/readyz", headers=anna)
        await http.get("/freshness", headers=anna)
        await http.get("/healthz", headers=anna)
        assert lines() == []
        await http.get("/metrics", headers=anna)
    assert [(one["user"], one["route"], one["status"]) for one in lines()] == [("anna", "/metrics", 403)]


def test_it_rotates_by_size_and_keeps_a_bounded_number_of_private_files(tmp_path):
    audit = AuditLog(tmp_path / "logs" / "audit.jsonl", most_bytes=300)
    for number in range(60):
        audit.write({"number": number, "filler": "x" * 80})
    files = sorted((tmp_path / "logs").iterdir(), key=lambda file: (len(file.name), file.name))
    assert [file.name for file in files[-FILES_BEFORE:]] == [f"audit.jsonl.{n}" for n in range(1, FILES_BEFORE + 1)]
    assert len(files) <= FILES_BEFORE + 1
    assert all(file.stat().st_size < 300 + 120 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    kept = [json.loads(line)["number"] for file in files[::-1] for line in file.read_text().splitlines()]
    assert sorted(kept) == list(range(60 - len(kept), 60))


def test_a_file_that_cannot_be_written_is_told_and_stops_nobody(tmp_path, caplog):
    (tmp_path / "logs").write_text("in the way")
    with caplog.at_level(logging.ERROR):
        AuditLog(tmp_path / "logs" / "audit.jsonl").write({"a": 1})
    assert "a line of the audit log was not written" in caplog.text
