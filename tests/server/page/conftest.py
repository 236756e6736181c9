"""A real Chromium, driven over its debugging pipe, and the real application in front of a model that reads a script."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn
from safetensors.numpy import save_file

from indexer.workspace import Workspace
from server.adapter import finish_adapter, promote
from server.auth import read_or_make_token
from server.backend import Backend, IndexKeeper
from server.http import make_app
from server.serving import EngineState
from server.settings import ServerSettings
from trainer.job import Step, event_to_line
from trainer.night_state import NightState, save_state
from trainer.promote import Line
from trainer.proving import Row
from trainer.report import NightReport, write_reports

Json = dict[str, Any]
ROOT = Path(__file__).parents[3]
DEADLINE_S = 20.0
CART = """def total(prices: list[Price]) -> int:
    \"""The sum in cents.\"""
    # é <b> 1 €
    return sum(price.cents for price in prices)
"""
KEYS = {"Enter": 13, "Escape": 27, "Tab": 9, " ": 32, "/": 191}


class Chromium:
    """The browser as a process; commands go to its file descriptor 3 and answers come from 4, each ended by a NUL."""

    def __init__(self, profile: Path) -> None:
        to_browser, self._commands = os.pipe()
        self._answers, from_browser = os.pipe()
        options = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run", "--disable-gpu"]
        options += ["--disable-component-update", "--disable-background-networking", f"--user-data-dir={profile}"]
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", "chromium", *options],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._waiting: dict[int, Future[Json]] = {}
        self._listeners: dict[str, Callable[[Json], None]] = {}
        self._lock = threading.Lock()
        self._next = 0
        threading.Thread(target=self._read, daemon=True).start()

    async def call(self, method: str, session: str = "", **params: Any) -> Json:
        """Send a command of the DevTools protocol; its result. Raises `RuntimeError` for a refusal."""
        future: Future[Json] = Future()
        with self._lock:
            self._next += 1
            number = self._next
            self._waiting[number] = future
            message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
            os.write(self._commands, json.dumps(message).encode() + b"\0")
        answer = await asyncio.wait_for(asyncio.wrap_future(future), DEADLINE_S)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: Json = answer["result"]
        return result

    def listen(self, session: str, listener: Callable[[Json], None]) -> None:
        self._listeners[session] = listener

    def _read(self) -> None:
        held = b""
        while data := os.read(self._answers, 1 << 16):
            *messages, held = (held + data).split(b"\0")
            for text in messages:
                message = json.loads(text)
                if "id" in message:
                    self._waiting.pop(message["id"]).set_result(message)
                elif listener := self._listeners.get(message.get("sessionId", "")):
                    listener(message)

    def close(self) -> None:
        os.close(self._commands)  # which ends it
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()


