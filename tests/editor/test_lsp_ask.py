"""Asking from an editor: the real language server between a client over stdio and a scripted backend."""

from __future__ import annotations

import asyncio

import pytest


async def test_an_answer_streams_as_progress_and_comes_whole_at_the_end(editor, script):
    script.pieces = ["Reads ", "é😀 ", "one file ", "[1]."]
    script.notices = ["the index is 3 s behind"]
    script.piece_wait_s = 0.06

    result = await editor.request(
        "nightschool/ask", {"question": "What?", "partialResultToken": "t", "workDoneToken": "w"}
    )

    values = editor.progress("t")
    assert values[0] == {"kind": "notice", "text": "the index is 3 s behind"}
    deltas = [value["text"] for value in values if value["kind"] == "delta"]
    assert len(deltas) >= 3
    assert "".join(deltas) == result["answer"] == "Reads é😀 one file [1]."
    assert [value["kind"] for value in editor.progress("w")] == ["begin", "end"]
    assert result["adapter"] == "2026-11-23-abc"
    assert result["baseModel"] == "scripted-1b"
    assert result["freshness"]["dirtyFiles"] == 1
    assert result["notices"] == ["the index is 3 s behind"]


async def test_a_citation_names_the_file_as_the_editor_spells_it(editor, workspace):
    result = await editor.request("nightschool/ask", {"question": "What?"})

    (citation,) = result["citations"]
    assert citation["uri"] == (workspace / "reader.py").as_uri()
    assert citation["range"] == {"start": {"line": 0, "character": 0}, "end": {"line": 2, "character": 0}}
    assert (citation["startLine"], citation["endLine"], citation["verified"]) == (1, 2, True)
    assert result["markdown"] == f"Reads one file [&#91;1&#93;]({citation['uri']}#L1)."


async def test_the_command_answers_the_same_as_the_method(editor):
    by_method = await editor.request("nightschool/ask", {"question": "What?"})
    asked = {"question": "What?", "partialResultToken": 7}
    by_command = await editor.request("workspace/executeCommand", {"command": "nightschool.ask", "arguments": [asked]})
    by_text = await editor.request("workspace/executeCommand", {"command": "nightschool.ask", "arguments": ["What?"]})

    assert by_method == by_command == by_text
    assert "".join(value["text"] for value in editor.progress(7)) == by_method["answer"]


async def test_the_selection_and_the_unsaved_buffer_go_with_the_question(editor, workspace, script):
    saved = (workspace / "reader.py").read_text()
    uri = editor.open(workspace / "reader.py", saved)
    place = {"start": {"line": 1, "character": 22}, "end": {"line": 1, "character": 25}}
    params = {"question": "What?", "textDocument": {"uri": uri}, "range": place}
    await editor.request("nightschool/ask", params)
    change = {"range": {"start": {"line": 0, "character": 4}, "end": {"line": 0, "character": 8}}, "text": "lis"}
    editor.notify("textDocument/didChange", {"textDocument": {"uri": uri, "version": 2}, "contentChanges": [change]})
    await editor.request("nightschool/ask", params)

    clean, unsaved = script.asked
    assert (clean["path"], clean["selection"]) == ("reader.py", "é😀")
    assert "buffer" not in clean
    assert unsaved["buffer"] == saved.replace("read(", "lis(")


async def test_other_unsaved_buffers_go_along_where_the_backend_takes_them(editor, workspace, script):
    uri = editor.open(workspace / "reader.py", (workspace / "reader.py").read_text())
    editor.open(workspace / "dos.py", "a = 1\r\nb = 2\r\n")
    editor.open(workspace / "empty.py", "é😀 = 'not saved'\n")
    editor.open(workspace / "new.py", "")
    editor.open("untitled:x", "nowhere")
    await editor.request("nightschool/ask", {"question": "?", "textDocument": {"uri": uri}})
    script.ready = {"accepts": ["overlays"]}
    await editor.request("nightschool/status", {})
    await editor.request("nightschool/ask", {"question": "?", "textDocument": {"uri": uri}})
    assert "overlays" not in script.asked[0]
    assert script.asked[1]["overlays"] == {"new.py": "", "empty.py": "é😀 = 'not saved'\n"}


