"""What others could try: other addresses, other pages, too much, too slow, odd requests of every kind."""

import asyncio
from contextlib import suppress
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from indexer.index import open_index
from indexer.settings import IndexerSettings
from server.auth import Bucket, read_or_make_token
from server.fim_api import text_completion_json
from server.http import make_app
from server.run import CannotServe, check_host
from server.settings import ServerSettings


@pytest.mark.parametrize(
    ("host", "behind_tls", "said"),
    [
        ("127.0.0.1", (), ""), ("::1", (), ""), ("localhost", (), ""), ("0.0.0.0", ("code.example",), ""),
        ("0.0.0.0", (), "put a proxy with TLS"), ("::", (), "put a proxy with TLS"),
        ("192.168.1.7", ("code.example",), "give 127.0.0.1"),
    ],
)  # fmt: skip
def test_only_loopback_is_served_unless_a_proxy_with_tls_is_named(host, behind_tls, said):
    asked = ServerSettings(host=host, behind_tls=behind_tls)
    if not said:
        check_host(asked)
        return
    with pytest.raises(CannotServe, match=said):
        check_host(asked)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "code.example", "X-Forwarded-Proto": "https"}, 200),
        ({"Host": "code.example", "X-Forwarded-Proto": "https", "Origin": "https://code.example"}, 200),
        ({"Host": "code.example", "X-Forwarded-Proto": "https", "Origin": "http://code.example"}, 403),
        ({"Host": "code.example"}, 403),
        ({"Host": "code.example", "X-Forwarded-Proto": "http"}, 403),
        ({"Host": "other.example", "X-Forwarded-Proto": "https"}, 421),
        ({"Host": "code.example", "X-Forwarded-Proto": "https", "Authorization": "Bearer wrong"}, 401),
    ],
)
async def test_a_named_proxy_must_say_that_it_ended_tls_and_have_the_token(headers, status, client):
    async with client(behind_tls=("code.example",)) as http:
        assert (await http.get("/freshness", headers=headers)).status_code == status


async def test_beyond_the_rate_it_is_429_with_when_to_come_back(client):
    async with client(requests_per_minute=3) as http:
        answers = [await http.get("/freshness") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].headers["Retry-After"] == "20"
        assert (await http.get("/healthz")).status_code == 200


def test_the_rate_comes_back_evenly():
    now = [0.0]
    bucket = Bucket(60, lambda: now[0])
    assert sum(bucket.take() for _ in range(100)) == 60
    now[0] = 2.5
    assert sum(bucket.take() for _ in range(100)) == 2
    assert all(Bucket(0).take() for _ in range(1000))


async def test_a_hundred_slow_clients_keep_nobody_waiting(live):
    async with live() as http:
        slow = [await asyncio.open_connection("127.0.0.1", http.base_url.port) for _ in range(100)]
        for _, writer in slow:
            writer.write(b"POST /ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le")
        async with asyncio.timeout(2):
            assert (await http.post("/ask", json={"question": "where?"})).status_code == 200
        for _, writer in slow:
            writer.close()


async def test_no_path_asks_about_what_is_outside(app_of_everything):
    headers = {"Authorization": f"Bearer {app_of_everything.token}"}
    transport = httpx.ASGITransport(app_of_everything.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as http:
        for path in ("../../../../etc/passwd", "/etc/passwd", "a/../../x", ".."):
            told = await http.get("/index/explain", params={"path": path})
            assert "it is outside of" in told.json()["why"]
            assert (await http.get("/code", params={"path": path})).status_code == 404
        assert (await http.get("/code", params={"path": "app.py", "start_line": 2})).json()["text"] == "    return 1\n"


def test_a_secret_that_a_model_learnt_does_not_leave_in_a_completion():
    secret = "gh" + "p_" + "Z9x8" * 9
    whole = text_completion_json([f"key = '{secret[:20]}", f"{secret[20:]}'"], "nightschool")
    assert whole["choices"][0]["text"] == "key = '<secret:github-token>'"


async def test_the_description_is_complete(client):
    async with client() as http:
        schema = (await http.get("/openapi.json")).json()
        described = {(m.upper(), path) for path, item in schema["paths"].items() for m in item}
        served = {(m, r.path) for r in http._transport.app.routes for m in (r.methods or ()) if m != "HEAD"}
    kept_out = {path for _, path in served - described}
    assert {path for path in kept_out if not path.startswith("/ui")} == {"/openapi.json"}
    for item in schema["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            assert "422" not in operation["responses"]
            assert {"400", "401", "413", "421", "429", "503"} <= set(operation["responses"])


class TinyEmbedder:
    """Embeds a text as how often each of a few letters stands in it."""

    name = "tiny"

    def embed(self, texts):
        counts = np.array([[1 + text.count(letter) for letter in "aeinrst "] for text in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture
def app_of_everything(workspace, make_backend):
    (workspace.root / "app.py").write_text("def run():\n    return 1\n")
    with open_index(workspace, IndexerSettings(), TinyEmbedder()) as index:
        index.update()
        backend = make_backend(index=index, feedback=True, requests_per_minute=0)

        def refuse_borrow(version=None):
            raise AssertionError("nothing fills in the middle here")

        backend.serving.borrow = refuse_borrow
        yield SimpleNamespace(app=make_app(backend, read_or_make_token(workspace)), token=read_or_make_token(workspace))


@pytest.fixture
def described(app_of_everything):
    headers = {"Authorization": f"Bearer {app_of_everything.token}", "Host": "127.0.0.1"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", app_of_everything.app, headers=headers)
    schema.config.update(headers=headers)
    return schema


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.timeout(60)
def test_whatever_is_sent_is_answered_as_described(mode, described):
    tried = []

    def check(case):
        response = case.call()
        tried.append(case.operation.label)
        checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
        case.validate_response(response, checks=checks[1:] if response.status_code == 503 else checks)

    for found in described.get_all_operations():
        operation = found.ok()
        bounded = settings(
            max_examples=12, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        # An operation that takes nothing cannot be asked wrongly.
        with suppress(Unsatisfiable):
            bounded(given(case=operation.as_strategy(generation_mode=mode))(check))()
    assert len(set(tried)) >= 8
