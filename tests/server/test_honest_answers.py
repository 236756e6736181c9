"""An answer never stands on nothing: what the code says comes with it, and what is unknown is said."""

import asyncio
import re
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace

import pytest

from indexer.index import IndexUnavailable
from server.adapter import UnknownAdapter
from server.assist import CODES_WORDS, MODELS_WORDS, Text, Wish, answer
from server.backend import is_code_first
from server.engine import EngineError
from server.generation import GenerationError
from server.prompt import Question, Turn
from server.settings import ServerSettings

CODE = "def load(path, max_age=30):\n    if not path:\n        raise MissingPath(path)\n    return read_all(path)\n"
QUESTION = Question("Which exception does load raise for a missing path?")
QUOTED = "`load` in `app.py`, lines 1-3 [1]:"
INVENTED = "It raises `NoSuchThing` in `open_safely()`."
GROUNDED = "It raises `MissingPath` [1]."


async def events(question, doors, wish=None):
    return [event async for event in answer(question, wish or Wish(), doors)]


def told(everything):
    return "".join(event.delta for event in everything if isinstance(event, Text))


@pytest.fixture
def ask(scripted, doors, passage):
    """Asks `question` of a model that writes `text`, over one passage of code; the last event, after checking that
    what was told is the answer."""

    async def run(text, question=QUESTION, passages=None, wish=None, **more):
        model = scripted([text] if isinstance(text, str) else text) if not isinstance(text, EngineError) else text
        found = [passage(text=CODE)] if passages is None else passages
        everything = await events(question, doors(model, found, **more), wish)
        assert told(everything) == everything[-1].answer
        return everything[-1]

    return run


async def test_a_small_models_invention_is_left_out_and_the_code_stands_in_its_place(ask):
    done = await ask(INVENTED, code_first=True)
    assert done.answer.startswith(QUOTED)
    assert "raise MissingPath(path)" in done.answer
    assert "NoSuchThing" not in done.answer
    assert [n for n in done.notices if "left out" in n] == [
        "The model's words are left out: too little of them stands on your code (groundedness 0.17)."
    ]
    assert done.groundedness == 1.0
    assert [c.index for c in done.citations] == [1]


async def test_a_small_models_grounded_words_follow_the_code(ask):
    done = await ask(GROUNDED, code_first=True)
    assert done.answer.startswith(QUOTED)
    assert done.answer.endswith(f"which may be wrong where the code above is not:\n\n{GROUNDED}")
    assert not [n for n in done.notices if "left out" in n]


@pytest.mark.parametrize("script", [["[1]"], ["[", "1", "]"], ["[1].\n"]])
async def test_a_marker_without_words_says_what_it_points_at_and_the_code_comes_with_it(script, ask):
    done = await ask(script)
    said = f"{''.join(script).rstrip()}\n\n`run` in `app.py`, lines 1-4 [1]"
    assert done.answer.startswith(f"{said}{CODES_WORDS}{QUOTED}")
    assert ([c.index for c in done.citations], done.notices) == ([1], ())


async def test_what_a_small_model_points_at_follows_the_code(ask):
    done = await ask("[1]", code_first=True)
    assert done.answer.startswith(QUOTED)
    assert done.answer.endswith(f"{MODELS_WORDS}[1]\n\n`run` in `app.py`, lines 1-4 [1]")
    assert done.notices == ()


@pytest.mark.parametrize(
    ("parameters", "first"), [(135e6, True), (1.54e9, True), (3.09e9, False), (7.6e9, False), (0, False)]
)
def test_the_code_comes_first_for_models_as_small_as_those_that_were_worse_than_it(parameters, first):
    assert is_code_first(ServerSettings(), SimpleNamespace(parameters=parameters)) is first
    assert is_code_first(ServerSettings(code_first="always"), SimpleNamespace(parameters=parameters))


async def test_the_code_comes_before_the_model_has_written_a_word(scripted, doors, passage):
    model = scripted([INVENTED])
    async with aclosing(answer(QUESTION, Wish(), doors(model, [passage(text=CODE)], code_first=True))) as stream:
        first = await anext(stream)
    assert first.delta.startswith(QUOTED)
    assert model.seen == []


