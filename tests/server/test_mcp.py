"""The Model Context Protocol, read by the official client: over stdio, and under /mcp behind the same gate."""

import asyncio
import os
import sys
from types import SimpleNamespace

import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from indexer.workspace import Workspace
from server.auth import read_or_make_token
from server.client import stop_backend
from server.engine import EngineError
from server.generation import GenerationError

HIDDEN = "\u200b\u202e\U000e0041"
TEXT = "line é 1\r\nline 🙂 2\r\nline 3"
FILES = SimpleNamespace(read=lambda path: TEXT if path == "app.py" else f"a{HIDDEN}b" if path == "hidden.py" else None)


@pytest.fixture
def agent(live, workspace):
    """An official client of a live backend's /mcp: `async with agent(model) as client`."""

    def connect(model=None, **settings):
        return _Connected(live, read_or_make_token(workspace), model, settings)

    return connect


class _Connected:
    def __init__(self, live, token, model, settings):
        self.live, self.token, self.model, self.settings = live, token, model, settings

    async def __aenter__(self):
        self.server = self.live(self.model, index=FILES, **self.settings)
        http = await self.server.__aenter__()
        headers = {"Authorization": f"Bearer {self.token}"}
        self.http = httpx2.AsyncClient(headers=headers, timeout=10, trust_env=False)
        transport = streamable_http_client(f"{str(http.base_url).rstrip('/')}/mcp", http_client=self.http)
        self.client = Client(transport)
        return await self.client.__aenter__()

    async def __aexit__(self, *failure):
        await self.client.__aexit__(*failure)
        await self.http.aclose()
        await self.server.__aexit__(*failure)


async def test_an_agent_sees_tools_that_only_read(agent):
    async with agent() as client:
        tools = (await client.list_tools()).tools
        templates = (await client.list_resource_templates()).resource_templates
    assert sorted(tool.name for tool in tools) == ["ask", "read_passage", "search_code"]
    assert {(t.annotations.read_only_hint, t.annotations.destructive_hint) for t in tools} == {(True, False)}
    assert [template.uri_template for template in templates] == ["code://{+path}"]


async def test_an_agent_searches_reads_and_asks(agent):
    told = []

    async def progress(so_far, total, message):
        told.append(so_far)

    async with agent() as client:
        found = await client.call_tool("search_code", {"query": "run"})
        read = await client.call_tool("read_passage", {"path": "app.py", "start_line": 2, "end_line": 9})
        asked = await client.call_tool("ask", {"question": "where?"}, progress_callback=progress)
        whole = await client.read_resource("code://app.py")
    assert [p["path"] for p in found.structured_content["passages"]] == ["app.py"]
    assert read.structured_content["text"] == "line 🙂 2\r\nline 3"
    assert (read.structured_content["start_line"], read.structured_content["end_line"]) == (2, 3)
    assert asked.structured_content["answer"] == "It is in run [1]."
    assert asked.structured_content["citations"][0]["verified"] is True
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == len("It is in run [1].")
    assert whole.contents[0].text == TEXT


@pytest.mark.parametrize(
    "path", ["nothing.py", "../../etc/passwd", "/etc/passwd", "app.py/../../x", ".nightschool/token"]
)
async def test_only_indexed_files_can_be_read(path, agent):
    async with agent() as client:
        assert (await client.call_tool("read_passage", {"path": path})).is_error
        with pytest.raises(MCPError):
            await client.read_resource(f"code://{path}")


async def test_what_is_wrong_is_said_to_the_agent(agent, scripted):
    async with agent(scripted(["It ", GenerationError("the engine broke off")])) as client:
        failed = await client.call_tool("ask", {"question": "where?"})
        wrong = await client.call_tool("search_code", {"query": "x", "k": 1000})
    assert failed.is_error
    assert "the engine broke off" in failed.content[0].text
    assert wrong.is_error
    async with agent(EngineError("it is starting")) as client:
        without = await client.call_tool("ask", {"question": "where?"})
    assert "it is starting" in without.structured_content["notices"][0]


async def test_an_agent_that_leaves_stops_the_model(agent, slow_model):
    model = slow_model(writes_at_once=True)
    async with agent(model) as client:
        asking = asyncio.create_task(client.call_tool("ask", {"question": "where?"}))
        await asyncio.wait_for(model.begun.wait(), 5)
        asking.cancel()
        await asyncio.wait_for(model.stopped.wait(), 1)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Host": "attacker.example"}, 421),
        ({"Origin": "http://attacker.example"}, 403),
    ],
)
async def test_the_gate_stands_before_agents_too(headers, status, live):
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    async with live() as http:
        right = {"Accept": "application/json, text/event-stream"}
        assert (await http.post("/mcp", json=call, headers={**right, **headers})).status_code == status
        assert (await http.post("/mcp", json=call, headers=right)).status_code == 200


@pytest.mark.timeout(300)
async def test_over_stdio_it_is_a_client_of_the_backend_that_it_starts(tmp_path):
    (tmp_path / "vault.py").write_text("def open_vault(code):\n    return code == 4711\n")
    (tmp_path / "nightschool.toml").write_text("[server]\nmodel = 'smollm2-135m'\nengine_memory_gib = 100000\n")
    arguments = ["-m", "nightschool", "mcp", "--workspace", str(tmp_path)]
    command = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    try:
        async with Client(command) as client:
            async with asyncio.timeout(120):
                while not (found := await client.call_tool("search_code", {"query": "open_vault"})).structured_content[
                    "passages"
                ]:
                    await asyncio.sleep(0.2)
            read = await client.read_resource("code://vault.py")
            outside = await client.call_tool("read_passage", {"path": "../secret.txt"})
            # The engine is given no memory: the answer comes without a model, and says so.
            asked = await client.call_tool("ask", {"question": "open_vault?"})
        assert found.structured_content["passages"][0]["path"] == "vault.py"
        assert read.contents[0].text.startswith("def open_vault")
        assert outside.is_error
        assert asked.structured_content["passages"][0]["path"] == "vault.py"
    finally:
        stop_backend(Workspace(tmp_path))
