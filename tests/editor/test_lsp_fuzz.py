"""Random and hostile messages, and an editor that never stops typing, against the real process.

The suite runs a short version; NIGHTSCHOOL_FUZZ=100000 pytest tests/editor/test_lsp_fuzz.py the long one, of
which docs/log-editor.md keeps the figures.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter

import psutil
import pytest

COUNT = int(os.environ.get("NIGHTSCHOOL_FUZZ", "4000"))
METHODS = """initialize nightschool/ask nightschool/search nightschool/status workspace/executeCommand
codeAction/resolve textDocument/codeAction
textDocument/inlineCompletion textDocument/completion textDocument/hover $/unknown é😀
textDocument/didOpen textDocument/didChange textDocument/didClose textDocument/didSave initialized $/cancelRequest
workspace/didChangeWorkspaceFolders $/setTrace $/progress window/workDoneProgress/cancel""".replace("\n", " ").split(
    " "
)
WORDS = """uri textDocument range start end line character question command arguments jsonrpc id position
context contentChanges text type_name class _x a-b version event token diagnostics""".split()
NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**70), 1.5, 1e308, float("nan"), float("inf")]
TEXTS = [
    "",
    "x",
    "é😀\u202e\x00",
    "\ud83d",
    "file:///etc/passwd",
    "untitled:u",
    "file://%00",
    "nightschool.ask",
    "x" * 3000,
]
LEAVES = [None, True, False, *NUMBERS, *TEXTS]


def junk(chance: random.Random, depth: int = 0):
    """A random JSON value, sometimes deep."""
    kind = chance.random()
    if depth > 4 or kind < 0.45:
        return chance.choice(LEAVES)
    if kind < 0.85:
        return {chance.choice(WORDS): junk(chance, depth + 1) for _ in range(chance.randrange(5))}
    return [junk(chance, depth + 1) for _ in range(chance.randrange(4))]


def hostile(chance: random.Random, msg_id: int) -> tuple[bytes, str | int | None]:
    """A message's body, and the id under which it must be answered once (None: under no id of its own)."""
    kind = chance.random()
    if kind < 0.06:
        body = json.dumps(junk(chance)).encode()
        cut = chance.randrange(len(body) + 1)
        return body[:cut] + bytes(chance.randrange(256) for _ in range(chance.randrange(4))), None
    if kind < 0.08:
        return b"[" * chance.randrange(1, 3000), None
    if kind < 0.10:
        return json.dumps([{"jsonrpc": "2.0", "id": f"batch-{msg_id}", "method": "x"}]).encode(), None
    if kind < 0.12:
        return json.dumps(
            {"jsonrpc": "2.0", "id": chance.choice([None, True, 1.5, [], {}]), "method": "x"}
        ).encode(), None
    if kind < 0.15:
        return json.dumps(
            {"jsonrpc": "2.0", "id": chance.choice([msg_id - 1, "x", -5]), "result": junk(chance)}
        ).encode(), None
    method, params = chance.choice(METHODS), junk(chance)
    if kind < 0.35:
        return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode(), None
    name: str | int = msg_id if chance.random() < 0.5 else f"é{msg_id}"
    message = {"jsonrpc": chance.choice(["2.0", "2.0", "2.0", "1.0"]), "id": name, "method": method, "params": params}
    return json.dumps(message).encode(), name


@pytest.mark.parametrize("seed", [1])
async def test_every_id_is_answered_exactly_once_whatever_comes(editor, script, seed):
    chance = random.Random(seed)
    script.pieces = ["x"]
    memory = psutil.Process(editor.process.pid).memory_info
    expected: set[str | int] = set()
    floor = 0
    started = time.monotonic()
    for at in range(0, COUNT, 250):
        for msg_id in range(at, at + 250):
            body, name = hostile(chance, msg_id + 10_000_000)
            if b'"exit"' in body or b'"shutdown"' in body:
                continue
            expected |= {name} if name is not None else set()
            editor.send_bytes(body)
            if chance.random() < 0.02:  # noise between messages, which must not swallow the next one
                editor.process.stdin.write(chance.choice([b"\r\n\r\n", b"noise: 1\r\n", b"Content-Length: x\r\n\r\n"]))
        await editor.request("nightschool/status", {}, 60)
        if at == COUNT // 4 // 250 * 250:
            floor = memory().rss
    answered = Counter(
        str(r["id"]) if isinstance(r["id"], str) else r["id"] for r in editor.responses if r["id"] is not None
    )
    await editor.until(lambda: expected <= {r["id"] for r in editor.responses}, 30)
    answered = Counter(r["id"] for r in editor.responses if r["id"] in expected)
    grown = (memory().rss - floor) / 2**20
    seconds = time.monotonic() - started
    rss = f"RSS {memory().rss / 2**20:.0f} MiB, grown {grown:.1f} MiB"
    print(f"{COUNT} messages in {seconds:.1f} s, {len(expected)} requests, {rss}")
    assert set(answered) == expected
    assert set(answered.values()) == {1}
    assert grown < 20
    assert await editor.close() == 0


def position(source: str, offset: int) -> dict[str, int]:
    """Where `offset` is, in UTF-16 units."""
    line_start = source.rfind("\n", 0, offset) + 1
    return {"line": source.count("\n", 0, offset), "character": len(source[line_start:offset].encode("utf-16-le")) // 2}


async def test_an_editor_that_never_stops_typing_is_followed_exactly(editor, script, workspace):
    edits = COUNT // 2
    chance = random.Random(7)
    source = "é😀\tx = '𝒳'\r\n" * 200
    uri = editor.open(workspace / "typed.py", source)
    memory = psutil.Process(editor.process.pid).memory_info
    floor, started = 0, time.monotonic()
    for version in range(2, edits + 2):
        start = chance.randrange(len(source))
        end = min(len(source), start + chance.choice([0, 0, 0, 1, 5]))
        start, end = (offset - (source[offset - 1 : offset + 1] == "\r\n") for offset in (start, end))
        new = chance.choice(["a", "é", "😀", "\t", "", "\r\n", "b\nc"])
        change = {"range": {"start": position(source, start), "end": position(source, end)}, "text": new}
        source = source[:start] + new + source[end:]
        editor.notify(
            "textDocument/didChange", {"textDocument": {"uri": uri, "version": version}, "contentChanges": [change]}
        )
        if version % 500 == 0:
            await editor.request("nightschool/status", {}, 60)
            floor = floor or memory().rss
    await editor.request("nightschool/ask", {"question": "?", "textDocument": {"uri": uri}}, 60)
    grown = (memory().rss - floor) / 2**20
    seconds = time.monotonic() - started
    print(f"{edits} edits in {seconds:.1f} s, RSS {memory().rss / 2**20:.0f} MiB, grown {grown:.1f} MiB")
    assert script.asked[-1]["buffer"] == source
    assert grown < 10
