"""The engine sleeps while a night has its memory, and wakes up however the night ends."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import psutil
import pytest

from indexer.workspace import Workspace
from nightschool_training import FRONT
from server.auth import read_or_make_token
from server.base_model import BaseModel
from server.engine import EngineError, EngineProcess
from server.generation import Endpoint, Engine, ModelCard, Sampling
from server.http import make_app
from server.prompt import Turn
from server.serving import Serving
from server.settings import ServerSettings

HOLD = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True)"
TEN = {"minutes": 10}


async def until(predicate, within_s=10.0):
    async with asyncio.timeout(within_s):
        while not predicate():
            await asyncio.sleep(0.01)


class Night:
    """A process that holds the night's lock, as a night does."""

    def __init__(self, place):
        command = [sys.executable, "-c", f"{HOLD}; sys.stdin.read()", str(place.night_lock)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"held\n"

    def kill(self):
        if self.process.poll() is not None:
            return
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def place(workspace):
    workspace.make_state_folder()
    return workspace


@pytest.fixture
def night(place):
    night = Night(place)
    yield night
    night.kill()


class Starts:
    """Starts a played engine each time, in place of vLLM."""

    def __init__(self, start_played, folder):
        self.start_played, self.folder, self.played = start_played, folder, []

    def __call__(self, weights, settings, state, logs):
        self.played.append(self.start_played(self.folder / str(len(self.played))))
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / "engine.log"
        log.touch()
        endpoint = Endpoint(f"http://127.0.0.1:{self.played[-1].port}/v1", "", "served", timeout_s=5)
        engine = Engine(endpoint, ModelCard("m", weights.adapter, 4096, len))
        return EngineProcess(self.played[-1].process, engine, weights, log)

    @property
    def naps(self):
        """What the last engine was told of sleep."""
        return [word for word in self.played[-1].heard if word in ("sleep", "wake")]


@pytest.fixture
def starts(start_played, tmp_path):
    return Starts(start_played, tmp_path / "engines")


@pytest.fixture
def serving(place, tmp_path, starts):
    (tmp_path / "base").mkdir()
    base = BaseModel("m", "", "", tmp_path / "base", "", 4096, "", None, 1, "asked for")
    return Serving(place, ServerSettings(engine_start_timeout_s=10), base, starts, lambda _: 0.05)


@asynccontextmanager
async def running(serving, state="ready"):
    task = asyncio.create_task(serving.run())
    try:
        await until(lambda: serving.state.name == state)
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_night_has_the_engines_memory_and_questions_get_the_code_found(
    serving, starts, night, make_backend, client_of
):
    async with running(serving), client_of(make_backend, serving) as http:
        assert (await http.post("/engine/sleep", json=TEN)).status_code == 200
        assert starts.naps == ["sleep"]
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["engine"]["name"]) == (503, "asleep")
        answered = (await http.post("/ask", json={"question": "where is run?"})).json()
        (notice,) = [said for said in answered["notices"] if "No model answers now" in said]
        assert "the engine sleeps while a night trains, until about " in notice
        assert len(answered["passages"]) == 1
        for version in ("none", None):
            with pytest.raises(EngineError, match="sleeps while a night trains"):
                async with serving.borrow(version):
                    pass
        assert (await http.post("/engine/wake")).status_code == 200
        await until(lambda: serving.state.name == "ready")
        assert "It is there." in (await http.post("/ask", json={"question": "where is run?"})).json()["answer"]
    assert starts.naps == ["sleep", "wake"]
    assert len(starts.played) == 1


async def test_a_night_that_is_killed_keeps_no_engine_asleep(serving, starts, night):
    async with running(serving):
        assert await serving.sleep(datetime.now(UTC) + timedelta(minutes=10))
        assert starts.naps == ["sleep"]
        night.kill()
        await until(lambda: serving.state.name == "ready")
    assert starts.naps == ["sleep", "wake"]


