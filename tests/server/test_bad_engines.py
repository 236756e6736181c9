"""Engines that misbehave, on a real socket behind the real door: backing off, recovering, and passages meanwhile."""

import asyncio
from contextlib import aclosing, asynccontextmanager, suppress

import pytest

from indexer.workspace import Workspace
from server.adapter import UnknownAdapter
from server.backoff import LONGEST_WAIT_S, down, wait_s
from server.base_model import BaseModel
from server.engine import EngineError, EngineProcess
from server.generation import Endpoint, Engine, Finish, GenerationError, ModelCard, Sampling
from server.prompt import Turn
from server.remote import RemoteServing
from server.serving import Serving
from server.settings import ServerSettings

ASKED = {"question": "where is run?"}


@pytest.fixture
def played(tmp_path, start_played):
    return start_played(tmp_path)


async def until(predicate, within_s=5.0):
    async with asyncio.timeout(within_s):
        while not predicate():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving_of(played, timeout_s=2.0, **settings):
    """The endpoint, watched over; tries again after 50 ms instead of seconds."""
    url = f"http://127.0.0.1:{played.port}/v1"
    serving = RemoteServing(ServerSettings(engine_url=url, engine_timeout_s=timeout_s, **settings), lambda _: 0.05)
    running = asyncio.create_task(serving.run())
    try:
        yield serving
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def ask(serving):
    async with serving.borrow() as engine, aclosing(engine.generate([Turn("user", "q?")], Sampling())) as pieces:
        return [piece async for piece in pieces]


async def test_an_endpoint_that_answers_is_ready_and_names_its_model(played):
    async with serving_of(played) as serving:
        await until(lambda: serving.state.name == "ready")
        assert await ask(serving) == ["It is ", "there.", Finish("stop", 3, 2)]
        assert (serving.base_model.name, serving.adapter) == ("played", None)
        with pytest.raises(UnknownAdapter, match="its own model"):
            async with serving.borrow("2026-01-01-0000-abc"):
                pass


@pytest.mark.parametrize("mode", ["500", "loading", "dies", "garbage", "error", "mute", "gone"])
async def test_an_endpoint_that_starts_badly_is_waited_for(mode, played):
    if mode == "gone":
        played.end()
    else:
        played.mode = mode
    async with serving_of(played, timeout_s=0.3) as serving:
        await until(lambda: serving.state.name == "failed")
        assert f"127.0.0.1:{played.port}" in serving.state.reason
        with pytest.raises(EngineError, match="does not answer"):
            await ask(serving)
        played.mode = "well"
        if mode == "gone":
            played.start()
        await until(lambda: serving.state.name == "ready")
        assert (await ask(serving))[-1] == Finish("stop", 3, 2)


@pytest.mark.parametrize("mode", ["500", "dies", "garbage", "error", "hangs"])
async def test_three_failures_in_a_row_and_nobody_is_sent_there_until_it_is_well(mode, played):
    async with serving_of(played, timeout_s=0.3) as serving:
        await until(lambda: serving.state.name == "ready")
        played.mode = mode
        for state in ("degraded", "degraded"):
            with pytest.raises(GenerationError):
                await ask(serving)
            assert serving.state.name == state
        with pytest.raises(GenerationError):
            await ask(serving)
        heard = len(played.heard)
        with pytest.raises(EngineError):
            await ask(serving)
        assert len(played.heard) <= heard + 1  # our own probe at most: the question was not sent
        played.mode = "well"
        await until(lambda: serving.state.name == "ready")


async def test_one_good_answer_ends_the_row_of_failures(played):
    async with serving_of(played) as serving:
        await until(lambda: serving.state.name == "ready")
        for mode in ("500", "500", "well", "500", "500"):
            played.mode = mode
            with suppress(GenerationError):
                await ask(serving)
        assert serving.state.name == "degraded"


async def test_a_refusal_is_no_sign_of_a_broken_engine(played):
    async with serving_of(played) as serving:
        await until(lambda: serving.state.name == "ready")
        played.mode = "refuses"
        for _ in range(5):
            with pytest.raises(GenerationError, match="400"):
                await ask(serving)
        assert serving.state.name == "ready"


