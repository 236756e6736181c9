"""Ghost text: advertised, off where the model cannot, the newest only, cached, and never late."""

from __future__ import annotations

import asyncio
import time

import pytest

from server.lsp_inline import Pace, cut_windows, most_alike, trimmed


@pytest.fixture
async def ghost(start_editor, workspace, backend, script):
    """An editor whose model can fill in the middle, with `reader.py` open; `.at(line, character)` asks."""
    script.ready = {"fim": True}
    editor = await start_editor()
    await editor.initialize(workspace)
    uri = editor.open(workspace / "reader.py", "def read(path):\n    return é😀\n\n")

    async def at(line: int, character: int, kind: int = 1):
        where = {
            "textDocument": {"uri": uri},
            "position": {"line": line, "character": character},
            "context": {"triggerKind": kind},
        }
        return (await editor.request("textDocument/inlineCompletion", where))["items"]

    editor.at, editor.uri = at, uri
    return editor


def change(editor, line: int, character: int, text: str) -> None:
    place = {"line": line, "character": character}
    edit = {"range": {"start": place, "end": place}, "text": text}
    editor.notify(
        "textDocument/didChange", {"textDocument": {"uri": editor.uri, "version": 2}, "contentChanges": [edit]}
    )


async def test_the_model_fills_in_between_what_stands_before_and_after(ghost, script):
    script.completion = "open(path)\n"
    assert ghost.initialized["capabilities"]["inlineCompletionProvider"] == {}
    (item,) = await ghost.at(1, 11)
    here = {"line": 1, "character": 11}
    assert item == {"insertText": "open(path)", "range": {"start": here, "end": here}}
    body = script.completions[-1]
    assert body["prompt"].endswith("def read(path):\n    return ")
    assert body["suffix"] == "é😀\n\n"


async def test_what_is_selected_in_the_editors_list_is_what_it_goes_on_from(ghost, script):
    """LSP 3.18's selectedCompletionInfo: an editor shows nothing that does not begin with the selected item."""
    script.completion = "(path)"
    change(ghost, 1, 11, "😀.op")
    chosen = {"range": {"start": {"line": 1, "character": 14}, "end": {"line": 1, "character": 16}}, "text": "open"}
    where = {"textDocument": {"uri": ghost.uri}, "position": {"line": 1, "character": 16}}
    asked = where | {"context": {"triggerKind": 2, "selectedCompletionInfo": chosen}}
    (item,) = (await ghost.request("textDocument/inlineCompletion", asked))["items"]
    assert item == {"insertText": "open(path)", "range": chosen["range"]}
    assert script.completions[-1]["prompt"].endswith("return 😀.open")
    assert script.completions[-1]["suffix"] == "é😀\n\n"
    change(ghost, 1, 16, "en")  # taken: what followed it is offered again, and nobody is asked
    (rest,) = await ghost.at(1, 18)
    assert (rest["insertText"], len(script.completions)) == ("(path)", 1)
    many = {**asked, "context": {"triggerKind": 2, "selectedCompletionInfo": chosen | {"text": "a\nb"}}}
    assert (await ghost.request("textDocument/inlineCompletion", many))["items"] == []


async def test_context_from_the_index_and_open_buffers_stands_above_as_comments(ghost, script, workspace):
    script.passages[0] |= {"path": "other.py", "text": "def lookalike(path): ...\n"}
    ghost.open(workspace / "dos.py", "def read(path):\n    return path  # similar\n")
    script.completion = "x"
    await ghost.at(2, 0)
    lines = script.completions[-1]["prompt"].splitlines()
    assert "# other.py" in lines
    assert "# def lookalike(path): ..." in lines
    assert "#     return path  # similar" in lines
    assert lines.index("def read(path):") > lines.index("# other.py")


async def test_what_is_typed_into_a_suggestion_comes_from_the_cache(ghost, script):
    script.completion = "print(1)\nprint(2)"
    (first,) = await ghost.at(2, 0)
    change(ghost, 2, 0, "pri")
    (rest,) = await ghost.at(2, 3, kind=2)
    assert (first["insertText"], rest["insertText"]) == ("print(1)\nprint(2)", "nt(1)\nprint(2)")
    assert len(script.completions) == 1
    change(ghost, 2, 3, "X")
    await ghost.at(2, 4)
    assert len(script.completions) == 2


async def test_only_the_newest_is_worked_on(ghost, script):
    script.completion, script.completion_wait_s = "late", 0.4
    where = {"textDocument": {"uri": ghost.uri}, "position": {"line": 2, "character": 0}, "context": {"triggerKind": 1}}
    futures = []
    for _ in range(5):
        futures.append(ghost.begin("textDocument/inlineCompletion", where)[1])
        await asyncio.sleep(0.02)
    answers = await asyncio.wait_for(asyncio.gather(*futures), 10)
    assert [len(answer["items"]) for answer in answers] == [0, 0, 0, 0, 1]


