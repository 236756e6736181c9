"""The queue of questions: full is full, and nobody keeps the others out."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from server.answering import COMES_BACK_S, RETRY_AFTER_S, Queue, TooManyQuestions
from server.backoff import READY
from server.base_model import Fim
from server.generation import Finish


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


async def forever():
    while True:
        yield None


async def ask(queue, name):
    """A question in work; closing it ends it."""
    events = queue.held(forever(), name)
    await anext(events)
    return events


async def refused(queue, name):
    with pytest.raises(TooManyQuestions) as error:
        await ask(queue, name)
    return str(error.value)


async def test_one_who_asks_alone_has_every_place():
    queue = Queue(4)
    held = [await ask(queue, "ann") for _ in range(4)]
    assert await refused(queue, "ann") == "4 questions are waiting already"
    await held.pop().aclose()
    held.append(await ask(queue, "ann"))


async def test_a_freed_place_goes_to_who_was_refused_and_not_to_who_holds_the_rest():
    queue = Queue(4)
    anns = [await ask(queue, "ann") for _ in range(4)]
    assert await refused(queue, "bob") == "4 questions are waiting already"
    await anns.pop().aclose()
    assert await refused(queue, "ann") == "others wait too, and 3 of 4 places are yours"
    await ask(queue, "bob")


async def test_both_have_an_even_share_when_both_wait():
    queue = Queue(4)
    anns = [await ask(queue, "ann") for _ in range(4)]
    bobs = []
    for _ in range(4):
        await refused(queue, "bob")
        await refused(queue, "ann")
        if len(anns) > 2:
            await anns.pop().aclose()
            bobs.append(await ask(queue, "bob"))
    assert (len(anns), len(bobs)) == (2, 2)
    await anns.pop().aclose()
    assert await refused(queue, "bob") == "others wait too, and 2 of 4 places are yours"
    await ask(queue, "ann")


async def test_no_place_is_kept_for_one_who_does_not_come_back():
    clock = Clock()
    queue = Queue(4, clock)
    anns = [await ask(queue, "ann") for _ in range(4)]
    await refused(queue, "bob")
    await anns.pop().aclose()
    await refused(queue, "ann")
    clock.now += COMES_BACK_S
    await ask(queue, "ann")


class Completing:
    """Serves a base model that can fill in the middle, and waits until it may."""

    def __init__(self):
        self.state, self.adapter, self.in_work, self.may_end = READY, None, 0, asyncio.Event()
        self.base_model = SimpleNamespace(name="m", fim=Fim("<P>", "<S>", "<M>"))

    @asynccontextmanager
    async def borrow(self, version=None):
        yield self

    async def complete(self, prompt, sampling):
        self.in_work += 1
        await self.may_end.wait()
        yield "return 1"
        yield Finish("stop", 3, 2)


async def test_text_completions_have_places_in_the_queue_too(make_backend, client_of):
    serving = Completing()
    async with client_of(make_backend, serving, queue=2) as http:
        body = {"prompt": "def run():\n    ", "suffix": "\n"}
        held = [asyncio.create_task(http.post("/v1/completions", json=body)) for _ in range(2)]
        async with asyncio.timeout(10):
            while serving.in_work < 2:
                await asyncio.sleep(0)
        for path, one_more in (("/v1/completions", body), ("/ask", {"question": "where is run?"})):
            refused = await http.post(path, json=one_more)
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, str(RETRY_AFTER_S))
        serving.may_end.set()
        assert [(await one).json()["choices"][0]["text"] for one in held] == ["return 1"] * 2
        assert (await http.post("/v1/completions", json=body)).status_code == 200