def test_the_wait_doubles_up_to_a_minute_and_is_never_quite_the_same():
    waits = [wait_s(failures) for failures in range(40)]
    assert all(0.75 * 2**n <= wait <= 2**n for n, wait in enumerate(waits[:5]))
    assert all(0.75 * LONGEST_WAIT_S <= wait <= LONGEST_WAIT_S for wait in waits[6:])
    assert len(set(waits)) == 40
    assert [down(n, "x").name for n in (1, 3, 4)] == ["backoff", "backoff", "failed"]


async def test_while_it_is_down_readyz_says_why_search_works_and_questions_get_passages(
    played, make_backend, client_of
):
    played.mode = "loading"
    async with serving_of(played) as serving, client_of(make_backend, serving) as http:
        await until(lambda: serving.state.name == "failed")
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["engine"]["name"]) == (503, "failed")
        assert "503" in ready.json()["reasons"][0]
        assert len((await http.get("/search", params={"q": "run"})).json()["passages"]) == 1
        answered = (await http.post("/ask", json=ASKED)).json()
        assert len(answered["passages"]) == 1
        assert any("does not answer" in notice for notice in answered["notices"])
        played.mode = "well"
        await until(lambda: serving.state.name == "ready")
        assert (await http.get("/readyz")).status_code == 200
        assert "It is there." in (await http.post("/ask", json=ASKED)).json()["answer"]


async def test_an_engine_that_dies_in_the_middle_ends_the_stream_with_an_error_and_never_done(
    played, make_backend, client_of
):
    async with serving_of(played) as serving, client_of(make_backend, serving) as http:
        await until(lambda: serving.state.name == "ready")
        for mode in ("dies", "error"):
            played.mode = mode
            chat = {"messages": [{"role": "user", "content": "q?"}], "stream": True}
            text = (await http.post("/v1/chat/completions", json=chat)).text
            assert '"error"' in text
            assert "[DONE]" not in text


class FromScript:
    """Starts the played engine in place of vLLM, under the same class that watches over a process."""

    def __init__(self, played):
        self.played, self.starts = played, 0

    def __call__(self, weights, settings, state, logs):
        self.starts += 1
        self.played.end()
        process = self.played.start()
        log = logs / "engine.log"
        logs.mkdir(parents=True, exist_ok=True)
        log.write_text("RuntimeError: out of memory\n")
        url = f"http://127.0.0.1:{self.played.port}/v1"
        engine = Engine(Endpoint(url, "", "served", timeout_s=0.3), ModelCard("m", None, 4096, len))
        return EngineProcess(process, engine, weights, log)


@pytest.fixture
def supervised(played, tmp_path):
    """`Serving` over the played engine as a process of ours: (serving, starter)."""
    base = BaseModel("m", "", "", tmp_path / "base", "", 4096, "", None, 1, "asked for")
    (tmp_path / "base").mkdir()
    starter = FromScript(played)
    place = Workspace(tmp_path / "place")
    place.root.mkdir()
    place.make_state_folder()
    return Serving(place, ServerSettings(engine_start_timeout_s=0.5), base, starter, lambda _: 0.05), starter


@asynccontextmanager
async def running(serving):
    task = asyncio.create_task(serving.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_an_engine_that_ends_by_itself_is_started_again_and_why_is_told(supervised, played):
    serving, starter = supervised
    async with running(serving):
        await until(lambda: serving.state.name == "ready")
        played.mode = "exit"
        with pytest.raises(GenerationError):
            await ask(serving)
        await until(lambda: serving.state.name in ("backoff", "failed"))
        assert "out of memory" in serving.state.reason
        played.mode = "well"
        await until(lambda: serving.state.name == "ready")
        assert starter.starts >= 2
        assert (await ask(serving))[-1] == Finish("stop", 3, 2)


async def test_an_engine_that_lives_and_hangs_is_ended_and_started_again(supervised, played):
    serving, starter = supervised
    async with running(serving):
        await until(lambda: serving.state.name == "ready")
        played.mode = "mute"
        for _ in range(3):
            with pytest.raises(GenerationError, match="stopped answering"):
                await ask(serving)
        await until(lambda: serving.state.name in ("backoff", "failed"))
        played.mode = "well"
        await until(lambda: serving.state.name == "ready", 10)
        assert starter.starts >= 2


async def test_an_engine_that_never_comes_up_is_tried_with_pauses_and_called_failed(supervised, played):
    serving, starter = supervised
    played.mode = "500"
    async with running(serving):
        await until(lambda: serving.state.name == "failed", 20)
        with pytest.raises(EngineError, match="not ready after"):
            await ask(serving)
        assert starter.starts >= 4
