"""The lock inside an engine: a few paths, with the key, and nothing else."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from server.engine_lock import PATHS, EngineLock

RIGHT = {"Authorization": "Bearer the-key"}


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "the-key")
    app = Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("in"), methods=["GET", "POST"])])
    app.add_middleware(EngineLock)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


async def test_its_backend_is_let_in_where_it_asks(engine):
    async with engine as http:
        assert {(await http.post(path, headers=RIGHT)).text for path in PATHS} == {"in"}


@pytest.mark.parametrize(
    "path",
    [
        "/adapters", "/adapters/v1", "/invocations", "/tokenize", "/health", "/docs", "/",
        "/collective_rpc", "/server_info", "/reset_prefix_cache", "/is_sleeping",  # they come with /sleep
    ],
)  # fmt: skip
async def test_what_the_backend_never_asks_for_is_closed_with_the_key_too(path, engine):
    async with engine as http:
        for method in ("GET", "POST", "OPTIONS"):
            assert (await http.request(method, path, headers=RIGHT)).status_code == 401


@pytest.mark.parametrize(
    "given", [{}, {"Authorization": "Bearer é"}, {"Authorization": "the-key"}, {"X-Key": "the-key"}]
)
async def test_without_the_key_nothing_is_open(given, engine):
    given = {name: value.encode() for name, value in given.items()}
    async with engine as http:
        assert {(await http.post(path, headers=given)).status_code for path in PATHS} == {401}
        assert (await http.options("/v1/load_lora_adapter", headers=given)).status_code == 401
        assert (await http.post("/v1/../adapters", headers=RIGHT)).status_code == 401