async def test_a_cancelled_question_stops_the_generation(editor, script):
    script.pieces, script.piece_wait_s = ["x"] * 400, 0.02
    for method, params in (
        ("nightschool/ask", {"question": "What?", "partialResultToken": "t"}),
        (
            "workspace/executeCommand",
            {"command": "nightschool.ask", "arguments": [{"question": "What?", "partialResultToken": "t"}]},
        ),
    ):
        editor.notifications.clear()
        script.left.clear()
        request_id, future = editor.begin(method, params)
        await editor.until(lambda: editor.progress("t"))
        editor.cancel(request_id)
        with pytest.raises(Exception, match="cancel") as refused:
            await asyncio.wait_for(future, 5)
        assert refused.value.code == -32800
        assert await asyncio.to_thread(script.left.wait, 5), "the backend still writes"
        told = len(editor.notifications)
        await editor.request("nightschool/status", {})
        assert len(editor.notifications) == told, "deltas came after the cancel"


async def test_stopping_the_shown_progress_stops_the_question(editor, script):
    script.pieces, script.piece_wait_s = ["x"] * 400, 0.02
    _, future = editor.begin("nightschool/ask", {"question": "What?", "workDoneToken": "w"})
    await editor.until(lambda: editor.progress("w") and script.asked)
    editor.notify("window/workDoneProgress/cancel", {"token": "w"})
    with pytest.raises(Exception, match="cancel") as refused:
        await asyncio.wait_for(future, 5)
    assert refused.value.code == -32800
    assert await asyncio.to_thread(script.left.wait, 5), "the backend still writes"
    assert [value["kind"] for value in editor.progress("w")] == ["begin", "end"]


async def test_a_backend_that_breaks_off_is_an_error_and_not_half_an_answer(editor, script):
    script.break_after = 2
    with pytest.raises(Exception, match=r"ended the answer in the middle|broke off") as refused:
        await editor.request("nightschool/ask", {"question": "What?"})
    assert refused.value.code == -32803


async def test_what_the_backend_refuses_is_said_in_its_words(editor, script):
    script.refuse = (404, "there is no adapter 7; there are: a, b")
    with pytest.raises(Exception, match="there is no adapter 7; there are: a, b"):
        await editor.request("nightschool/ask", {"question": "What?", "adapter": "7"})
    script.refuse, script.error = None, "vLLM broke off"
    with pytest.raises(Exception, match="vLLM broke off"):
        await editor.request("nightschool/ask", {"question": "What?"})


MISFITS = [
    ({}, "params.question is missing"),
    (None, "params must be an object"),
    ([], "params must be an object"),
    ({"question": 7}, "params.question must be a str"),
    ({"question": "  "}, "1 to 8000 characters"),
    ({"question": "x" * 8001}, "1 to 8000 characters"),
    ({"question": "x", "range": {"start": {"line": 0}}}, "params.range.start.character is missing"),
    ({"question": "x", "conversation": [{"role": "system", "content": ""}]}, "role must be one of user, assistant"),
]


async def test_params_that_do_not_fit_are_named(editor):
    for params, fault in MISFITS:
        with pytest.raises(Exception, match=fault) as refused:
            await editor.request("nightschool/ask", params)
        assert refused.value.code == -32602


async def test_half_a_surrogate_pair_reaches_the_backend_as_text(editor, script):
    editor.send_bytes(
        b'{"jsonrpc":"2.0","id":"s","method":"nightschool/ask","params":{"question":"a \\ud83d b",'
        b'"class":1,"type_name":"x"}}'
    )
    await editor.until(lambda: [r for r in editor.responses if r["id"] == "s" and "result" in r])
    assert script.asked[-1]["question"] == "a ? b"


async def test_a_conversation_goes_along_oldest_first(editor, script):
    turns = [{"role": "user", "content": "é"}, {"role": "assistant", "content": "😀"}]
    await editor.request(
        "nightschool/ask", {"question": "And?", "conversation": turns, "k": 3, "maxTokens": 9, "retrieval": False}
    )
    body = script.asked[-1]
    assert (body["conversation"], body["k"], body["max_tokens"], body["retrieval"]) == (turns, 3, 9, False)


async def test_search_finds_passages_with_places(editor, workspace):
    found = await editor.request("nightschool/search", {"query": "read", "k": 2})
    assert found["passages"][0]["uri"] == (workspace / "reader.py").as_uri()
    assert found["tookMs"] == 1.5
