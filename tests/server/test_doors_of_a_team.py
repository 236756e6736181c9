"""A user who may not read a repository gets nothing from it by any door: what is hidden is as what never was."""

import json
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import httpx2
import numpy as np
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from safetensors.numpy import save_file

from indexer.opened import open_any_index
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from server.access import ROUTES, Who, find_route
from server.adapter import UnknownAdapter, finish_adapter
from server.auth import read_or_make_token
from server.backend import Backend, IndexKeeper, _doors
from server.backoff import EngineState
from server.engine import EngineError
from server.http import make_app
from server.routing import adapters_for
from server.settings import ServerSettings
from server.team import Rights, add_member, revoke

VERSION = "2026-11-20-0230-abc1234"
CODE = "def open_vault(code):\n    # the combination of the vault door\n    return code == 4711\n"
# Of what only the hidden repository holds, whatever could give it away.
SECRETS = ("4711", "combination", VERSION, "vault.md")


class TinyEmbedder:
    name = "tiny"

    def embed(self, texts):
        counts = np.array([[1 + text.count(letter) for letter in "aeinrst "] for text in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


class Lending:
    """A serving that lends a scripted model, and writes down of which version."""

    def __init__(self, scripted):
        self.state = EngineState("ready", f"adapter {VERSION} could not be started")
        self.adapter = VERSION
        self.base_model = SimpleNamespace(
            name="scripted", fim=SimpleNamespace(prefix="", suffix="", middle=""), parameters=0
        )
        self.scripted, self.lent, self.models, self.fault = scripted, [], [], ""

    @asynccontextmanager
    async def borrow(self, version=None):
        self.lent.append(version)
        if self.fault:
            raise EngineError(self.fault)
        if version not in (None, "none", VERSION):
            raise UnknownAdapter(f"no adapter {version!r}; known: {VERSION}")
        model = self.scripted(adapter={None: VERSION, "none": None}.get(version, version))
        model.complete = lambda prompt, sampling: model.generate((), sampling)
        self.models.append(model)
        yield model


def make_adapter(workspace):
    staging = workspace.adapters / ".staging"
    staging.mkdir(parents=True)
    save_file({"layer.lora_A.weight": np.ones((2, 3), np.float32)}, staging / "adapter_model.safetensors")
    (staging / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    (staging / "report.html").write_text("<p>learnt: 4711</p>")
    base = {"name": "smollm2-135m", "revision": "1", "sha256": "ab" * 32}
    created = datetime(2026, 11, 20, 2, 30, tzinfo=UTC)
    return finish_adapter(
        staging,
        workspace.adapters,
        {"version": VERSION, "created_at": created, "base_model": base, "prompt_version": 1},
    )


def keep_night(workspace):
    nights = workspace.state / "nights"
    nights.mkdir()
    night = {"night": "2026-11-20-023001", "outcome": "promoted", "version": VERSION, "reason": "4711 better"}
    for name in ("2026-11-20-023001.json", "last_night.json"):
        (nights / name).write_text(json.dumps(night))


def write_fleet(place, make_git):
    """A fleet of two repositories, `closed` with the vault and `open` (of the group web) without it."""
    for name in ("closed", "open"):
        (place / name).mkdir(parents=True)
    write_vault(place / "closed")
    (place / "open" / "shop.py").write_text("def sell(price):\n    # what the customer pays\n    return price * 2\n")
    for name in ("closed", "open"):
        make_git(place / name)
    (place / "fleet").mkdir()
    tables = [
        f"[[fleet.repositories]]\nname = '{name}'\nsource = '../{name}'\ngroup = '{group}'\n"
        for name, group in (("closed", "vaults"), ("open", "web"))
    ]
    (place / "fleet" / "nightschool.toml").write_text("".join(tables))
    return Workspace((place / "fleet").resolve())


def write_vault(folder):
    (folder / "vault.py").write_text(CODE)
    (folder / "vault.md").write_text("# The vault\n\nThe combination is secret.\n")


@pytest.fixture(params=["one repository", "a fleet"])
def house(request, tmp_path, scripted, make_git):
    """An application over a real index, an adapter and a night.

    anna may read the repository with the vault; bob another one, which in a fleet is there.
    """
    if request.param == "a fleet":
        workspace, annas, bobs = (
            write_fleet(tmp_path, make_git),
            Rights(everything=True),
            Rights(groups=frozenset({"web"})),
        )
    else:
        workspace, annas, bobs = Workspace(tmp_path), Rights(frozenset({tmp_path.name})), Rights(frozenset({"other"}))
        write_vault(tmp_path)
        make_git(tmp_path)
    make_adapter(workspace)
    keep_night(workspace)
    with open_any_index(workspace, IndexerSettings(), TinyEmbedder()) as index:
        index.update()
        serving, settings = Lending(scripted), ServerSettings(feedback=True)
        doors = _doors(index, serving, settings, lambda: adapters_for({}, {}, None))
        backend = Backend(workspace, settings, IndexKeeper(index, ""), serving, doors)
        tokens = {
            "owner": read_or_make_token(workspace),
            "anna": add_member(workspace, "anna", annas),
            "bob": add_member(workspace, "bob", bobs),
        }
        is_fleet = request.param == "a fleet"
        yield SimpleNamespace(
            app=make_app(backend, tokens["owner"]), serving=serving, tokens=tokens, workspace=workspace,
            is_fleet=is_fleet, prefix="closed/" if is_fleet else "",
        )  # fmt: skip


@pytest.fixture
def ask_as(house):
    """`async with ask_as("bob") as http`: a client of the application with that user's token."""

    def make(name):
        headers = {"Authorization": f"Bearer {house.tokens[name]}"}
        transport = httpx.ASGITransport(house.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)

    return make


def chat(text, model="nightschool", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


OPEN = "def open_vault(): ...\n"


def tries(prefix):
    """(method, path, what is sent): everything by which one could try to get at the vault."""
    file, explained = f"{prefix}vault.py", {"path": f"{prefix}vault.py", "explain": True}
    earlier = [
        {"role": "user", "content": f"what is in {file}?"},
        {"role": "assistant", "content": f"open_vault, in {file}"},
    ]
    return [
        ("GET", "/search", {"q": "the door of the vault"}),
        ("GET", "/search", {"q": "open_vault"}),
        ("GET", "/search", {"q": file}),
        ("GET", "/search", {"q": '"return code"'}),
        ("GET", "/search", {"q": r"/code == \d+/"}),
        ("GET", "/code", {"path": file}),
        ("GET", "/code", {"path": "vault.py"}),
        ("GET", "/code", {"path": f"./{file}", "start_line": 2}),
        ("GET", "/code", {"path": f"open/../{file}"}),
        ("GET", "/index/explain", {"path": file}),
        ("GET", "/index/explain", {"path": "../x"}),
        ("GET", "/index/explain", {"path": f"open/../../{file}"}),
        ("GET", "/index/explain", {"path": "/etc/passwd"}),
        ("GET", "/freshness", {}),
        ("GET", "/readyz", {}),
        ("GET", "/adapters", {}),
        ("GET", "/v1/models", {}),
        ("GET", "/nights", {}),
        ("GET", "/nights/last", {}),
        ("POST", "/ask", {"question": f"what does open_vault in {file} return?", "explain": True}),
        ("POST", "/ask", {"question": "what is returned?", **explained}),
        ("POST", "/ask", {"question": "and open_vault?", "overlays": {file: OPEN}, "explain": True}),
        ("POST", "/ask", {"question": "open_vault?", "buffer": OPEN, **explained}),
        ("POST", "/ask", {"question": "and what does it return?", "conversation": earlier, "explain": True}),
        ("POST", "/ask", {"question": "open_vault?", "retrieval": False, "explain": True}),
        ("POST", "/ask", {"question": "open_vault?", "adapter": "2026-11-20"}),
        ("POST", "/v1/chat/completions", chat("what does open_vault return?", nightschool=explained)),
        ("POST", "/v1/chat/completions", chat("open_vault?", stream=True)),
        ("POST", "/v1/completions", {"prompt": "def open_", "suffix": ""}),
        ("POST", "/v1/embeddings", {"input": "open_vault", "model": "tiny"}),
        # By what a citation is called: its number, its place, the id of an answer.
        ("POST", "/ask", {"question": f"show [1], {file}:2", "conversation": earlier, "explain": True}),
        ("POST", "/feedback", {"id": "0" * 24, "kept": True}),
        ("POST", "/ui/render", {"text": f"It is in [1], see {file}:2.", "passages": 1}),
        ("POST", "/ui/code", {"text": "", "path": file}),
        ("GET", "/openapi.json", {}),
    ]


async def send(http, method, path, what):
    return await (http.get(path, params=what) if method == "GET" else http.post(path, json=what))


def test_every_door_that_is_open_to_users_is_tried():
    tried = {find_route(method, path) for method, path, _ in tries("")}
    team = {f"{route.method} {route.pattern}" for route in tried if route and route.who is Who.TEAM}
    assert {name for name, who in ROUTES.items() if who is Who.TEAM} - team == {"* /mcp"}  # has tests of its own below


async def test_nothing_of_what_is_hidden_comes_by_any_door(ask_as, house):
    said = {}
    for name in ("anna", "bob"):
        async with ask_as(name) as http:
            said[name] = "\n".join([(await send(http, *one)).text for one in tries(house.prefix)])
    # The same tries give all of it to who may read it.
    assert [secret for secret in SECRETS if secret not in said["anna"]] == []
    assert [secret for secret in (*SECRETS, str(house.workspace.root.parent)) if secret in said["bob"]] == []
    assert ("customer pays" in said["bob"]) == house.is_fleet


async def test_no_model_reads_it_nor_is_one_that_learnt_it_asked_for_bob(ask_as, house):
    async with ask_as("bob") as http:
        for one in tries(house.prefix):
            await send(http, *one)
    assert "none" in house.serving.lent
    assert {None, VERSION} & set(house.serving.lent) == set()
    read = str([messages for model in house.serving.models for messages in model.seen])
    assert "open_vault" in read  # what bob wrote himself
    assert [secret for secret in SECRETS if secret in read] == []


def without_measures(answer, *names):
    """An answer without what differs each time; each of the names it was asked by put out of sight."""
    text = answer.text
    for number, name in enumerate(names):
        text = text.replace(name, f"NAME{number}")
    # Ids, and the fences around what was found, which are a hash of all of it.
    text = re.sub(r"\b[0-9a-f]{8,}\b", "HASH", text)
    return answer.status_code, re.sub(r'"(took_ms|timings_ms|created)": ?(\d[\d.]*|\{[^}]*\})', "", text)


# The first stands in the hidden repository, the second nowhere: alike for the embedder, which counts letters.
THERE, NOWHERE = "vault", "tavul"
BY_NAME = [
    ("GET", "/search", lambda p, n: {"q": f"open_{n}"}),
    ("GET", "/search", lambda p, n: {"q": f"{p}{n}.py"}),
    ("GET", "/search", lambda p, n: {"q": f'"open_{n}"'}),
    ("GET", "/search", lambda p, n: {"q": f"/open_{n[0]}{n[1:]}/"}),
    ("GET", "/code", lambda p, n: {"path": f"{p}{n}.py"}),
    ("GET", "/index/explain", lambda p, n: {"path": f"{p}{n}.py"}),
    ("POST", "/ask", lambda p, n: {"question": f"where is open_{n} in {p}{n}.py?", "explain": True}),
    ("POST", "/ask", lambda p, n: {"question": f"is `{p}{n}.md` there?", "path": f"{p}{n}.py"}),
    ("POST", "/ask", lambda p, n: {"question": f"write a test of open_{n}", "explain": True}),
    ("POST", "/ask", lambda p, n: {"question": f"what is open_{n}?", "overlays": {f"{p}{n}.py": f"open_{n} = 1\n"}}),
    ("POST", "/ask", lambda p, n: {"question": f"open_{n}?", "path": f"{p}{n}.py", "buffer": f"open_{n} = 1\n"}),
    ("POST", "/v1/chat/completions", lambda p, n: chat(f"what does open_{n} do?", nightschool={"path": f"{p}{n}.py"})),
]


async def different(http, first, second):
    """What of BY_NAME is answered differently for one (prefix, name) and for another."""
    found = []
    for method, path, what in BY_NAME:
        said = [
            without_measures(await send(http, method, path, what(prefix, name)), prefix or "\0", name)
            for prefix, name in (first, second)
        ]
        if said[0] != said[1]:
            found.append(what("P/", "N"))
    return found


async def test_a_hidden_name_looks_like_one_that_does_not_exist(ask_as, house):
    async with ask_as("bob") as http:
        assert await different(http, (house.prefix, THERE), (house.prefix, NOWHERE)) == []
    async with ask_as("anna") as http:
        assert len(await different(http, (house.prefix, THERE), (house.prefix, NOWHERE))) == len(BY_NAME)


@pytest.mark.parametrize("house", ["a fleet"], indirect=True)
async def test_a_hidden_repository_looks_like_one_that_does_not_exist(ask_as, house):
    async with ask_as("bob") as http:
        assert await different(http, ("closed/", THERE), ("scoled/", THERE)) == []


@pytest.mark.parametrize("house", ["a fleet"], indirect=True)
async def test_what_may_be_read_beside_it_is_searched_and_cited_as_before(ask_as, house):
    async with ask_as("bob") as http:
        found = (await http.get("/search", params={"q": "what the customer pays"})).json()["passages"]
        assert {passage["path"] for passage in found} == {"open/shop.py"}
        asked = (await http.post("/ask", json={"question": "what does sell in open/shop.py return?"})).json()
        assert [(c["repository"], c["verified"]) for c in asked["citations"]] == [("open", True)]
        assert asked["adapter"] is None  # the adapter has learnt both
        assert (await http.get("/freshness")).json()["files"] == 1
    async with ask_as("anna") as http:
        assert (await http.get("/freshness")).json()["files"] == 3
        read = (await http.post("/ask", json={"question": "what does open_vault return?"})).json()
        assert read["adapter"] == VERSION
    lines = [json.loads(line) for line in (house.workspace.logs / "audit.jsonl").read_text().splitlines()]
    told = [(one["user"], one["route"], one["repositories"]) for one in lines]
    assert told[:2] == [("bob", "/search", ["open"]), ("bob", "/ask", ["open"])]
    assert told[-1] == ("anna", "/ask", ["closed", "open"])


@pytest.mark.parametrize("house", ["a fleet"], indirect=True)
async def test_an_adapter_of_a_fleet_is_for_those_who_may_read_everything_that_ever_was_in_it(ask_as, house):
    house.tokens["carl"] = add_member(house.workspace, "carl", Rights(frozenset({"open", "closed"})))
    async with ask_as("carl") as http:
        asked = (await http.post("/ask", json={"question": "what does open_vault return?"})).json()
        assert "closed/vault.py" in [passage["path"] for passage in asked["passages"]]
        assert asked["adapter"] is None
        assert (await http.post("/ask", json={"question": "?", "adapter": VERSION})).status_code == 404


@pytest.mark.parametrize("house", ["a fleet"], indirect=True)
async def test_a_repository_that_is_gone_is_told_without_its_folder_and_only_to_who_may_read_it(
    ask_as, house, tmp_path
):
    (tmp_path / "closed").rename(tmp_path / "moved")
    said = {}
    for name in ("owner", "anna", "bob"):
        async with ask_as(name) as http:
            asked = [await http.post("/ask", json={"question": "what does sell return?"}), await http.get("/freshness")]
            said[name] = "".join(one.text for one in asked)
    assert str(tmp_path) in said["owner"]
    assert "closed: it cannot be asked now" in said["anna"]
    assert str(tmp_path) not in said["anna"]
    assert "closed" not in said["bob"]
    assert "open/shop.py" in said["bob"]


async def test_an_adapter_that_learnt_it_is_one_that_does_not_exist(ask_as):
    async with ask_as("bob") as http:
        for path, body in (
            ("/ask", lambda version: {"question": "?", "adapter": version}),
            ("/v1/chat/completions", lambda version: chat("?", version)),
        ):
            kept, never = [
                await http.post(path, json=body(version)) for version in (VERSION, "2026-01-01-0000-abc0000")
            ]
            assert (kept.status_code, never.status_code) == (404, 404)
            assert kept.text.replace(VERSION, "V") == never.text.replace("2026-01-01-0000-abc0000", "V")
        models = [model["id"] for model in (await http.get("/v1/models")).json()["data"]]
        assert models == ["nightschool", "scripted"]
        assert (await http.get("/adapters")).json() == {"in_service": None, "adapters": []}
    async with ask_as("anna") as http:
        assert (await http.post("/ask", json={"question": "?", "adapter": VERSION})).json()["adapter"] == VERSION
        assert VERSION in [model["id"] for model in (await http.get("/v1/models")).json()["data"]]


async def test_why_an_engine_fails_is_not_told_to_who_may_not_know_its_adapters(ask_as, house):
    house.serving.fault = f"adapter {VERSION} could not be merged; see {house.workspace.logs}"
    question = {"question": "what does sell return?" if house.is_fleet else "open_vault?"}
    async with ask_as("bob") as http:
        said = (await http.post("/ask", json=question)).text
    assert "No model answers now (the engine does not answer now)" in said
    assert VERSION not in said
    async with ask_as("anna") as http:
        assert VERSION in (await http.post("/ask", json=question)).text


async def test_an_answer_belongs_to_who_asked(ask_as, house):
    async with ask_as("anna") as http:
        ids = [(await http.post("/ask", json={"question": "open_vault?"})).json()["id"] for _ in range(2)]
    async with ask_as("bob") as http:
        theirs, never = [await http.post("/feedback", json={"id": one, "kept": True}) for one in (ids[0], "0" * 24)]
        assert (theirs.status_code, never.status_code) == (404, 404)
        assert theirs.text.replace(ids[0], "ID") == never.text.replace("0" * 24, "ID")
    async with ask_as("anna") as http:
        assert (await http.post("/feedback", json={"id": ids[0], "kept": True})).status_code == 204
    async with ask_as("owner") as http:
        assert (await http.post("/feedback", json={"id": ids[1], "kept": False})).status_code == 204


async def test_a_link_to_a_report_ends_with_the_right_to_read_it(ask_as, house):
    async with ask_as("anna") as http:
        link = (await http.get("/nights")).json()["nights"][0]["report"]
    async with ask_as("bob") as http:
        assert (await http.get("/nights")).json() == {"nights": [], "last": None, "running": None}
        assert "4711" in (await http.get(link)).text  # whoever has the address, as before
        assert (await http.get(link.replace("anna", "bob"))).status_code == 404
        assert (await http.get(link.replace("anna", "owner"))).status_code == 404
        revoke(house.workspace, "anna")
        assert (await http.get(link)).status_code == 404


@asynccontextmanager
async def agent_of(house, live_app, name):
    async with live_app(house.app) as url:
        headers = {"Authorization": f"Bearer {house.tokens[name]}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=10, trust_env=False) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
        ):
            yield client


async def test_an_agent_gets_what_its_user_may_read_and_no_more(house, live_app):
    hidden, never = f"{house.prefix}vault.py", f"{house.prefix}tavul.py"
    async with agent_of(house, live_app, "bob") as client:
        found = await client.call_tool("search_code", {"query": "open_vault"})
        read = [await client.call_tool("read_passage", {"path": path}) for path in (hidden, never)]
        asked = await client.call_tool("ask", {"question": "what does open_vault return?", "path": hidden})
        with pytest.raises(MCPError):
            await client.read_resource(f"code://{hidden}")
        if house.is_fleet:
            assert "customer" in (await client.read_resource("code://open/shop.py")).contents[0].text
    assert [one.is_error for one in read] == [True, True]
    assert read[0].content[0].text.replace("vault", "N") == read[1].content[0].text.replace("tavul", "N")
    assert asked.structured_content["adapter"] is None
    assert [secret for secret in SECRETS if secret in f"{found}{asked}"] == []
    assert set(house.serving.lent) <= {"none"}


async def test_an_agent_of_who_may_read_gets_it(house, live_app):
    hidden = f"{house.prefix}vault.py"
    async with agent_of(house, live_app, "anna") as client:
        found = await client.call_tool("search_code", {"query": "open_vault"})
        read = await client.read_resource(f"code://{hidden}")
        asked = await client.call_tool("ask", {"question": "what does open_vault return?"})
    assert hidden in [passage["path"] for passage in found.structured_content["passages"]]
    assert "4711" in read.contents[0].text
    assert asked.structured_content["adapter"] == VERSION
