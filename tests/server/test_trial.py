"""A trial of an engine: it counts what it writes, and one that writes nothing cannot serve."""

import pytest

from server.generation import GenerationError
from server.trial import time_engine


async def test_an_engine_that_answers_is_timed(scripted):
    model = scripted(script=("It ", "is ", "good."))
    trial = await time_engine(model)
    assert trial.fault == ""
    assert 0 <= trial.first_token_s < 5
    assert trial.tokens_per_s > 0
    assert model.stopped == 1


async def test_an_engine_that_writes_nothing_cannot_serve(scripted):
    assert (await time_engine(scripted(script=()))).fault.startswith("the engine writes nothing")


async def test_an_engine_that_breaks_off_is_the_callers_to_show(scripted):
    with pytest.raises(GenerationError):
        await time_engine(scripted(script=("It ", GenerationError("broke off"))))