async def test_without_a_night_nothing_sleeps(serving, starts, make_backend, client_of):
    async with running(serving), client_of(make_backend, serving) as http:
        refused = await http.post("/engine/sleep", json=TEN)
        assert (refused.status_code, "no night is running" in refused.text) == (409, True)
        assert serving.state.name == "ready"
    assert starts.naps == []


async def test_an_answer_is_written_to_its_end_before_the_engine_sleeps(serving, starts, night):
    async with running(serving):
        starts.played[0].mode = "held"
        async with (
            serving.borrow() as engine,
            aclosing(engine.generate([Turn("user", "q?")], Sampling())) as pieces,
        ):
            assert await anext(pieces) == "It is "
            falling = asyncio.create_task(serving.sleep(datetime.now(UTC) + timedelta(minutes=10)))
            await until(lambda: serving.state.name == "asleep")
            assert starts.naps == []
            starts.played[0].mode = "freed"
            assert await anext(pieces) == "there."
        assert await falling
        assert starts.naps == ["sleep"]


@pytest.mark.parametrize("mode", ["sleepless", "wake-refused"])
async def test_an_engine_that_cannot_sleep_or_wake_is_ended_and_another_comes_up_after_the_night(
    mode, serving, starts, night
):
    async with running(serving):
        starts.played[0].mode = mode
        assert await serving.sleep(datetime.now(UTC) + timedelta(minutes=10))
        is_there = starts.played[0].process.poll() is None
        assert is_there == (mode == "wake-refused")
        assert len(starts.played) == 1
        serving.nap.end()
        await until(lambda: len(starts.played) == 2 and serving.state.name == "ready")
        assert starts.played[0].process.poll() is not None


async def test_a_backend_that_starts_in_the_middle_of_a_night_starts_no_engine_before_its_end(serving, starts, night):
    serving.nap.ask(datetime.now(UTC) + timedelta(minutes=10))
    async with running(serving, "asleep"):
        assert await serving.sleep(datetime.now(UTC) + timedelta(minutes=20))
        assert starts.played == []
        night.kill()
        await until(lambda: serving.state.name == "ready")
    assert len(starts.played) == 1


@pytest.mark.parametrize("text", ["half a ti", ""])
async def test_a_file_that_is_no_time_is_no_night(text, serving, place, night):
    (place.state / "engine_sleep").write_text(text)
    async with running(serving):
        assert not (place.state / "engine_sleep").exists()


@pytest.mark.parametrize("of_a_fleet", [False, True])
async def test_the_night_asks_the_backend_and_wakes_the_engine_when_it_fails(
    of_a_fleet, serving, starts, night, place, make_backend, live_app, monkeypatch, tmp_path
):
    monkeypatch.setenv("NIGHTSCHOOL_TRAINER__ENGINE", "sleep")
    studied = Workspace(tmp_path, settings_folder=place.root) if of_a_fleet else place
    rest = partial(FRONT.rest, studied)
    assert rest() is None, "no backend runs"
    token = read_or_make_token(place)
    async with running(serving), live_app(make_app(replace(make_backend(), serving=serving), token)) as url:
        about = {"pid": os.getpid(), "process_started": psutil.Process().create_time(), "url": url}
        (place.state / "backend.json").write_text(json.dumps(about))

        def fail() -> None:
            with rest()(10) as fault:
                assert fault == ""
                assert serving.state.name == "asleep"
                raise MemoryError

        with pytest.raises(MemoryError):
            await asyncio.to_thread(fail)
        await until(lambda: serving.state.name == "ready")
        assert starts.naps == ["sleep", "wake"]
        night.kill()

        def too_late() -> str:
            with rest()(10) as fault:
                return str(fault)

        assert "no night is running" in await asyncio.to_thread(too_late)
        monkeypatch.setenv("NIGHTSCHOOL_TRAINER__ENGINE", "share")
        assert rest() is None
