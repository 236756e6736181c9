"""The queue of questions: full is full, and nobody keeps the others out."""

import pytest

from server.answering import COMES_BACK_S, Queue, TooManyQuestions


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