async def test_an_unknown_version_is_an_error_before_anything_is_said(doors, passage):
    opened = doors(UnknownAdapter("no adapter xyz"), [passage(text=CODE)], code_first=True)
    async with aclosing(answer(QUESTION, Wish(adapter="xyz"), opened)) as stream:
        with pytest.raises(UnknownAdapter):
            await anext(stream)


async def test_a_version_that_is_there_quotes_the_code_too(ask):
    assert (await ask(INVENTED, code_first=True, wish=Wish(adapter="2026-01-01-0000-abc"))).answer.startswith(QUOTED)


async def test_a_larger_models_words_come_at_once_and_the_code_follows_when_they_stand_on_nothing(ask):
    done = await ask(INVENTED)
    assert done.answer.startswith(INVENTED)
    assert "What the code says:\n\n`load` in `app.py`" in done.answer
    assert any("groundedness 0.17" in notice for notice in done.notices)


async def test_a_larger_models_words_that_cite_nothing_are_followed_by_the_code(ask):
    done = await ask("It raises `MissingPath`.")
    assert done.answer.startswith("It raises `MissingPath`.\n\nWhat the code says:\n\n`load`")
    assert done.notices == ()


async def test_a_larger_models_grounded_words_stand_alone(ask):
    done = await ask(GROUNDED)
    assert (done.answer, done.groundedness, done.notices) == (GROUNDED, 1.0, ())


async def test_a_small_models_grounded_words_never_stand_alone(ask):
    done = await ask(GROUNDED, words_alone=False)
    assert done.answer.startswith(f"{GROUNDED}\n\nWhat the code says:\n\n`load` in `app.py`")


async def test_names_that_exist_nowhere_are_flagged(ask):
    done = await ask(INVENTED, knows=lambda name: name == "open_safely")
    assert "Named in the answer, and nowhere in the index: `NoSuchThing`." in done.notices


@pytest.mark.parametrize("broken", [EngineError("it is starting"), ["It ", GenerationError("vLLM broke off")]])
async def test_without_a_working_model_the_code_is_still_quoted(broken, ask):
    done = await ask(broken, code_first=True)
    assert done.answer.startswith(QUOTED)
    assert any("it is starting" in n or "vLLM broke off" in n for n in done.notices)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("What does `open_safely` do?", "`open_safely`: this stands nowhere in the indexed code."),
        ("How are background jobs queued in Celery?", "Nothing in the indexed code answers this"),
    ],
)
async def test_a_question_about_nothing_is_told_so_and_no_model_guesses(text, why, scripted, doors, passage):
    model = scripted([INVENTED])
    done = (await events(Question(text), doors(model, [passage(text=CODE)], knows=lambda name: False)))[-1]
    assert done.answer.startswith(why)
    assert (model.seen, done.base_model, [c.path for c in done.citations]) == ([], "", ["app.py"])


@pytest.mark.parametrize(
    "question",
    [
        Question("Write a function called `open_safely`."),
        Question("What does `open_safely` do with `max_age` for a missing path?"),
        Question("Can you refactor the shopping cart to be faster?"),
        Question("What happens here?"),
        Question("Wo wird der Pfad im Hintergrund geladen?"),
        Question("How are background jobs queued in Celery?", selection="x = 1"),
    ],
)
async def test_what_asks_for_work_or_says_little_of_the_code_is_the_models_to_answer(question, ask):
    done = await ask(GROUNDED, question, knows=lambda name: name == "max_age")
    assert GROUNDED in done.answer


async def test_text_and_code_that_disagree_are_told_apart_before_anything_else(ask, passage):
    found = [passage(text=CODE), replace(passage("docs/a.md", "`max_age` defaults to 60.\n"), language="markdown")]

    async def last_changed(path):
        return "2026-01-02" if path == "app.py" else ""

    done = await ask(GROUNDED, Question("What is the default max_age of load?"), found, last_changed=last_changed)
    assert done.answer.startswith(
        "Text and code disagree: docs/a.md:1 says `max_age` is 60 [2], app.py:1 (2026-01-02) says 30 [1]."
    )
    assert [c.index for c in done.citations] == [2, 1]


