"""The log: one line a request, findable by its id; nothing of what was asked or answered."""

import json
import logging
import re

import httpx
import pytest

from server.http import make_app
from server.logs import JsonLines, TextLines, hush


@pytest.fixture
def written():
    """Everything logged at INFO or above, as JSON and as text."""
    lines = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append((JsonLines().format(record), TextLines().format(record)))

    root, handler = logging.getLogger(), Keep(logging.INFO)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    hush()
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


async def test_a_requests_id_comes_back_and_stands_in_its_line(client, written):
    async with client() as http:
        response = await http.post("/ask", json={"question": "q?"}, headers={"X-Request-ID": "from-me.1"})
    assert response.headers["x-request-id"] == "from-me.1"
    as_json, as_text = written[-1]
    line = json.loads(as_json)
    assert {k: line[k] for k in ("level", "request_id", "method", "route", "status")} == {
        "level": "INFO", "request_id": "from-me.1", "method": "POST", "route": "/ask", "status": 200,
    }  # fmt: skip
    assert "[from-me.1]: POST /ask 200 in " in as_text


@pytest.mark.parametrize("given", [b"a b", b"x" * 65, b"", "é".encode(), b'{"level": 1}'])
async def test_an_unfit_id_is_replaced(given, client):
    async with client(authorised=False) as http:
        response = await http.get("/ask", headers=[(b"x-request-id", given)])
    assert response.status_code == 401
    assert re.fullmatch("[0-9a-f]{16}", response.headers["x-request-id"])


async def test_no_question_no_code_and_no_token_reaches_the_log(client, written, scripted):
    async with client(scripted(["canaryanswer"])) as http:
        token = http.headers["Authorization"][7:]
        body = {"question": "canaryquestion?", "buffer": "canarycode", "path": "canarypath.py"}
        for accept in ("application/json", "text/event-stream"):
            assert "canaryanswer" in (await http.post("/ask", json=body, headers={"Accept": accept})).text
        await http.get("/search", params={"q": "canaryquestion"})
        await http.post("/ask", json={"canaryfield": 1})
        await http.get("/canarypath")
    everything = "\n".join(line for pair in written for line in pair)
    assert len(written) >= 5
    assert "canary" not in everything
    assert token not in everything


async def test_what_editors_and_pages_ask_every_few_seconds_is_not_written(client, written):
    async with client() as http:
        often = ["/healthz", "/readyz", "/freshness", "/adapters", "/nights/last", "/metrics", "/ui/page/main.js"]
        answered = [(await http.get(path)).status_code for path in often]
        answered.append((await http.post("/ui/render", json={"text": "x"})).status_code)
        assert answered == [200] * 8
        assert written == []
        await http.get("/nights")
    assert len(written) == 1


async def test_a_backend_that_is_not_ready_does_not_fill_the_log_by_saying_so(make_backend, written):
    backend = make_backend()
    backend.keeper.reason = "the index is being read"
    transport = httpx.ASGITransport(make_app(backend, "token"))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        assert (await http.get("/readyz", headers={"Authorization": "Bearer token"})).status_code == 503
    assert written == []
