"""Code actions: listed without the model, run when chosen, a fix shown before it is applied."""

from __future__ import annotations

import json

import pytest

from server.lsp_actions import code_block, fitted

CONFIRMS = {
    "workspace": {"workspaceEdit": {"documentChanges": True, "changeAnnotationSupport": {"groupsOnLabel": True}}},
    "textDocument": {"codeAction": {"dataSupport": True, "resolveSupport": {"properties": ["edit"]}}},
}
SHOWS = {"window": {"showDocument": {"support": True}}}


def at(start: tuple[int, int], end: tuple[int, int]) -> dict:
    return {"start": {"line": start[0], "character": start[1]}, "end": {"line": end[0], "character": end[1]}}


async def listed(editor, uri, place, diagnostics=(), **context):
    context = {"diagnostics": list(diagnostics), **context}
    return await editor.request(
        "textDocument/codeAction", {"textDocument": {"uri": uri}, "range": place, "context": context}
    )


async def test_actions_are_listed_without_asking_anybody(editor, workspace, script):
    uri = editor.open(workspace / "reader.py", (workspace / "reader.py").read_text())
    selected = at((0, 0), (1, 5))
    actions = await listed(editor, uri, selected)
    assert [action["title"] for action in actions] == [
        "nightschool: Explain",
        "nightschool: Ask about this",
        "nightschool: Review against this repository's conventions",
        "nightschool: Write a test",
        "nightschool: Suggest a fix",
    ]
    assert await listed(editor, uri, at((0, 3), (0, 3)), triggerKind=2) == []
    assert len(await listed(editor, uri, at((0, 3), (0, 3)), triggerKind=1)) == 5
    assert await listed(editor, uri, selected, only=["source.organizeImports"]) == []
    assert len(await listed(editor, uri, selected, only=["nightschool"])) == 5
    assert script.asked == []
    assert script.completions == []


async def test_a_chosen_action_is_asked_and_opened_as_a_safe_document(start_editor, workspace, backend, script):
    script.pieces = ["It reads [1]. ![x](http://attacker) <b>"]
    editor = await start_editor()
    await editor.initialize(workspace, SHOWS)
    uri = editor.open(workspace / "reader.py", (workspace / "reader.py").read_text())
    (explain, *_) = await listed(editor, uri, at((1, 22), (1, 25)))
    result = await editor.request("workspace/executeCommand", explain["command"] | {"title": None})

    assert script.asked[-1]["selection"] == "é😀"
    assert result["answer"] == script.pieces[0]
    shown = await editor.until(lambda: [r for r in editor.requests if r["method"] == "window/showDocument"])
    document = shown[0]["params"]["uri"]
    assert document == (workspace / ".nightschool" / "answers" / "answer-1.md").as_uri()
    text = (workspace / ".nightschool" / "answers" / "answer-1.md").read_text()
    assert f"[&#91;1&#93;]({(workspace / 'reader.py').as_uri()}#L1)" in text
    assert "![x]" not in text
    assert "<b>" not in text
    assert "commit abc1234def, 1 changed file, up to date" in text


async def test_helix_opens_the_answer_though_it_does_not_say_that_it_can(start_editor, workspace, backend):
    editor = await start_editor()
    await editor.initialize(workspace, clientInfo={"name": "helix"})
    uri = editor.open(workspace / "reader.py", "x = 1\n")
    (explain, *_) = await listed(editor, uri, at((0, 0), (0, 5)))
    await editor.request("workspace/executeCommand", explain["command"] | {"title": None})
    await editor.until(lambda: [r for r in editor.requests if r["method"] == "window/showDocument"])
    assert editor.told("window/showMessage") == []


async def test_an_editor_that_opens_no_document_after_all_gets_the_answer_as_a_message(
    start_editor, workspace, backend, script
):
    editor = await start_editor()
    editor.answers["window/showDocument"] = {"success": False}
    await editor.initialize(workspace, SHOWS)
    uri = editor.open(workspace / "reader.py", "x = 1\n")
    (explain, *_) = await listed(editor, uri, at((0, 0), (0, 5)))
    await editor.request("workspace/executeCommand", explain["command"] | {"title": None})
    await editor.until(lambda: editor.told("window/showMessage"))
    assert editor.told("window/showMessage") == [{"type": 3, "message": "".join(script.pieces)}]


async def test_a_citation_opens_its_lines_and_nothing_outside_the_folder(start_editor, workspace, backend):
    editor = await start_editor()
    await editor.initialize(workspace, SHOWS)
    (citation,) = (await editor.request("nightschool/ask", {"question": "?"}))["citations"]
    place = {"uri": citation["uri"], "range": citation["range"]}
    assert (
        await editor.request("workspace/executeCommand", {"command": "nightschool.open", "arguments": [place]}) is True
    )
    shown = editor.requests[-1]["params"]
    assert (shown["uri"], shown["selection"]) == (place["uri"], place["range"])
    outside = place | {"uri": "file:///etc/passwd"}
    with pytest.raises(Exception, match="only files of an open folder"):
        await editor.request("workspace/executeCommand", {"command": "nightschool.open", "arguments": [outside]})


