"""Adapters loaded at run time, against the played engine: order, drains, and what fails leaves what was there."""

import asyncio
import json
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime

import pytest
import torch
from safetensors.torch import save_file

from indexer.gpu import has_gpu
from indexer.workspace import Workspace
from server.adapter import finish_adapter, promote, rollback
from server.base_model import BaseModel
from server.doctor_proofs import prove_loaded
from server.engine import EngineProcess, NoMemory
from server.generation import Endpoint, Engine, Finish, GenerationError, ModelCard, Sampling
from server.loading import NotLoadable, rank_needed
from server.prompt import PROMPT_VERSION, Turn
from server.served import Engines
from server.serving import Serving
from server.settings import ServerSettings


async def until(predicate, within_s=10.0):
    async with asyncio.timeout(within_s):
        while not predicate():
            await asyncio.sleep(0.01)


def make_adapter(place, version, rank=8, module="q_proj", up=1.0, **config):
    """An adapter of the registry that would fit the base model "m"; `up` is what its second matrices hold."""
    place.adapters.mkdir(parents=True, exist_ok=True)
    staging = place.adapters / f".{version}"
    staging.mkdir()
    name = f"base_model.model.model.layers.0.self_attn.{module}"
    tensors = {f"{name}.lora_A.weight": torch.ones(1, 4), f"{name}.lora_B.weight": torch.full((4, 1), up)}
    save_file(tensors, staging / "adapter_model.safetensors")
    (staging / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 8} | config))
    trained_on = {"name": "m", "revision": "", "sha256": ""}
    about = {"version": version, "created_at": datetime.now(UTC), "base_model": trained_on}
    return finish_adapter(staging, place.adapters, about | {"prompt_version": PROMPT_VERSION})


class Starts:
    """Starts a played engine each time, in place of vLLM. `full`: no memory is left for one beside another."""

    def __init__(self, start_played, folder):
        self.start_played, self.folder = start_played, folder
        self.weights, self.played, self.full = [], [], False

    def __call__(self, weights, settings, state, logs):
        if self.full and any(one.process.poll() is None for one in self.played):
            raise NoMemory("no memory for the engine: 1 GiB is free")
        self.weights.append(weights)
        self.played.append(self.start_played(self.folder / str(len(self.played))))
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"engine-{len(self.played)}.log"
        log.write_text("RuntimeError: killed\n")
        endpoint = Endpoint(f"http://127.0.0.1:{self.played[-1].port}/v1", "", "served", timeout_s=1)
        return EngineProcess(
            self.played[-1].process, Engine(endpoint, ModelCard("m", weights.adapter, 4096, len)), weights, log
        )

    @property
    def heard(self):
        """What the last engine heard of adapters, in order."""
        return [word for word in self.played[-1].heard if "load:" in word]


@pytest.fixture
def place(tmp_path):
    place = Workspace(tmp_path / "place")
    place.root.mkdir()
    place.make_state_folder()
    return place


@pytest.fixture
def starts(start_played, tmp_path):
    return Starts(start_played, tmp_path / "engines")


@pytest.fixture
def serving(place, tmp_path, starts):
    (tmp_path / "base").mkdir()
    base = BaseModel("m", "", "", tmp_path / "base", "", 4096, "", None, 1, "asked for")
    settings = ServerSettings(adapters="loaded", engine_start_timeout_s=10)
    return Serving(place, settings, base, starts, lambda _: 0.05)


@asynccontextmanager
async def running(serving):
    task = asyncio.create_task(serving.run())
    try:
        await until(lambda: serving.state.name == "ready")
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def ask(serving, version=None):
    """Who answers, as the engine is asked and as the answer names it."""
    async with (
        serving.borrow(version) as engine,
        aclosing(engine.generate([Turn("user", "q?")], Sampling())) as pieces,
    ):
        written = "".join([piece async for piece in pieces if isinstance(piece, str)])
        return written, engine.adapter


BASE = ("It is there.", None)


async def test_a_promoted_adapter_answers_from_the_same_engine_and_the_one_before_is_unloaded(serving, place, starts):
    for version in ("v1", "v2"):
        make_adapter(place, version)
    async with running(serving):
        assert await ask(serving) == BASE
        for version in ("v1", "v2"):
            promote(place.adapters, version)
            await until(lambda version=version: serving.adapter == version)
            assert await ask(serving) == (version, version)
            assert await ask(serving, "none") == BASE
        await until(lambda: starts.heard[-1] == "unload:v1")
        assert starts.heard == ["load:v1", "load:v2", "unload:v1"]
        assert (serving.how, serving.loaded) == ("loaded", ["v2"])
        rollback(place.adapters)
        await until(lambda: serving.adapter == "v1")
        rollback(place.adapters)
        await until(lambda: serving.adapter is None)
        assert await ask(serving) == BASE
        await until(lambda: serving.loaded == [])
    assert len(starts.weights) == 1
    assert (starts.weights[0].folder.name, starts.weights[0].lora_rank) == ("base", 8)


