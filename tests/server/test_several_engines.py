"""Several engines behind one door: who answers, who takes over, and what is told. Real ones, on real sockets."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager, suppress

import pytest

from server.adapter import UnknownAdapter
from server.backoff import READY, EngineState
from server.doctor import engines
from server.engine import EngineError
from server.generation import Finish, GenerationError, Sampling
from server.prompt import Question, Turn, render_prompt
from server.routing import (
    adapters_for,
    choose_adapter,
    conversation_key,
    open_adapters,
    rank_engines,
    shown_url,
    taken_together,
)
from server.settings import ServerSettings
from server.several import SeveralServing

URLS = [f"http://engine-{n}:8000/v1" for n in range(5)]
WHOLE = ["It is ", "there.", Finish("stop", 3, 2)]


# Who answers


def test_conversations_are_spread_and_only_those_of_a_lost_engine_move():
    keys = [f"question {n}" for n in range(500)]
    before = {key: rank_engines(key, URLS)[0] for key in keys}
    shares = [list(before.values()).count(url) for url in URLS]
    assert min(shares) > 70
    left = [url for url in URLS if url != URLS[2]]
    moved = [key for key in keys if rank_engines(key, left)[0] != before[key]]
    assert {before[key] for key in moved} == {URLS[2]}
    assert len({rank_engines(key, left)[0] for key in moved}) == 4  # shared among the others
    assert rank_engines("q", URLS) == rank_engines("q", reversed(URLS))


def test_every_question_of_a_conversation_has_the_same_key(passage):
    def key(text, *turns):
        question = Question(text, conversation=tuple(Turn(*turn) for turn in turns))
        return conversation_key(render_prompt(question, [passage()], len, 10_000).messages)

    first = key("where is run?")
    assert key("and why?", ("user", "where is run?"), ("assistant", "In app.py [1].")) == first
    assert key("where is walk?") != first
    assert conversation_key([Turn("system", "s")]) == ""


def test_the_repository_of_the_best_passages_chooses_the_adapter():
    adapters, groups = {"app": "app-lora", "web": "web-lora"}, {"api": "web", "app": "web"}
    assert choose_adapter(["app", "lib", "app"], adapters) == "app-lora"
    assert choose_adapter(["lib", "app", "app"], adapters) is None  # 1 for lib against 1/2 + 1/3
    assert choose_adapter(["lib", "app", "app", "app"], adapters) == "app-lora"
    assert choose_adapter(["api"], adapters, groups) == "web-lora"
    assert choose_adapter(["app"], adapters, groups) == "app-lora"  # its own name before its group's
    assert choose_adapter([], adapters) is None
    assert choose_adapter(["app"], {}) is None


def test_an_adapter_is_open_to_those_who_may_read_all_that_it_has_learnt():
    groups = {"app": "", "api": "web", "site": "web", "lib": ""}
    adapters = {"app": "app-lora", "web": "web-lora", "lib": "app-lora", "gone": "gone-lora"}

    def models(*names):
        return set(open_adapters(adapters, groups, frozenset(names)).values())

    assert models("app", "lib") == {"app-lora"}
    assert models("app") == set()  # app-lora has learnt from lib too
    assert models("api") == set()
    assert models("api", "site") == {"web-lora"}
    assert models() == set()
    assert open_adapters(adapters, groups, None) == adapters


def test_whoever_has_one_repository_is_answered_by_its_adapter(passage):
    adapters, groups = {"app": "app-lora", "web": "web-lora"}, {"app": "", "web": ""}
    found = [passage("web/run.py")]
    assert adapters_for(adapters, groups, None).of(found) == "web-lora"
    assert adapters_for(adapters, groups, frozenset({"app"})).of([]) == "app-lora"
    assert adapters_for(adapters, groups, frozenset({"lib"})).of(found) is None
    assert adapters_for({"shop": "shop-lora"}, {"shop": ""}, None).of([passage("src/run.py")]) == "shop-lora"


def test_the_state_of_several_is_that_of_the_best_and_names_the_others():
    down = EngineState("failed", "refused")
    assert taken_together({"a": READY, "b": READY}) == READY
    some = taken_together({"a": READY, "b": down})
    assert (some.name, some.reason) == ("degraded", "1 of 2 engines are not well: b (failed): refused")
    assert taken_together({"a": down, "b": down}).name == "failed"
    assert shown_url("http://me:secret@host:8/v1") == "http://host:8/v1"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"engine_urls": ["host:8000"]}, "is no address"),
        ({"engine_urls": ["http://a/v1", "http://a/v1/"]}, "twice"),
        ({"engine_urls": ["http://a/v1"], "engine_url": "http://b/v1"}, "not both"),
        ({"engine_adapters": {"app": "app-lora"}}, "give one of both"),
    ],
)
def test_a_wrong_list_stops_the_start(given, fault):
    with pytest.raises(ValueError, match=fault):
        ServerSettings(**given)


# Real engines


@pytest.fixture
def pair(tmp_path, start_played):
    """Two engines, each with its own mode and log."""
    return [start_played(tmp_path / name) for name in ("a", "b")]


@asynccontextmanager
async def serving_of(pair, **settings):
    """Both, watched over; tries again after 50 ms instead of seconds."""
    urls = [f"http://127.0.0.1:{one.port}/v1" for one in pair]
    serving = SeveralServing(ServerSettings(engine_urls=urls, engine_timeout_s=2, **settings), lambda _: 0.05)
    running = asyncio.create_task(serving.run())
    try:
        await until(lambda: all(state == READY for state in serving.states().values()))
        yield serving
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until(predicate, within_s=5.0):
    async with asyncio.timeout(within_s):
        while not predicate():
            await asyncio.sleep(0.01)


async def ask(serving, question="q?", version=None):
    async with (
        serving.borrow(version) as model,
        aclosing(model.generate([Turn("user", question)], Sampling())) as pieces,
    ):
        return [piece async for piece in pieces]


def asked(pair):
    return [one.heard.count("asked") for one in pair]


async def test_a_conversation_stays_with_one_engine(pair):
    async with serving_of(pair) as serving:
        probes = asked(pair)
        for _ in range(6):
            assert await ask(serving, "where is run?") == WHOLE
        extra = [now - before for now, before in zip(asked(pair), probes, strict=True)]
        assert sorted(extra) == [0, 6]
        for number in range(20):
            await ask(serving, f"question {number}")
        assert all(now > before for now, before in zip(asked(pair), probes, strict=True))


async def test_an_engine_killed_under_load_loses_no_question_and_is_taken_back(pair):
    async with serving_of(pair) as serving:
        answers = [asyncio.create_task(ask(serving, f"question {n}")) for n in range(40)]
        await until(lambda: sum(asked(pair)) > 6)
        pair[0].end()
        answers += [asyncio.create_task(ask(serving, f"later {n}")) for n in range(40)]
        for done in await asyncio.gather(*answers, return_exceptions=True):
            # An answer in the middle of which it died may break off; every other one is whole.
            assert done == WHOLE or (isinstance(done, GenerationError) and "broke off" in str(done))
        assert await ask(serving, "after") == WHOLE
        address = f"http://127.0.0.1:{pair[0].port}/v1"
        await until(lambda: serving.states()[address] != READY)
        assert serving.state.name == "degraded"
        pair[0].start()
        await until(lambda: serving.state == READY)


@pytest.mark.parametrize("mode", ["500", "garbage", "mute"])
async def test_what_fails_before_its_first_piece_is_asked_of_the_next(mode, pair):
    async with serving_of(pair) as serving:
        for one in pair:
            for other in pair:
                other.mode = mode if other is one else "well"
            assert await ask(serving) == WHOLE


@pytest.mark.parametrize("mode", ["dies", "error"])
async def test_what_breaks_off_in_the_middle_is_told_and_not_begun_anew(mode, pair):
    async with serving_of(pair) as serving:
        for one in pair:
            one.mode = mode
        before = sum(asked(pair))
        with pytest.raises(GenerationError):
            await ask(serving)
        assert sum(asked(pair)) == before + 1


async def test_a_refusal_is_not_asked_again_elsewhere(pair):
    async with serving_of(pair) as serving:
        for one in pair:
            one.mode = "refuses"
        before = sum(asked(pair))
        with pytest.raises(GenerationError, match="400"):
            await ask(serving)
        assert sum(asked(pair)) == before + 1


async def test_when_all_are_down_questions_get_an_engine_error_at_once(pair):
    async with serving_of(pair) as serving:
        for one in pair:
            one.end()
        with pytest.raises(EngineError, match="no engine answers"):
            await ask(serving)
        for n in range(6):
            with suppress(EngineError, GenerationError):
                await ask(serving, f"{n}")
        await until(lambda: serving.state.name not in ("ready", "degraded"))
        with pytest.raises(EngineError, match="none of 2 engines answers"):
            await ask(serving)


async def test_an_adapter_of_the_settings_is_asked_for_by_its_name_and_no_other_is(pair):
    async with serving_of(pair, engine_adapters={"app": "app-lora"}) as serving:
        assert await ask(serving, version="app-lora") == WHOLE
        async with serving.borrow("app-lora") as model:
            assert (model.adapter, model.base_model) == ("app-lora", "played")
        with pytest.raises(UnknownAdapter, match="no adapter web-lora"):
            await ask(serving, version="web-lora")
        models = [model for one in pair for model in one.models]
        assert models.count("app-lora") == 1
        assert "web-lora" not in models


async def test_an_engine_without_the_adapter_is_passed_over_and_stays_well(pair):
    async with serving_of(pair, engine_adapters={"app": "app-lora"}) as serving:
        for n in range(8):
            pair[n % 2].mode, pair[1 - n % 2].mode = "bare", "well"
            assert await ask(serving, f"{n}", "app-lora") == WHOLE
        for one in pair:
            one.mode = "bare"
        for _ in range(4):
            with pytest.raises(EngineError, match="does not serve app-lora"):
                await ask(serving, version="app-lora")
        assert serving.state == READY
        assert await ask(serving) == WHOLE


async def test_readyz_metrics_and_the_doctor_name_the_one_that_is_down(pair, make_backend, client_of):
    async with serving_of(pair) as serving, client_of(make_backend, serving) as http:
        pair[1].end()
        address = f"http://127.0.0.1:{pair[1].port}/v1"
        for n in range(30):
            await http.post("/ask", json={"question": f"where is run {n}?"})
        await until(lambda: serving.states()[address].name in ("backoff", "failed"))
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)  # the other one answers
        assert ready.json()["engine"]["name"] == "degraded"
        assert ready.json()["engines"][address]["name"] in ("backoff", "failed")
        text = (await http.get("/metrics")).text
        assert f'nightschool_engine_endpoint_state{{endpoint="{address}",state="ready"}} 0.0' in text
        found = {one.name: one.ok for one in engines(ready.json())}
        assert found == {f"engine http://127.0.0.1:{pair[0].port}/v1": True, f"engine {address}": False}
    assert list(engines(None)) == []


async def test_the_best_passages_repository_is_answered_by_its_adapter(pair, make_backend, client_of, passage):
    by_repository = {"adapter_for": adapters_for({"app": "app-lora"}, {"app": "", "web": ""}, None).of}
    found = [passage("app/src/run.py"), passage("web/run.py")]
    async with (
        serving_of(pair, engine_adapters={"app": "app-lora"}) as serving,
        client_of(make_backend, serving, passages=found, doors=by_repository) as http,
    ):
        answered = (await http.post("/ask", json={"question": "where is run?"})).json()
        assert answered["adapter"] == "app-lora"
        bare = (await http.post("/ask", json={"question": "where is run?", "adapter": "none"})).json()
        assert bare["adapter"] is None
