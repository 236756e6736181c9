"""What the language server adds: milliseconds a request and a delta over plain HTTP, time to ready, lag while typing.

`./run bench editor` starts the real server before the scripted backend of tests/editor/conftest.py and prints a table.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from indexer.workspace import Workspace  # noqa: E402
from server.client import read_backend  # noqa: E402


def load_ends() -> Any:
    """The editor and the scripted backend of the tests."""
    spec = importlib.util.spec_from_file_location("editor_ends", ROOT / "tests" / "editor" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ENDS = load_ends()


LANGUAGE_SERVER = ("-m", "server.lsp")
FRONT_DOOR = ("-m", "nightschool", "lsp")  # what editors start


async def start(folder: Path, command: tuple[str, ...] = LANGUAGE_SERVER) -> Any:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True, limit=1 << 26,
    )  # fmt: skip
    return ENDS.Editor(process)


def ms(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return (
        f"median {statistics.median(ordered) * 1000:8.2f} ms   p95 {ordered[int(len(ordered) * 0.95)] * 1000:8.2f} ms"
    )


async def ready(folder: Path, command: tuple[str, ...]) -> list[float]:
    times = []
    for _ in range(10):
        started = time.perf_counter()
        editor = await start(folder, command)
        await editor.request("initialize", {"processId": None, "rootUri": folder.as_uri(), "capabilities": {}})
        times.append(time.perf_counter() - started)
        editor.kill()
        await editor.process.wait()
    return times


async def requests(editor: Any, folder: Path, script: Any) -> tuple[list[float], list[float]]:
    """Seconds of one short question over LSP, and over HTTP alone."""
    over_lsp, over_http = [], []
    backend = read_backend(Workspace(folder))
    assert backend is not None
    for _ in range(200):
        started = time.perf_counter()
        await editor.request("nightschool/ask", {"question": "What?"})
        over_lsp.append(time.perf_counter() - started)
        started = time.perf_counter()
        async for _event in backend.ask({"question": "What?"}):
            pass
        over_http.append(time.perf_counter() - started)
    await backend.close()
    return over_lsp, over_http


async def deltas(editor: Any, folder: Path, script: Any, count: int = 5000) -> tuple[float, float]:
    """Seconds an answer of `count` pieces takes over LSP and over HTTP alone, a piece."""
    script.pieces = ["word "] * count
    backend = read_backend(Workspace(folder))
    assert backend is not None
    started = time.perf_counter()
    await editor.request("nightschool/ask", {"question": "What?", "partialResultToken": "t"}, 120)
    over_lsp = time.perf_counter() - started
    started = time.perf_counter()
    async for _event in backend.ask({"question": "What?"}):
        pass
    over_http = time.perf_counter() - started
    await backend.close()
    script.pieces = ["x"]
    return over_lsp / count, over_http / count


async def typing(editor: Any, folder: Path) -> list[float]:
    """Seconds from one key in a file of 20,000 lines until the server has taken it."""
    uri = editor.open(folder / "long.py", "value = 'é😀'  # a line\n" * 20_000)
    times = []
    for version in range(300):
        place = {"line": 10_000, "character": version}
        change = {"range": {"start": place, "end": place}, "text": "x"}
        started = time.perf_counter()
        editor.notify(
            "textDocument/didChange", {"textDocument": {"uri": uri, "version": version}, "contentChanges": [change]}
        )
        here = {"textDocument": {"uri": uri}, "range": {"start": place, "end": place}}
        await editor.request("textDocument/codeAction", here | {"context": {"diagnostics": [], "triggerKind": 2}})
        times.append(time.perf_counter() - started)
    return times


async def inline(editor: Any, folder: Path, script: Any) -> tuple[list[float], list[float]]:
    """Seconds of an invoked inline completion, its search for context included, and of the engine's door alone."""
    backend = read_backend(Workspace(folder))
    assert backend is not None
    script.ready = {"fim": True}
    script.completion = lambda body: f"value_{len(script.completions)}"
    await editor.request("nightschool/status", {})
    over_lsp, alone = [], []
    for number in range(100):
        uri = editor.open(folder / f"inline{number}.py", f"def f{number}(path):\n    return \n")
        where = {"textDocument": {"uri": uri}, "position": {"line": 1, "character": 11}, "context": {"triggerKind": 1}}
        started = time.perf_counter()
        items = (await editor.request("textDocument/inlineCompletion", where))["items"]
        over_lsp.append(time.perf_counter() - started)
        assert len(items) == 1
        editor.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        started = time.perf_counter()
        await backend.post("/v1/completions", {"prompt": "x", "suffix": "y"})
        alone.append(time.perf_counter() - started)
    await backend.close()
    return over_lsp, alone


async def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="nightschool-bench-"))
    (folder / "nightschool.toml").write_text("")
    script = ENDS.Script(pieces=["x"])
    backend = ENDS.ScriptedBackend(folder, script)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, httpx {httpx.__version__}")
    print("ready after start        ", ms(await ready(folder, LANGUAGE_SERVER)))
    print("  through the front door ", ms(await ready(folder, FRONT_DOOR)))
    editor = await start(folder)
    await editor.initialize(folder)
    over_lsp, over_http = await requests(editor, folder, script)
    print("a question over LSP      ", ms(over_lsp))
    print("a question over HTTP     ", ms(over_http))
    a_delta, alone = await deltas(editor, folder, script)
    print(f"a delta over LSP {a_delta * 1000:.3f} ms, over HTTP {alone * 1000:.3f} ms")
    print("a key in 20,000 lines    ", ms(await typing(editor, folder)))
    over_lsp, alone_s = await inline(editor, folder, script)
    print("inline completion        ", ms(over_lsp))
    print("  its engine door alone  ", ms(alone_s))
    await editor.close()
    backend.stop()


if __name__ == "__main__":
    asyncio.run(main())
