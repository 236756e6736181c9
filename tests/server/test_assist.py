"""The answering path: events as they happen, honest about what is missing."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from indexer.index import IndexUnavailable
from server.assist import Done, Notice, Text, Wish, answer, search_text
from server.engine import EngineError
from server.generation import GenerationError
from server.prompt import Question, Turn


async def events(question, wish, doors):
    return [event async for event in answer(question, wish, doors)]


def told(everything):
    return "".join(event.delta for event in everything if isinstance(event, Text))


async def test_the_pieces_are_the_answer_and_the_citation_is_checked(scripted, doors, passage):
    everything = await events(Question("where?"), Wish(), doors(scripted(), [passage()]))
    done = everything[-1]
    assert isinstance(done, Done)
    assert told(everything) == done.answer == "It is in run [1]."
    assert [(c.index, c.path, c.start_line, c.end_line, c.commit, c.verified) for c in done.citations] == [
        (1, "app.py", 1, 2, "c0ffee", True)
    ]
    assert (done.adapter, done.base_model, done.notices) == ("2026-01-01-0000-abc", "scripted", ())
    assert set(done.timings_ms) == {"search", "prompt", "first_token", "total"}


@pytest.mark.parametrize("script", [["See [", "9", "9] or ", "[1", "]."], ["See [99] or [1]."]])
async def test_a_marker_for_nothing_never_reaches_the_reader_however_it_is_cut(script, scripted, doors, passage):
    everything = await events(Question("where?"), Wish(), doors(scripted(script), [passage()]))
    assert told(everything) == everything[-1].answer == "See or [1]."


async def test_a_passage_that_changed_meanwhile_is_marked_stale(scripted, doors, passage):
    done = (await events(Question("where?"), Wish(), doors(scripted(), [passage()], is_there=False)))[-1]
    assert [c.verified for c in done.citations] == [False]
    assert done.notices[-1] == "app.py changed while this was written: [1] is stale."


async def test_without_an_index_it_answers_and_says_so(scripted, doors):
    everything = await events(Question("q?"), Wish(), doors(scripted(["Yes."]), IndexUnavailable("it is locked")))
    assert everything[0] == Notice("Answered without your code: it is locked")
    assert everything[-1].answer == "Yes."


async def test_without_an_engine_it_gives_the_passages_and_says_so(doors, passage):
    done = (await events(Question("q?"), Wish(), doors(EngineError("it is starting"), [passage()])))[-1]
    assert (done.answer, done.base_model, [p.path for p in done.passages]) == ("", "", ["app.py"])
    assert done.notices == ("No model answers now (it is starting). These are the passages found.",)


async def test_while_the_tree_is_read_the_answer_says_so_and_not_that_nothing_matches(scripted, doors):
    waiting = replace(doors(EngineError("it is starting"), []), not_read=lambda: "indexing words: 3 of 403")
    done = (await events(Question("q?"), Wish(), waiting))[-1]
    assert done.notices == (
        "Not all of the code is read yet (indexing words: 3 of 403): ask again in a moment.",
        "No model answers now (it is starting).",
    )


async def test_a_failed_generation_is_the_callers_to_show(scripted, doors, passage):
    with pytest.raises(GenerationError, match="broke off"):
        await events(Question("q?"), Wish(), doors(scripted(["it ", GenerationError("vLLM broke off")]), [passage()]))


async def test_a_reader_that_leaves_stops_the_model(scripted, doors, passage):
    model = scripted(["a ", "b ", "c "])
    async with aclosing(answer(Question("q?"), Wish(), doors(model, [passage()]))) as stream:
        async for _ in stream:
            break
    assert model.stopped == 1


@pytest.mark.parametrize("retrieval", [True, False])
async def test_the_first_token_is_shown_before_the_second_is_written(scripted, doors, passage, retrieval):
    may_go_on = asyncio.Event()
    model = scripted(["The", may_go_on, " rest."])
    async with aclosing(answer(Question("q?"), Wish(retrieval), doors(model, [passage()]))) as stream:
        async with asyncio.timeout(10):
            assert await anext(stream) == Text("The")
        may_go_on.set()
        assert told([event async for event in stream]) == " rest."


async def test_without_retrieval_nothing_is_searched(scripted, doors):
    broken = AssertionError("searched")
    done = (await events(Question("q?"), Wish(retrieval=False), doors(scripted(["Yes."]), broken)))[-1]
    assert (done.answer, done.passages, done.citations) == ("Yes.", (), ())


def test_a_follow_up_searches_with_the_question_before_it():
    turns = (Turn("user", "Where are retries?"), Turn("assistant", "In net.py"))
    assert search_text(Question("And their default?", conversation=turns)) == "And their default?\nWhere are retries?"


async def test_unsaved_files_lie_over_the_index_the_open_one_first(scripted, doors, passage):
    seen = []
    opened = doors(scripted(), [passage()])

    async def search(query, k, overlays):
        seen.append(overlays)
        return [passage()]

    question = Question("q?", "a.py", "new a", overlays=(("a.py", "old a"), ("b.py", "new b")))
    await events(question, Wish(), replace(opened, search=search))
    assert seen == [{"a.py": "new a", "b.py": "new b"}]
