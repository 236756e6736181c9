"""The extension in a real VS Code: code-server in Chromium, driven by Playwright (drive_vscode.mjs)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTENSION = ROOT / "extension-proto" / "vscode"
VSCODE = os.environ.get("NIGHTSCHOOL_VSCODE", "")
FENCE = "```"


def needs(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


async def run(*command: str, timeout_s: float = 300, **more) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=timeout_s, check=False, **more
    )


@pytest.fixture
def built() -> Path:
    """The extension, bundled."""
    needs("node", "npm")
    if not (EXTENSION / "node_modules").is_dir():
        pytest.skip("the extension's packages are not installed: run `npm ci` in extension-proto/vscode")
    return EXTENSION


async def test_the_extension_compiles_and_passes_its_own_tests(built):
    checked = await run("npm", "run", "check", cwd=built)
    assert checked.returncode == 0, checked.stdout
    tested = await run("npm", "test", cwd=built)
    assert tested.returncode == 0, tested.stdout


async def test_protocol_json_is_what_the_servers_types_say():
    checked = await run(sys.executable, str(ROOT / "extension-proto" / "generate.py"), "--check")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.editors
async def test_a_day_in_vscode(built, backend, script, workspace, tmp_path):
    needs("chromium")
    if not VSCODE:
        pytest.skip("NIGHTSCHOOL_VSCODE does not name a folder with code-server and playwright-core")
    await run("npm", "run", "build", cwd=built)
    state = tmp_path / "state"
    unpacked = state / "ext" / "nightschool.nightschool-0.1.0"
    for part in ("out", "media"):
        shutil.copytree(built / part, unpacked / part)
    shutil.copy(built / "package.json", unpacked)
    command = tmp_path / "nightschool"
    command.write_text(f'#!/bin/sh\nshift\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m server.lsp "$@"\n')
    command.chmod(0o755)
    code = f"{FENCE}python\ndef read(path):\n    return open(path)\n{FENCE}\n"
    script.pieces = [
        "`read` ",
        "opens ",
        "the file ",
        "[1]",
        ":\n\n",
        code,
        "\nIt does **not** ",
        "close it. ![x](http://a/b)",
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"vscode": VSCODE, "state": str(state), "workspace": str(workspace), "backend": backend.url, "port": port}
    given |= {"token": backend.token, "command": str(command), "chromium": shutil.which("chromium")}
    given |= {"shots": os.environ.get("NIGHTSCHOOL_SHOTS", "")}
    drove = await run("node", str(Path(__file__).parent / "drive_vscode.mjs"), json.dumps(given), timeout_s=280)

    seen = json.loads(drove.stdout.splitlines()[-1])
    assert "error" not in seen, json.dumps(seen, indent=1)
    assert seen["streamedSteps"] >= 4
    assert seen["answer"].startswith("read opens the file [1]:")
    assert seen["highlighted"] >= 2
    assert "reader.py:1-2" in seen["sources"]
    assert seen["freshness"] == "commit abc1234d · 1 changed file · up to date · 2026-11-23-abc"
    assert seen["links"] == 0
    assert seen["landed"].startswith("Ln 2,")
    assert seen["stopped"]
    assert seen["retried"]
    assert seen["codeAction"]
    assert "# accepted 😀" in seen["ghost"].replace("\xa0", " ")
    assert seen["afterSave"].endswith("2")
    assert "2026-11-24-0230-def" in seen["afterNight"]
    assert "promoted, held-out loss 2.10 -> 1.70, in service" in seen["status"]
    assert len(set(seen["themes"])) == 2
    assert "Start" in seen["welcome"]
    assert seen["consoleErrors"] == []
