"""The HTTP edge over a scripted model: shapes, refusals, streams. The real engine answers in tests/e2e."""

import json

import pytest
from openai import APIError, AsyncOpenAI, NotFoundError

from server.adapter import UnknownAdapter
from server.auth import read_or_make_token
from server.engine import EngineError
from server.generation import GenerationError

URL = "http://127.0.0.1:8000"


def openai_client(client):
    return AsyncOpenAI(
        base_url=f"{URL}/v1", api_key=client.headers["Authorization"][7:], http_client=client, max_retries=0
    )


async def test_ask_gives_the_whole_answer_as_json(client):
    async with client() as http:
        body = (await http.post("/ask", json={"question": "where?"})).json()
    assert body["answer"] == "It is in run [1]."
    citation = {"index": 1, "path": "app.py", "start_line": 1, "end_line": 2, "commit": "c0ffee", "verified": True}
    assert body["citations"] == [citation | {"sha256": body["passages"][0]["sha256"], "repository": ""}]
    assert body["passages"][0]["index"] == 1
    assert body["freshness"]["commit"] == "c0ffee"
    assert (body["adapter"], body["base_model"], body["notices"]) == ("2026-01-01-0000-abc", "scripted", [])
    assert (body["groundedness"], "explanation" in body) == (1.0, False)


async def test_ask_streams_its_pieces_then_the_whole_answer(client):
    async with client() as http:
        response = await http.post("/ask", json={"question": "where?"}, headers={"Accept": "text/event-stream"})
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    events = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]
    assert [name for name, _ in events[:-1]] == ["text"] * (len(events) - 1)
    assert (len(events) > 2, events[-1][0]) == (True, "done")
    assert "".join(data["delta"] for name, data in events if name == "text") == events[-1][1]["answer"]


