"""Two whole backends of one repository over one Chroma server, behind a router: killed under load, no wrong answer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager, nullcontext, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import httpx
import pytest
import uvicorn

from indexer.workspace import Workspace
from server.feedback import Feedback

HERE = Path(__file__).parent
FILES = 40
TOKEN = "the-token-that-both-backends-have"
SETTINGS = """\
[indexer]
chroma = "{chroma}"
[server]
engine_url = "http://127.0.0.1:{engine}/v1"
requests_per_minute = 0
feedback = true
queue = 200
"""


class Serving:
    """`nightschool serve` in a clone, in a process group of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.root / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nightschool", "serve", "--workspace", str(self.root)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"},
            )  # fmt: skip

    def wait(self, indexed: bool = True) -> None:
        """Until it answers, is ready, and (`indexed`) has every chunk in Chroma."""
        deadline = time.monotonic() + 180
        while not self._is_ready(indexed):
            assert self._process is not None
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def _is_ready(self, indexed: bool) -> bool:
        try:
            about = json.loads((self.root / ".nightschool/backend.json").read_text())
            if about["pid"] != self._process.pid:
                return False
            self.url = about["url"]
            with httpx.Client(base_url=self.url, headers=HEADERS, trust_env=False, timeout=5) as http:
                ready, fresh = http.get("/readyz").json(), http.get("/freshness").json()
        except (OSError, ValueError, httpx.HTTPError):
            return False
        is_stored = not ready["index"]["words_only"] and not fresh["waiting_chunks"] and fresh["files"] >= FILES
        return ready["ready"] and (is_stored or not indexed)

    def said(self) -> str:
        return (self.root / "serve.log").read_text()

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)
            self._process.wait(30)
            self._process = None


HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def chroma(chroma_server, tmp_path_factory):
    server = chroma_server(tmp_path_factory.mktemp("chroma"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """An engine that says "It is there." to everything; its port."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "mode").write_text("well")
    command = [sys.executable, str(HERE / "bad_engine.py"), "0", str(folder / "mode"), str(folder / "log")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    yield int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.fixture(scope="module")
def backends(chroma, engine, tmp_path_factory, make_git):
    """Two backends in two clones, begun together on an empty Chroma."""
    folder = tmp_path_factory.mktemp("clones").resolve()
    origin = folder / "origin"
    origin.mkdir()
    for number in range(FILES):
        body = f'def handler_{number}(request):\n    """Handle request {number}."""\n    return request.id + {number}\n'
        (origin / f"f{number}.py").write_text(body)
    make_git(origin)
    both = []
    for name in ("one", "two"):
        make_git.git(folder, "clone", "--quiet", str(origin), name)
        (folder / name / "nightschool.toml").write_text(SETTINGS.format(chroma=chroma.address, engine=engine))
        (folder / name / ".nightschool").mkdir(mode=0o700)
        (folder / name / ".nightschool/token").write_text(TOKEN)
        both.append(Serving(folder / name))
    for one in both:
        one.start()
    for one in both:
        one.wait()
    yield both
    for one in both:
        one.kill(signal.SIGTERM)


@asynccontextmanager
async def routed(backends):
    """The router on a socket, and a client of it."""
    spec = spec_from_file_location("router", HERE / "router.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    router = module.Router([one.url for one in backends])
    server = uvicorn.Server(uvicorn.Config(router, port=0, log_level="warning", lifespan="off", ws="none"))
    server.capture_signals = nullcontext
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=30, trust_env=False
    ) as http:
        yield router, http
    server.should_exit = True
    await running
    await router.close()


class Load:
    """Clients that ask without a pause, and look at every answer: right, an error, or wrong."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http, self.outcomes, self.by, self.wrong = http, Counter(), Counter(), []
        self.notices: set[str] = set()
        self.acknowledged: set[str] = set()  # answers of which a backend has taken the verdict
        self._done = asyncio.Event()

    @asynccontextmanager
    async def of(self, clients: int):
        tasks = [asyncio.create_task(self._client(number)) for number in range(clients)]
        try:
            yield self
        finally:
            self._done.set()
            await asyncio.gather(*tasks)

    async def _client(self, number: int) -> None:
        while not self._done.is_set():
            number = (number + 7) % FILES
            try:
                if number % 3:
                    answer = await self.http.get("/search", params={"q": f"handler_{number}", "k": 3})
                else:
                    answer = await self.http.post("/ask", json={"question": f"What does handler_{number} return?"})
                    await self._say_kept(answer)
            except httpx.TransportError:
                self.outcomes["cut off"] += 1
                continue
            self._look(number, answer)

    async def _say_kept(self, answer: httpx.Response) -> None:
        if answer.status_code != 200:
            return
        about = {"id": answer.json()["id"], "kept": True}
        with suppress(httpx.TransportError):
            taken = await self.http.post(f"{answer.headers['x-backend']}/feedback", json=about)
            self.acknowledged |= {about["id"]} if taken.is_success else set()

    def _look(self, number: int, answer: httpx.Response) -> None:
        if answer.status_code != 200:
            self.outcomes[answer.status_code] += 1
            return
        body = answer.json()
        self.by[answer.headers["x-backend"]] += 1
        self.notices |= {*body.get("notices", []), body.get("notice", "")}
        first = body["passages"][0] if body["passages"] else {"path": "", "text": ""}
        is_right = first["path"] == f"f{number}.py" and f"request.id + {number}" in first["text"]
        self.outcomes["right" if is_right else "wrong"] += 1
        if not is_right:
            self.wrong.append((number, body))


async def until(predicate, within_s=60.0):
    async with asyncio.timeout(within_s):
        while not predicate():
            await asyncio.sleep(0.02)


async def test_two_backends_that_began_together_on_an_empty_server_answer_alike(backends):
    async with routed(backends) as (_, http), Load(http).of(4) as load:
        await until(lambda: all(load.by[one.url] >= 30 for one in backends))
    assert (load.wrong, set(load.outcomes)) == ([], {"right"})
    assert not [notice for notice in load.notices if "words only" in notice]


async def test_a_backend_killed_under_load_costs_no_wrong_answer_and_no_acknowledged_verdict_and_comes_back(backends):
    victim, other = backends
    async with routed(backends) as (router, http), Load(http).of(8) as load:
        await until(lambda: load.by[victim.url] > 20)
        await asyncio.to_thread(victim.kill)
        before = load.by[other.url]
        await until(lambda: load.by[other.url] > before + 50)
        victim.start()
        await asyncio.to_thread(victim.wait)
        router._targets[0] = victim.url
        before = load.by[victim.url]
        await until(lambda: load.by[victim.url] > before + 20)
    assert load.wrong == []
    assert len(load.acknowledged) > 20
    kept = {one.id for each in backends for one in Feedback(Workspace(each.root)).read() if one.kept}
    assert load.acknowledged - kept == set()
    assert router.broken > 0
    assert set(load.outcomes) <= {"right", 502, 503}


async def test_a_killed_chroma_is_said_with_every_answer_and_comes_back_by_itself(backends, chroma):
    async with routed(backends) as (_, http), Load(http).of(4) as load:
        await until(lambda: sum(load.by.values()) > 20)
        await asyncio.to_thread(chroma.kill)
        await until(lambda: any("words only" in notice for notice in load.notices))
        (backends[0].root / "late.py").write_text("def came_while_it_was_gone():\n    return 'here'\n")
        load.notices.clear()
        asked = {"q": "came_while_it_was_gone", "k": 1}
        async with asyncio.timeout(60), httpx.AsyncClient(base_url=backends[0].url, headers=HEADERS) as alone:
            while not (found := (await alone.get("/search", params=asked)).json())["passages"] or (
                found["passages"][0]["path"] != "late.py"
            ):
                await asyncio.sleep(0.05)
            assert chroma.address in found["notice"]
            metrics = (await alone.get("/metrics")).text
            assert "nightschool_search_by_words_only 1.0" in metrics
        await until(lambda: len(load.notices - {""}) > 0)
        await asyncio.to_thread(chroma.start)
        for one in backends:
            await asyncio.to_thread(one.wait)
        load.notices.clear()
        before = sum(load.by.values())
        await until(lambda: sum(load.by.values()) > before + 20)
    assert (load.wrong, set(load.outcomes)) == ([], {"right"})
    assert not [notice for notice in load.notices if "words only" in notice]