async def test_an_editor_that_opens_no_documents_gets_a_message(editor, workspace):
    uri = editor.open(workspace / "reader.py", "x = 1\n")
    (explain, *_) = await listed(editor, uri, at((0, 0), (0, 5)))
    await editor.request("workspace/executeCommand", explain["command"])
    await editor.until(lambda: [p for p in editor.told("window/showMessage") if p["message"] == "Reads one file [1]."])


# The same characters in each encoding's units: from the "𝒳" of line 2 to the end of "return" in line 3.
SELECTED = {
    name: (at((1, column), (2, 8)), "𝒳\r\n\t\treturn")
    for name, column in (("utf-8", 21), ("utf-16", 20), ("utf-32", 20))
}


@pytest.mark.parametrize("encoding", sorted(SELECTED))
async def test_a_fix_is_an_edit_that_must_be_confirmed(start_editor, workspace, backend, script, encoding):
    script.pieces = [
        "Use with:\n```python\ndef read(path):\n    with open(path) as f:\n        return f.read()\n```\nIt closes."
    ]
    editor = await start_editor()
    await editor.initialize(workspace, CONFIRMS | {"general": {"positionEncodings": [encoding]}})
    assert editor.initialized["capabilities"]["positionEncoding"] == encoding
    uri = editor.open(workspace / "x.py", "# é😀\r\n\tdef réad(path):  # 𝒳\r\n\t\treturn 1\r\n# end", version=4)
    trouble = {"range": at((1, 0), (1, 3)), "message": "resource é😀 leaks"}
    place, selected = SELECTED[encoding]
    actions = await listed(editor, uri, place, [trouble])
    fix = actions[-1]
    assert (fix["title"], fix["kind"], fix["diagnostics"]) == ("nightschool: Suggest a fix", "quickfix", [trouble])
    assert "edit" not in fix
    assert "command" not in fix
    assert script.asked == []

    resolved = await editor.request("codeAction/resolve", json.loads(json.dumps(fix)))

    assert "resource é😀 leaks" in script.asked[-1]["question"]
    assert script.asked[-1]["selection"] == selected
    (change,) = resolved["edit"]["documentChanges"]
    (edit,) = change["edits"]
    assert change["textDocument"] == {"uri": uri, "version": 4}
    assert edit["range"] == at((1, 0), (3, 0))
    assert edit["newText"] == "\tdef read(path):\r\n\t    with open(path) as f:\r\n\t        return f.read()\r\n"
    assert resolved["edit"]["changeAnnotations"][edit["annotationId"]]["needsConfirmation"] is True


async def test_an_editor_that_cannot_confirm_an_edit_is_shown_the_suggestion_instead(editor, workspace):
    uri = editor.open(workspace / "reader.py", "x = 1\n")
    *_, fix = await listed(editor, uri, at((0, 0), (0, 5)))
    assert fix["command"]["command"] == "nightschool.answer"
    assert (await editor.request("codeAction/resolve", fix)) == fix


async def test_a_fix_for_code_that_changed_meanwhile_is_refused(start_editor, workspace, backend, script):
    script.pieces, script.piece_wait_s = ["```\n", "y = 2\n", "```"], 0.15
    editor = await start_editor()
    await editor.initialize(workspace, CONFIRMS)
    uri = editor.open(workspace / "reader.py", "x = 1\n")
    *_, fix = await listed(editor, uri, at((0, 0), (0, 5)))
    _, future = editor.begin("codeAction/resolve", fix)
    await editor.until(lambda: script.asked)
    editor.notify(
        "textDocument/didChange", {"textDocument": {"uri": uri, "version": 2}, "contentChanges": [{"text": "z\n"}]}
    )
    with pytest.raises(Exception, match="changed while the fix was written"):
        await future
    script.pieces = ["No code here."]
    with pytest.raises(Exception, match="suggested no code"):
        await editor.request("codeAction/resolve", fix)


def test_the_first_code_block_is_the_suggestion():
    assert code_block("a\n```py\nx = 1\n```\n```\ny\n```") == "x = 1\n"
    assert code_block("~~~\r\né😀\r\n~~~") == "é😀\r\n"
    assert code_block("````\n```\n````") == "```\n"
    assert code_block("none") is None
    assert code_block("```\n\n```") is None


def test_a_suggestion_takes_the_shape_of_what_it_replaces():
    assert fitted("if x:\n    y()\n", "    if x:\r\n        z()\r\n") == "    if x:\r\n        y()\r\n"
    assert fitted("    a\n\n    b", "    c\n") == "    a\n\n    b\n"
    assert fitted("é😀\n", "x") == "é😀"
    assert fitted("", "") == ""