async def test_nothing_is_better_than_late(start_editor, workspace, backend, script):
    script.ready, script.completion, script.completion_wait_s = {"fim": True}, "late", 2.0
    editor = await start_editor()
    await editor.initialize(workspace, options={"inlineTimeoutS": 0.3})
    uri = editor.open(workspace / "reader.py", "x = \n")
    await editor.request("nightschool/status", {})
    started = time.monotonic()
    where = {"textDocument": {"uri": uri}, "position": {"line": 0, "character": 4}, "context": {"triggerKind": 1}}
    assert (await editor.request("textDocument/inlineCompletion", where))["items"] == []
    assert 0.25 < time.monotonic() - started < 1.5


async def test_a_cancelled_completion_is_answered_as_cancelled_and_the_next_one_works(ghost, script):
    script.completion, script.completion_wait_s = "x", 0.5
    where = {"textDocument": {"uri": ghost.uri}, "position": {"line": 2, "character": 0}, "context": {"triggerKind": 1}}
    request_id, future = ghost.begin("textDocument/inlineCompletion", where)
    await ghost.until(lambda: script.completions)
    ghost.cancel(request_id)
    with pytest.raises(Exception, match="cancel") as refused:
        await asyncio.wait_for(future, 5)
    assert refused.value.code == -32800
    script.completion_wait_s = 0
    assert len(await ghost.at(2, 0)) == 1


async def test_with_a_model_that_cannot_it_is_off_and_says_so(editor, workspace, script):
    uri = editor.open(workspace / "reader.py", "x = \n")
    where = {"textDocument": {"uri": uri}, "position": {"line": 0, "character": 4}, "context": {"triggerKind": 1}}
    assert (await editor.request("textDocument/inlineCompletion", where))["items"] == []
    assert script.completions == []
    state = (await editor.request("nightschool/status", {}))["inlineCompletion"]
    assert state == {
        "enabled": False,
        "reason": "scripted-1b cannot fill in the middle; take a model that can (Qwen2.5-Coder)",
    }


async def test_plain_completion_stands_in_where_the_editor_asks_for_it(start_editor, workspace, backend, script):
    script.ready, script.completion = {"fim": True}, "open(path)"
    editor = await start_editor()
    await editor.initialize(workspace, options={"completion": True, "inlineCompletion": False})
    assert "inlineCompletionProvider" not in editor.initialized["capabilities"]
    uri = editor.open(workspace / "reader.py", "x = \n")
    here = {"line": 0, "character": 4}
    found = await editor.request("textDocument/completion", {"textDocument": {"uri": uri}, "position": here})
    (item,) = found["items"]
    assert item["textEdit"] == {"range": {"start": here, "end": here}, "newText": "open(path)"}


async def test_copilots_notifications_are_accepted(ghost, script):
    ghost.notify("textDocument/didShowCompletion", {"item": {"insertText": "x"}})
    ghost.notify("textDocument/didPartiallyAcceptCompletion", {"item": {}, "acceptedLength": 1})
    assert (await ghost.request("nightschool/status", {}))["inlineCompletion"]["enabled"] is True


@pytest.mark.parametrize(
    ("completion", "after", "kept"),
    [
        ("open(path)\n\n", "\n", "open(path)"),
        ("a, b)", ")\n", "a, b"),
        ("a\nmore", " + 1\n", "a"),
        ("  ", "\n", ""),
        ("", "", ""),
        ("x = 1\ny = 2", "\n\ny = 2\n", "x = 1"),
        ("é😀\r\n", "\r\n", "é😀"),
    ],
)
def test_a_completion_does_not_repeat_what_stands_after_the_cursor(completion, after, kept):
    assert trimmed(completion, after) == kept


def test_the_wait_follows_the_writers_pace():
    fast, slow = Pace(), Pace()
    for n in range(20):
        fast_wait, slow_wait = fast.wait_s(n * 0.08), slow.wait_s(n * 0.45)
    assert fast_wait < 0.06 < 0.15 < slow_wait <= 0.25
    assert slow.wait_s(1000) <= 0.25


def test_the_most_alike_window_is_found():
    lines = [f"def nothing_{n}(): pass\n" for n in range(100)]
    lines[50] = "def read_settings(path): return parse_toml(path)\n"
    score, window = most_alike(frozenset({"read_settings", "parse_toml", "path"}), cut_windows(lines))
    assert "parse_toml" in window
    assert score > 0
    assert most_alike(frozenset(), cut_windows([])) == (0.0, "")