async def test_what_is_named_comes_first_and_every_place_once(ask, passage):
    named, other = passage("b.py", "class Named:\n    key = 1\n"), passage("a.py", CODE)

    async def find_named(text, overlays):
        return [named, other]

    done = await ask(GROUNDED, Question("What does Named do?"), [other, passage("c.py"), named], find_named=find_named)
    assert [p.path for p in done.passages] == ["b.py", "a.py", "c.py"]


async def test_a_follow_up_looks_for_what_the_turn_before_named(scripted, doors, passage):
    looked = []

    async def find_named(text, overlays):
        looked.append(text)
        return [passage(text=CODE)]

    turns = (Turn("user", "What does load do?"), Turn("assistant", "It loads."))
    question = Question("Which exception does it raise?", conversation=turns)
    done = (await events(question, doors(scripted([GROUNDED]), [passage("z.py")], find_named=find_named)))[-1]
    assert looked == ["Which exception does it raise?\nWhat does load do?"]
    assert done.passages[0].path == "app.py"


async def test_markers_mean_the_same_passage_when_the_prompt_had_no_room_for_one(ask, passage):
    long = passage("long.py", "load path " * 4000)
    done = await ask("So it is [2].", passages=[passage(text=CODE), long, passage("c.py", CODE)])
    assert "So it is [3]." in done.answer
    assert done.citations[0].path == "c.py"


async def test_an_explained_answer_says_all_that_the_model_read_and_wrote(ask):
    assert (await ask(INVENTED)).explanation is None
    explained = (await ask(INVENTED, code_first=True, wish=Wish(explain=True))).explanation
    assert "raise MissingPath" in explained.prompt[-1].content
    assert (explained.written, explained.scores) == (INVENTED, (1.0,))
    assert explained.support == 1.0
    assert explained.groundedness.unknown == ()


async def test_a_secret_never_leaves_in_an_answer(ask):
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2
    done = await ask(["The token is ghp_", token[4:], " [1]."])
    assert done.answer.startswith("The token is <secret:github-token> [1].")


@pytest.mark.parametrize("size", [1, 4, 500])
async def test_a_fence_that_the_model_copied_is_not_shown(size, scripted, doors, passage):
    seen = scripted([GROUNDED])
    await events(QUESTION, doors(seen, [passage(text=CODE)]))
    fence = re.search(r"<[0-9a-f]{8}>", seen.seen[0][-1].content)[0]
    text = f"[1] app.py, lines 1-4 {fence}\nIt is {fence.replace('<', '</')} `load` <b>."
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    done = (await events(QUESTION, doors(scripted(pieces), [passage(text=CODE)])))[-1]
    assert done.answer == "[1] app.py, lines 1-4\nIt is `load` <b>."


async def test_a_reader_that_leaves_while_the_models_words_are_held_back_stops_the_model(live, scripted, passage):
    stopped = asyncio.Event()

    class Silent(scripted):
        async def generate(self, messages, sampling):
            try:
                await asyncio.Event().wait()
                yield ""
            finally:
                stopped.set()

    shape = {"passages": [passage(text=CODE)], "doors": {"code_first": True}}
    headers = {"Accept": "text/event-stream"}
    async with live(Silent(), **shape) as http:
        async with http.stream("POST", "/ask", json={"question": QUESTION.text}, headers=headers) as stream:
            assert await anext(stream.aiter_lines()) == "event: text"
        await asyncio.wait_for(stopped.wait(), 2)


async def test_an_index_that_is_gone_flags_no_name(ask):
    def broken(name):
        raise IndexUnavailable("it is locked")

    done = await ask(INVENTED, passages=IndexUnavailable("it is locked"), knows=broken)
    assert (done.answer, done.notices) == (INVENTED, ("Answered without your code: it is locked",))
