"""Backends that are down, start, stop, come back with another token, and one for each folder of a workspace."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest

# What `python -m nightschool serve --workspace PATH` is in these tests: the scripted backend in a process of its own,
# so that the language server's way of starting it is the real one.
SERVE = """
import importlib.util, sys, threading
from pathlib import Path
spec = importlib.util.spec_from_file_location("editor_conftest", {conftest!r})
module = importlib.util.module_from_spec(spec); sys.modules[spec.name] = module; spec.loader.exec_module(module)
assert sys.argv[1:3] == ["serve", "--workspace"], sys.argv
if "{fault}":
    sys.exit("{fault}")
backend = module.ScriptedBackend(Path(sys.argv[3]), module.Script(pieces=["Started by itself."]))
threading.Timer(20, backend.stop).start()
"""


def stand_in(folder: Path, fault: str = "") -> dict[str, str]:
    """The environment in which `python -m nightschool` is the scripted backend."""
    folder.mkdir(exist_ok=True)
    conftest = str(Path(__file__).parent / "conftest.py")
    (folder / "nightschool.py").write_text(SERVE.format(conftest=conftest, fault=fault))
    return {"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"}


def shown(editor) -> list[str]:
    return [params["message"] for params in editor.told("window/showMessage")]


async def test_a_question_starts_the_backend_and_says_so_once(start_editor, workspace, tmp_path):
    editor = await start_editor(environment=stand_in(tmp_path / "stand in"), cwd=tmp_path)
    await editor.initialize(workspace)
    assert (await editor.request("nightschool/status", {}))["backend"] == "stopped"

    first, second = (
        editor.begin("nightschool/ask", {"question": "?"}),
        editor.begin("nightschool/ask", {"question": "?"}),
    )
    answers = await asyncio.wait_for(asyncio.gather(first[1], second[1]), 30)

    assert [answer["answer"] for answer in answers] == ["Started by itself."] * 2
    assert shown(editor) == [
        f"nightschool: starting the backend of {workspace.name}",
        f"nightschool: the backend of {workspace.name} runs",
    ]


async def test_a_backend_that_cannot_start_is_said_with_its_reason_and_tried_again(start_editor, workspace, tmp_path):
    environment = stand_in(tmp_path / "stand in", fault="port 8000 is in use")
    editor = await start_editor(environment=environment, cwd=tmp_path)
    await editor.initialize(workspace)
    with pytest.raises(Exception, match="port 8000 is in use") as refused:
        await editor.request("nightschool/ask", {"question": "?"}, 30)
    assert refused.value.code == -32803
    assert "port 8000 is in use" in shown(editor)[-1]
    stand_in(tmp_path / "stand in")
    assert (await editor.request("nightschool/ask", {"question": "?"}, 30))["answer"] == "Started by itself."


async def test_without_leave_to_start_one_the_editor_is_told_what_to_do(start_editor, workspace):
    editor = await start_editor()
    await editor.initialize(workspace, options={"startBackend": "never"})
    with pytest.raises(Exception, match="start it with `nightschool serve`"):
        await editor.request("nightschool/ask", {"question": "?"})
    assert shown(editor) == []


async def test_a_restarted_backend_with_a_new_token_is_found_by_itself(editor, workspace, backend, script, new_backend):
    assert (await editor.request("nightschool/ask", {"question": "?"}))["answer"]
    backend.stop(forget=False)
    new_backend(workspace, script, token="second-token")
    assert (await editor.request("nightschool/ask", {"question": "?"}))["answer"]
    assert [text for text in shown(editor) if "stopped" in text or "failed" in text] == []


async def test_a_backend_that_was_killed_is_told_once_and_found_again(
    start_editor, workspace, backend, script, new_backend
):
    editor = await start_editor()
    await editor.initialize(workspace, options={"status": True, "startBackend": "never"})
    await editor.until(lambda: [s for s in editor.told("nightschool/status") if s["backend"] == "running"])
    backend.stop(forget=False)  # backend.json is left behind, as after SIGKILL
    await editor.until(lambda: editor.told("nightschool/status")[-1]["backend"] == "stopped")
    for _ in range(3):
        with pytest.raises(Exception, match="no backend runs"):
            await editor.request("nightschool/ask", {"question": "?"})
    new_backend(workspace, script, token="another")
    await editor.until(lambda: editor.told("nightschool/status")[-1]["backend"] == "running")
    assert (await editor.request("nightschool/ask", {"question": "?"}))["answer"]
    assert [text for text in shown(editor) if "stopped" in text] == [
        f"nightschool: the backend of {workspace.name} has stopped"
    ]


async def test_the_status_is_told_when_it_changes_and_only_then(start_editor, workspace, backend, script):
    editor = await start_editor()
    await editor.initialize(workspace, {"window": {"workDoneProgress": True}}, {"status": True})
    await editor.until(lambda: editor.told("nightschool/status"))
    script.freshness = {"waiting_files": 3, "seconds_behind": 2.5}
    editor.notify("textDocument/didSave", {"textDocument": {"uri": (workspace / "reader.py").as_uri()}})
    await editor.until(lambda: editor.told("nightschool/status")[-1]["freshness"]["waitingFiles"] == 3)
    begun = await editor.until(lambda: [p["value"] for p in editor.told("$/progress") if p["value"]["kind"] == "begin"])
    assert begun == [{"kind": "begin", "title": "nightschool: indexing", "message": "3 files wait"}]
    night = {
        "version": "2026-11-24-x",
        "created_at": "2026-11-24T02:00:00Z",
        "losses": {"held_out_before": 2.0, "held_out_after": 1.5},
    }
    script.freshness = {}
    script.ready = {"adapter": "2026-11-24-x"}
    script.adapters = {"in_service": "2026-11-24-x", "adapters": [night]}
    script.nights = {
        "last": {"outcome": "promoted", "reason": "", "version": "2026-11-24-x", "ended_at": "2026-11-24T02:55:00Z"}
    }
    await editor.until(lambda: editor.told("nightschool/status")[-1]["adapter"] == "2026-11-24-x")
    last = editor.told("nightschool/status")[-1]
    assert last["night"] == {
        "outcome": "promoted",
        "version": "2026-11-24-x",
        "endedAt": "2026-11-24T02:55:00Z",
        "verdict": "promoted, held-out loss 2.00 -> 1.50, in service",
        "inService": True,
        "lossBefore": 2.0,
        "lossAfter": 1.5,
    }
    assert last["inlineCompletion"] == {
        "enabled": False,
        "reason": "scripted-1b cannot fill in the middle; take a model that can (Qwen2.5-Coder)",
    }
    await editor.until(lambda: [p for p in editor.told("$/progress") if p["value"]["kind"] == "end"])
    statuses = [json.dumps(status) for status in editor.told("nightschool/status")]
    assert all(a != b for a, b in itertools.pairwise(statuses))


ADAPTER = {"version": "by-hand", "created_at": "2026-11-24T02:00:00Z", "losses": {}}


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (None, "by-hand trained, not in service"),
        (
            {"outcome": "refused", "reason": "the gain is not sure", "version": "by-hand"},
            "by-hand refused: the gain is not sure, not in service",
        ),
        ({"outcome": "skipped", "reason": "nothing was committed", "version": ""}, "skipped: nothing was committed"),
        ({"outcome": "failed", "reason": "the disk is full", "version": ""}, "failed: the disk is full"),
    ],
)  # fmt: skip
async def test_the_status_says_how_the_last_night_ended(start_editor, workspace, backend, script, last, said):
    script.adapters = {"in_service": None, "adapters": [ADAPTER]}
    script.nights = {"last": last and last | {"ended_at": "2026-11-24T02:55:00Z"}}
    editor = await start_editor()
    await editor.initialize(workspace)
    await editor.request("workspace/executeCommand", {"command": "nightschool.status", "arguments": []})
    message = (await editor.until(lambda: editor.told("window/showMessage")))[-1]["message"]
    assert f"last night: {said};" in message


async def test_a_running_night_is_shown_as_progress_until_it_ends(start_editor, workspace, backend, script):
    night = {"night": "2026-11-24-023000", "version": "2026-11-24-y", "step": 0, "steps": 0, "left_s": 0.0}
    script.nights = {"running": night}
    editor = await start_editor()
    await editor.initialize(workspace, {"window": {"workDoneProgress": True}}, {"status": True})

    def told():
        return [(p["value"]["kind"], p["value"].get("message")) for p in editor.told("$/progress")]

    await editor.until(lambda: told() == [("begin", "a night is running")])
    script.nights = {"running": night | {"step": 12, "steps": 60, "left_s": 290.0}}
    await editor.until(lambda: ("report", "step 12 of 60, about 5 min of training left") in told())
    script.nights = {}
    await editor.until(lambda: told()[-1] == ("end", None))
    assert editor.told("nightschool/status")[-1]["training"] is None


async def test_an_engine_that_fails_is_told_once_and_when_it_is_back(start_editor, workspace, backend, script):
    script.ready = {
        "ready": False,
        "reasons": ["no free memory for the engine"],
        "engine": {"name": "failed", "reason": "x"},
    }
    editor = await start_editor()
    await editor.initialize(workspace)
    await editor.until(lambda: shown(editor))
    script.ready = {}
    await editor.until(lambda: "nightschool: the engine is back" in shown(editor))
    assert shown(editor) == [
        "nightschool: the engine failed: no free memory for the engine",
        "nightschool: the engine is back",
    ]


async def test_each_folder_has_its_own_backend(start_editor, workspace, backend, script, tmp_path, new_backend):
    other = tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    (other / "nightschool.toml").write_text("")
    (other / "deep" / "b.py").write_text("x = 1\n")
    second = type(script)(pieces=["From the other."])
    new_backend(other, second)
    editor = await start_editor()
    folders = [{"uri": path.as_uri(), "name": path.name} for path in (workspace, other / "deep")]
    await editor.initialize(workspace, workspaceFolders=folders)

    def about(uri: str, text: str = "x = 1\n"):
        editor.open(uri, text)
        return editor.request("nightschool/ask", {"question": "?", "textDocument": {"uri": uri}})

    here = await about((workspace / "reader.py").as_uri())
    there = await about((other / "deep" / "b.py").as_uri())
    assert (here["answer"], there["answer"]) == ("Reads one file [1].", "From the other.")
    assert second.asked[0]["path"] == "deep/b.py"
    assert "buffer" not in second.asked[0]

    editor.notify("workspace/didChangeWorkspaceFolders", {"event": {"added": [], "removed": [folders[1]]}})
    removed = await about((other / "deep" / "b.py").as_uri())
    assert removed["notices"][0] == "This file is in no open folder: answered without your code."
    assert script.asked[-1]["retrieval"] is False
    assert "path" not in script.asked[-1]


URIS = [
    # (uri, whether the workspace's code is searched, the path sent along)
    ("untitled:Untitled-1", True, None),
    ("vscode-remote://ssh-remote+host/home/x.py", False, None),
    ("git:/a/b.py?ref=HEAD", False, None),
    ("file:///etc/hostname", False, None),
    ("file://server/share/x.py", False, None),
    ("not a uri at all", False, None),
    ("http://[bad", False, None),
    ("{workspace}/dos.py", True, "dos.py"),
    ("{workspace}/../outside.py", False, None),
    ("{workspace}/link.py", False, None),
    ("{workspace}/new%20file%20%C3%A9.py", True, "new file é.py"),
]


async def test_only_files_of_an_open_folder_have_a_path(workspace, script, editor):
    (workspace / "link.py").symlink_to("/etc/hostname")
    selected = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 6}}
    for pattern, retrieval, path in URIS:
        uri = pattern.replace("{workspace}", workspace.as_uri())
        editor.open(uri, "secret = 1\n")
        await editor.request("nightschool/ask", {"question": "?", "textDocument": {"uri": uri}, "range": selected})
        body = script.asked[-1]
        assert (uri, body["retrieval"], body.get("path"), body["selection"]) == (uri, retrieval, path, "secret")


async def test_with_no_folder_the_fallback_is_asked_and_without_one_the_editor_is_told(
    start_editor, workspace, backend
):
    editor = await start_editor("--workspace", str(workspace))
    await editor.initialize(None)
    assert (await editor.request("nightschool/ask", {"question": "?"}))["answer"]
    bare = await start_editor()
    await bare.initialize(None)
    with pytest.raises(Exception, match="no folder is open"):
        await bare.request("nightschool/ask", {"question": "?"})