async def test_the_old_adapter_stays_until_its_last_answer_is_done_and_the_new_one_answers_meanwhile(
    serving, place, starts
):
    for version in ("v1", "v2"):
        make_adapter(place, version)
    promote(place.adapters, "v1")
    async with running(serving), serving.borrow() as engine:
        starts.played[0].mode = "held"
        async with aclosing(engine.generate([Turn("user", "q?")], Sampling())) as pieces:
            assert await anext(pieces) == "It is "
            starts.played[0].mode = "well"
            promote(place.adapters, "v2")
            await until(lambda: serving.adapter == "v2")
            assert await ask(serving) == ("v2", "v2")
            assert starts.heard == ["load:v1", "load:v2"]
            starts.played[0].mode = "freed"
            assert [piece async for piece in pieces] == ["there.", Finish("stop", 3, 2)]
        assert starts.heard == ["load:v1", "load:v2"]  # whoever has borrowed it may ask again


async def test_going_back_to_an_adapter_that_is_still_drained_keeps_it(serving, place, starts):
    for version in ("v1", "v2"):
        make_adapter(place, version)
    promote(place.adapters, "v1")
    async with running(serving):
        async with serving.borrow():
            promote(place.adapters, "v2")
            await until(lambda: serving.adapter == "v2")
            rollback(place.adapters)
            await until(lambda: serving.adapter == "v1")
        await until(lambda: "unload:v2" in starts.heard and not serving._leaving)
        assert starts.heard == ["load:v1", "load:v2", "unload:v2"]
        assert await ask(serving) == ("v1", "v1")


@pytest.mark.parametrize(
    ("mode", "said"),
    [("load-refused", "expected target modules"), ("load-nothing", "reads as it does without"),
     ("load-silent", "writes nothing"), ("load-mute", "stopped answering")],
)  # fmt: skip
async def test_a_load_that_fails_leaves_the_old_one_in_service_until_it_is_promoted_again(
    mode, said, serving, place, starts, caplog
):
    for version in ("v1", "v2"):
        make_adapter(place, version)
    promote(place.adapters, "v1")
    async with running(serving):
        starts.played[0].mode = mode
        promote(place.adapters, "v2")
        await until(lambda: said in serving.state.reason)
        assert (serving.state.name, serving.adapter) == ("ready", "v1")
        assert [r.message for r in caplog.records if "v2 is not served, v1 stays" in r.message and said in r.message]
        starts.played[0].mode = "well"
        assert await ask(serving) == ("v1", "v1")
        tries = starts.heard.count("load:v2")
        await asyncio.sleep(1.1)  # two looks at the pointer
        assert await ask(serving) == ("v1", "v1")
        assert starts.heard.count("load:v2") == tries == 1
        promote(place.adapters, "v2")
        await until(lambda: serving.adapter == "v2")
        assert await ask(serving) == ("v2", "v2")
    assert len(starts.weights) == 1


async def test_an_engine_that_was_killed_comes_back_with_its_adapter_loaded_before_it_is_ready(serving, place, starts):
    make_adapter(place, "v1")
    promote(place.adapters, "v1")
    async with running(serving):
        starts.played[0].process.kill()
        await until(lambda: serving.state.name in ("backoff", "failed"))
        assert "killed" in serving.state.reason
        await until(lambda: serving.state.name == "ready")
        assert starts.heard == ["load:v1"]
        assert await ask(serving) == ("v1", "v1")


async def test_an_engine_that_dies_of_an_adapter_comes_back_with_the_one_before(serving, place, starts):
    for version in ("v1", "v2"):
        make_adapter(place, version)
    promote(place.adapters, "v1")
    async with running(serving):
        starts.played[0].mode = "load-exit"
        promote(place.adapters, "v2")
        await until(lambda: len(starts.played) == 2 and serving.state.name == "ready")
        assert await ask(serving) == ("v1", "v1")
        assert starts.heard == ["load:v1"]