@dataclass
class Tab:
    """One page of a profile of its own. `asked` are the addresses it wanted, `faults` what it complained about."""

    chromium: Chromium
    session: str
    asked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def note(self, message: Json) -> None:
        params = message["params"]
        match message["method"]:
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.faults.append(details.get("exception", {}).get("description") or details["text"])
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.faults.append(params["entry"]["text"])

    async def call(self, method: str, **params: Any) -> Json:
        return await self.chromium.call(method, self.session, **params)

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def js(self, expression: str) -> Any:
        """The value of an expression in the page, awaited."""
        done = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"].get("description", str(done)))
        return done["result"].get("value")

    async def until(self, expression: str, deadline_s: float = DEADLINE_S) -> Any:
        """Wait until an expression is true; its value."""
        end = time.monotonic() + deadline_s
        while True:
            try:
                if value := await self.js(expression):
                    return value
                seen = await self.js("document.body.innerText")
            except RuntimeError as error:  # between two pages there is no context
                seen = str(error)
            if time.monotonic() > end:
                raise AssertionError(f"not seen: {expression}\n{seen}\n{self.faults}")
            await asyncio.sleep(0.02)

    async def sees(self, text: str) -> None:
        await self.until(f"document.body.innerText.includes({json.dumps(text)})")

    async def click(self, selector: str) -> None:
        """A real click on the middle of an element, so that what covers it catches the click."""
        find = f"document.querySelector({json.dumps(selector)})"
        await self.until(f"Boolean({find}?.checkVisibility())")
        await self.js(f"{find}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = await self.js(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({find}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, shift: bool = False) -> None:
        text = {"Enter": "\r", " ": " ", "/": "/"}.get(key)
        event = {"key": key, "code": {"Enter": "Enter", " ": "Space", "/": "Slash"}.get(key, key)}
        event |= {"windowsVirtualKeyCode": KEYS[key], "modifiers": 8 if shift else 0}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def look(self, scheme: str, width: int, height: int) -> None:
        """How the page is looked at: light or dark, on a screen of this size."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **screen)

    async def shot(self, name: str) -> None:
        """Write a screenshot where NIGHTSCHOOL_SHOTS says; without it nowhere, but it is drawn."""
        await self.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        png = base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])
        assert png.startswith(b"\x89PNG")
        if folder := os.environ.get("NIGHTSCHOOL_SHOTS"):
            (Path(folder) / f"{name}.png").write_bytes(png)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if shutil.which("chromium") is None:
        pytest.skip("not installed: chromium")
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
async def tab(chromium: Chromium) -> AsyncIterator[Tab]:
    """A tab whose profile nobody has used."""
    context = (await chromium.call("Target.createBrowserContext"))["browserContextId"]
    target = await chromium.call("Target.createTarget", url="about:blank", browserContextId=context)
    attached = await chromium.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
    tab = Tab(chromium, attached["sessionId"])
    chromium.listen(tab.session, tab.note)
    for domain in ("Page", "Network", "Runtime", "Log"):
        await tab.call(f"{domain}.enable")
    await tab.look("light", 1280, 800)
    yield tab
    await chromium.call("Target.disposeBrowserContext", browserContextId=context)


@dataclass
class Site:
    """The application on a port: change `model` and `ready` as a test likes."""

    url: str
    token: str
    model: Any
    serving: Any
    workspace: Workspace
    borrowed: list[str | None] = field(default_factory=list)
    failure: Exception | None = None

    @property
    def entrance(self) -> str:
        return f"{self.url}/ui#token={self.token}"


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    root = tmp_path / "shop"
    root.mkdir()
    return Workspace(root)


@pytest.fixture
def settings() -> ServerSettings:
    """Those of the backend behind `site`."""
    return ServerSettings()


@pytest.fixture
def stale() -> None:
    """Ask for it, and the passages of `site` are no longer what stands on disk."""


@pytest.fixture
async def site(
    shop: Workspace, settings: ServerSettings, request: pytest.FixtureRequest, doors: Any, scripted: Any, passage: Any
) -> AsyncIterator[Site]:
    """The real application in this loop, behind it passages by hand and a scripted model."""
    passages = [passage("shop/cart.py", CART, 12), passage("shop/price.py", "class Price:\n    cents: int = 0\n", 3)]
    model = scripted(["The total is ", "the **sum** of all prices [1]."], base_model="smollm2-135m")
    serving = SimpleNamespace(
        state=EngineState("ready"), adapter=model.adapter, base_model=SimpleNamespace(name=model.base_model, fim=None)
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        site = Site(url, read_or_make_token(shop), model, serving, shop)

        @asynccontextmanager
        async def borrow(version: str | None) -> AsyncIterator[Any]:
            site.borrowed.append(version)
            if site.failure:
                raise site.failure
            yield replace(site.model, adapter=None) if version == "none" else site.model

        opened = replace(
            doors(model, passages, is_there="stale" not in request.fixturenames, min_groundedness=0.0), borrow=borrow
        )
        backend = Backend(shop, settings, IndexKeeper(index=None, reason=""), serving, opened)  # type: ignore[arg-type]
        server = uvicorn.Server(uvicorn.Config(make_app(backend, site.token), log_level="error", lifespan="off"))
        server.config.load()
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield site
        server.should_exit = server.force_exit = True
        await task


class Outside:
    """Somebody else's server, on a port of its own: it writes down what asks it."""

    def __init__(self) -> None:
        self.url = ""
        self.hits: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hits.append((await reader.readline()).decode(errors="replace").strip())
        writer.write(
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        writer.close()


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    listening = Outside()
    server = await asyncio.start_server(listening.answer, "127.0.0.1", 0)
    listening.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield listening


def make_adapter(workspace, version, day=20):
    staging = workspace.adapters / f".staging-{version}"
    staging.mkdir(parents=True)
    save_file({"layer.lora_A.weight": np.ones((2, 3), np.float32)}, staging / "adapter_model.safetensors")
    (staging / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    base = {"name": "smollm2-135m", "revision": "1", "sha256": "ab" * 32}
    created = datetime(2026, 11, day, 2, 30, tzinfo=UTC)
    manifest = {"version": version, "created_at": created, "base_model": base, "prompt_version": 1}
    return finish_adapter(staging, workspace.adapters, manifest)


def keep_night(workspace, day, gain, outcome="promoted", steps=60):
    """A night of `day` as the trainer leaves it; its candidate is `gain` better than the base model, with retrieval."""
    version = f"2026-11-{day}-0230-abc1234"
    adapter = make_adapter(workspace, version, day)
    run = workspace.state / "runs" / version
    run.mkdir(parents=True)
    step = [
        Step(n, steps, 2.6 - n / steps - (n % 7) / 40, 1e-4, 512 * n, 180.0, n * 3.0, 0.0) for n in range(1, steps + 1)
    ]
    (run / "events.jsonl").write_text("".join(map(event_to_line, step)) + '{"event": "St')
    rows = [
        Row("base", False, 1.3012, 1.1020, None), Row("base", True, 0.9241, 1.1020, None),
        Row("candidate", False, 1.1934, 1.1105, None), Row("candidate", True, 0.9241 * (1 - gain), 1.1105, None),
    ]  # fmt: skip
    passed = outcome == "promoted"
    verdict = (
        Line(
            "better than the base model on newer code, with retrieval",
            f"{-gain:+.1%} (95%: {-gain - 0.01:+.1%} to {-gain + 0.01:+.1%})",
            passed,
        ),
        Line("other people's code is not forgotten", "+0.8% of at most +2.0%", True),
        Line("the engine loads it", "yes", True),
    )
    reason = "" if passed else "the gain is not sure: the interval holds 0"
    report = NightReport(
        f"2026-11-{day}-023001", outcome, reason, version, None, "smollm2-135m", "abc1234" * 5, "def5678" * 5, True,
        tuple(rows), verdict, seconds={"collect": 4.0, "train": 1500.0, "evaluate": 310.0},
    )  # fmt: skip
    save_state(workspace, NightState(report.night, report.commit, "", version))  # as a night begins
    write_reports(workspace, adapter, report)
    return version


@pytest.fixture(name="make_adapter")
def _make_adapter():
    return make_adapter


@pytest.fixture(name="keep_night")
def _keep_night():
    return keep_night


@pytest.fixture
def nights(shop):
    """Three nights, the last one refused; the second is in service."""
    first, second, third = (
        keep_night(shop, 20, 0.042),
        keep_night(shop, 21, 0.051),
        keep_night(shop, 22, 0.004, "refused"),
    )
    promote(shop.adapters, first)
    promote(shop.adapters, second)
    return first, second, third