async def test_the_openai_client_reads_answers_and_streams(client):
    async with client() as http:
        openai = openai_client(http)
        messages = [{"role": "user", "content": "where?"}]
        whole = await openai.chat.completions.create(model="nightschool", messages=messages)
        assert whole.choices[0].message.content == "It is in run [1]."
        assert whole.model_extra["nightschool"]["freshness"]["commit"] == "c0ffee"
        assert whole.choices[0].message.annotations[0].type == "file_citation"
        assert whole.usage.completion_tokens == 2
        stream = await openai.chat.completions.create(
            model="nightschool", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "It is in run [1]."
    assert chunks[-1].usage.total_tokens == 12
    assert any("passages" in (c.model_extra.get("nightschool") or {}) for c in chunks)


async def test_every_door_explains_an_answer_when_asked(client):
    async with client() as http:
        asked = (await http.post("/ask", json={"question": "where?", "explain": True})).json()
        whole = await openai_client(http).chat.completions.create(
            model="nightschool",
            messages=[{"role": "user", "content": "where?"}],
            extra_body={"nightschool": {"explain": True}},
        )
    explanation = asked["explanation"]
    assert whole.model_extra["nightschool"]["explanation"] == explanation
    assert whole.model_extra["nightschool"]["groundedness"] == asked["groundedness"] == 1.0
    assert [turn["role"] for turn in explanation["prompt"]] == ["system", "user"]
    assert "def run():" in explanation["prompt"][-1]["content"]
    assert (explanation["written"], explanation["scores"]) == ("It is in run [1].", [1.0])


async def test_a_failure_in_the_middle_is_an_error_event_and_never_done(client, scripted):
    broken = scripted(["It ", GenerationError("the engine broke off")])
    async with client(broken) as http:
        openai = openai_client(http)
        stream = await openai.chat.completions.create(
            model="nightschool", messages=[{"role": "user", "content": "where?"}], stream=True
        )
        with pytest.raises(APIError, match="broke off"):
            async for _ in stream:
                pass
        asked = await http.post("/ask", json={"question": "where?"}, headers={"Accept": "text/event-stream"})
    assert asked.text.rstrip().endswith('event: error\ndata: {"message": "the engine broke off"}')


async def test_an_unknown_model_is_404_in_openais_shape(client):
    async with client(UnknownAdapter("no adapter xyz: known are none")) as http:
        with pytest.raises(NotFoundError, match="no adapter xyz"):
            await openai_client(http).chat.completions.create(
                model="xyz", messages=[{"role": "user", "content": "where?"}]
            )


async def test_an_engine_that_is_down_still_gives_the_passages(client):
    async with client(EngineError("it is starting")) as http:
        body = (await http.post("/ask", json={"question": "where?"})).json()
    assert (body["answer"], body["base_model"], len(body["passages"])) == ("", "", 1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
async def test_what_is_not_done_here_is_refused_by_name(change, field, client):
    body = {"model": "nightschool", "messages": [{"role": "user", "content": "q?"}]} | change
    async with client() as http:
        response = await http.post("/v1/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, field)


async def test_an_unknown_field_of_our_own_shape_is_refused(client):
    async with client() as http:
        response = await http.post("/ask", json={"question": "q?", "questoin": "x"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "questoin")


async def test_every_route_but_the_public_ones_asks_for_the_token(client):
    async with client(authorised=False) as http:
        paths = [
            (method, route.path.replace("{version}", "x"))
            for route in http._transport.app.routes
            for method in (route.methods or {"GET", "POST", "DELETE"}) - {"HEAD"}
        ]
        assert len(paths) > 10
        refused = {path for method, path in paths if (await http.request(method, path)).status_code == 401}
    assert {path for _, path in paths} - refused == {"/healthz", "/ui", "/ui/page/{name}", "/ui/report"}


@pytest.mark.parametrize(
    "header",
    [b"Bearer", b"Bearer ", b"Basic eA==", b"Bearer wrong", "Bearer é🙂".encode(), b"bearer x" * 1000],
)
async def test_a_hostile_token_is_refused(header, client):
    async with client(authorised=False) as http:
        response = await http.get("/freshness", headers=[(b"authorization", header)])
    assert response.status_code == 401


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example", "", "localhost@evil", "[::2]:80"])
async def test_a_foreign_host_is_refused(host, client):
    async with client() as http:
        assert (await http.get("/healthz", headers={"Host": host})).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:9"])
async def test_a_loopback_host_is_answered(host, client):
    async with client() as http:
        assert (await http.get("/healthz", headers={"Host": host})).json() == {"ok": True}


async def test_a_foreign_page_is_refused(client):
    async with client() as http:
        foreign = await http.get("/healthz", headers={"Origin": "http://attacker.example"})
        ours = await http.get("/healthz", headers={"Origin": URL})
    assert (foreign.status_code, ours.status_code) == (403, 200)


async def test_a_body_that_is_too_long_is_refused_declared_or_not(client):
    async def endless():
        for _ in range(100):
            yield b"x" * 1000

    async with client(body_bytes=10_000) as http:
        declared = await http.post("/ask", content=b"x" * 20_000)
        undeclared = await http.post("/ask", content=endless())
    assert (declared.status_code, undeclared.status_code) == (413, 413)


async def test_one_question_too_many_is_told_to_come_back(client):
    async with client(queue=1) as http:
        app = http._transport.app
        first = app.state.queue.held(_forever(), "owner")
        await anext(first)
        response = await http.post("/ask", json={"question": "q?"})
        await first.aclose()
        after = await http.post("/ask", json={"question": "q?"})
    assert (response.status_code, response.headers["Retry-After"], after.status_code) == (429, "5", 200)


async def _forever():
    while True:
        yield None


def test_a_token_that_others_can_read_is_closed_to_them_and_told_in_one_line(workspace, caplog):
    token = read_or_make_token(workspace)
    assert caplog.records == []
    (workspace.state / "token").chmod(0o644)
    assert read_or_make_token(workspace) == token
    assert (workspace.state / "token").stat().st_mode & 0o777 == 0o600
    (said,) = caplog.messages
    assert "could be read by others (mode 644)" in said
    assert "\n" not in said


async def test_the_token_is_kept_and_only_its_owner_reads_it(workspace):
    token = read_or_make_token(workspace)
    assert token == read_or_make_token(workspace)
    assert (workspace.state / "token").stat().st_mode & 0o777 == 0o600
    assert len(token) >= 43