async def test_an_engine_that_has_lost_its_adapter_is_started_again(serving, place, starts):
    make_adapter(place, "v1")
    promote(place.adapters, "v1")
    async with running(serving):
        first = Endpoint(f"http://127.0.0.1:{starts.played[0].port}/v1", "", "served")
        stranger = Engine(first, ModelCard("m", None, 4096, len))
        await stranger.post("/unload_lora_adapter", {"lora_name": "v1"})
        await stranger.close()
        for _ in range(3):
            with pytest.raises(GenerationError, match="404"):
                await ask(serving)
        await until(lambda: len(starts.played) == 2 and serving.state.name == "ready")
        assert await ask(serving) == ("v1", "v1")


async def test_a_rank_that_the_engine_has_no_room_for_starts_one_that_has(serving, place, starts):
    make_adapter(place, "v1", rank=8)
    promote(place.adapters, "v1")
    make_adapter(place, "v2", rank=40)
    async with running(serving):
        promote(place.adapters, "v2")
        await until(lambda: serving.adapter == "v2")
        assert "room for 64 and the engine had room for 8" in serving.state.reason
        assert [weights.lora_rank for weights in starts.weights] == [8, 64]
        assert await ask(serving) == ("v2", "v2")
        await until(lambda: starts.played[0].process.poll() is not None)
        rollback(place.adapters)  # the smaller one fits into the larger room
        await until(lambda: serving.adapter == "v1")
    assert len(starts.weights) == 2


@pytest.mark.parametrize("where", ["GPU", "CPU"])
async def test_without_memory_for_two_engines_there_is_a_pause_that_is_announced(where, serving, place, starts, caplog):
    make_adapter(place, "v1", rank=8)
    promote(place.adapters, "v1")
    make_adapter(place, "v2", rank=16)
    starts.full, serving._engines.one_at_a_time = where == "CPU", where == "GPU"
    async with running(serving):
        async with serving.borrow():
            promote(place.adapters, "v2")
            await until(lambda: "a pause" in serving.state.reason)
            assert not serving.state.is_answering
            assert starts.played[0].process.poll() is None  # its last answer is not done
        await until(lambda: serving.adapter == "v2")
        assert await ask(serving) == ("v2", "v2")
    assert any("a pause: there is no room for two engines" in record.message for record in caplog.records)
    assert len(starts.weights) == 2


@pytest.mark.skipif(has_gpu(), reason="there the default is to load")
def test_without_a_gpu_adapters_are_merged_unless_it_is_said_otherwise(place):
    for way, loads in (("auto", False), ("merged", False), ("loaded", True)):
        assert Engines(place, ServerSettings(adapters=way), None, None).loads is loads


def test_what_can_be_loaded_is_known_before(place):
    assert [rank_needed(make_adapter(place, f"a{rank}", rank).folder) for rank in (1, 2, 64, 257, 512)] == [
        1, 8, 64, 320, 512,
    ]  # fmt: skip
    assert rank_needed(make_adapter(place, "pattern", rank_pattern={"q_proj": 20}).folder) == 32
    for version, said, about in (
        ("rank", "512 is the highest", {"rank": 768}),
        ("module", "changes embed_tokens too", {"module": "embed_tokens"}),
        ("start", "started as pissa", {"init_lora_weights": "pissa"}),
        ("bias", "a bias", {"bias": "all"}),
        ("lora_bias", "lora_bias", {"lora_bias": True}),
    ):
        with pytest.raises(NotLoadable, match=said):
            rank_needed(make_adapter(place, version, **about).folder)


async def test_an_adapter_that_vllm_cannot_load_is_merged_with_a_notice(serving, place, starts):
    make_adapter(place, "v1", rank=768)
    (place.state / "merged" / "v1").mkdir(parents=True)  # as if it had been merged before
    async with running(serving):
        promote(place.adapters, "v1")
        await until(lambda: serving.adapter == "v1")
        assert "merged into the weights, not loaded: its rank is 768" in serving.state.reason
        assert (serving.how, starts.weights[-1].folder.name, starts.weights[-1].lora_rank) == ("merged", "v1", 0)
        assert starts.heard == []


def test_the_doctor_believes_an_adapter_that_makes_a_difference(place):
    trained, empty = make_adapter(place, "v1"), make_adapter(place, "v2", up=0.0)
    for adapter, served, difference, ok, said in (
        (trained, "v1", 0.25, True, "moves a token by 0.250 nats"),
        (trained, "v1", 0.0, False, "reads with v1 as it does without"),
        (trained, None, None, False, "v1 is chosen, the base model answers"),
        (empty, "v2", 0.0, True, "it was not trained"),
    ):
        finding = prove_loaded(adapter, {"adapter": served, "difference": difference})
        assert (finding.ok, said in finding.found) == (ok, True)
    assert "cannot be asked" in prove_loaded(trained, {"fault": "it is gone"}).found
