"""A mixed load on a running backend, over its real HTTP edge: what editors, scripts, agents and strangers send it.

Each client throws a dice, does one thing, looks whether the answer is the one that is due, waits a little and goes on.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

# What is done, and how often in a hundred.
SHARES = {
    "ask": 12, "ask without retrieval": 6, "ask in a stream": 10, "chat in a stream": 8, "ask with unsaved text": 6,
    "leave a stream": 6, "leave before it": 4, "search": 16, "small requests": 12, "save a file": 8, "mcp": 4,
    "wrong requests": 8,
}  # fmt: skip
PAUSE_S = 0.3  # between two things that one client does, on average
FOUND_WITHIN_S = 60.0  # a saved file, on a busy machine
FILES = 4  # that each client saves again and again, and deletes
ANSWER_TOKENS = 12
WORDS = "route parse header render token cache store merge split view model query bind signer payload key".split()


class Unexpected(Exception):
    """An answer that is not the one due."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running backend: its address, its token, the folder that it serves."""

    url: str
    token: str
    root: Path


@dataclass
class Load:
    """`clients` readers at once until `stop`. `done` counts what was as it should be, `failures` says what was not."""

    target: Target
    questions: Sequence[str]
    clients: int = 4
    seed: int = 0
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                group.create_task(self._client(number, stop))

    async def _client(self, number: int, stop: asyncio.Event) -> None:
        async with connected(self.target) as http:
            user = User(self.target, http, self.questions, random.Random(f"{self.seed} {number}"), number)
            actions = user.actions()
            while not stop.is_set():
                [name] = user.dice.choices(list(SHARES), list(SHARES.values()))
                try:
                    await actions[name]()
                    self.done[name] += 1
                except Exception as error:  # what is counted here
                    self.failures.append(f"{time.strftime('%H:%M:%S')} {name}: {error!r}")
                await asyncio.sleep(user.dice.expovariate(1 / PAUSE_S))


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {target.token}"}
    async with httpx.AsyncClient(base_url=target.url, headers=headers, timeout=300, trust_env=False) as http:
        yield http


@dataclass
class User:
    """One client of the backend. Each action raises `Unexpected` when the answer is not the one due."""

    target: Target
    http: httpx.AsyncClient
    questions: Sequence[str]
    dice: random.Random
    number: int
    saved: int = 0

    def actions(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        return {
            "ask": self.ask,
            "ask without retrieval": lambda: self.ask(retrieval=False),
            "ask in a stream": self.ask_in_a_stream,
            "chat in a stream": self.chat_in_a_stream,
            "ask with unsaved text": self.ask_with_unsaved_text,
            "leave a stream": self.leave_a_stream,
            "leave before it": self.leave_before_it,
            "search": self.search,
            "small requests": self.small_requests,
            "save a file": self.save_a_file,
            "mcp": self.mcp,
            "wrong requests": self.wrong_requests,
        }

    def _body(self, **more: Any) -> dict[str, Any]:
        return {"question": self.dice.choice(self.questions), "max_tokens": ANSWER_TOKENS, **more}

    async def ask(self, **more: Any) -> None:
        answer = (await self._got("POST", "/ask", json=self._body(**more))).json()
        if not answer["answer"] or not answer["base_model"]:
            raise Unexpected(f"no model answered: {answer['notices']}")

    async def ask_with_unsaved_text(self) -> None:
        path = "src/itsdangerous/signer.py"
        text = f"# {self._words(8)}\n" + (self.target.root / path).read_text()
        await self.ask(path=path, buffer=text, overlays={"src/itsdangerous/exc.py": f"# {self._words(8)}\n"})

    async def ask_in_a_stream(self) -> None:
        retrieval = self.dice.random() < 0.5
        async with self._stream("/ask", self._body(retrieval=retrieval)) as lines:
            names = [line.removeprefix("event: ") async for line in lines if line.startswith("event: ")]
        if names[-1:] != ["done"]:
            raise Unexpected(f"the stream ended with {names[-1:]}")

    async def chat_in_a_stream(self) -> None:
        messages = [{"role": "user", "content": self.dice.choice(self.questions)}]
        async with self._stream(
            "/v1/chat/completions", {"messages": messages, "stream": True, "max_tokens": ANSWER_TOKENS}
        ) as lines:
            data = [line async for line in lines if line.startswith("data: ")]
        if data[-1:] != ["data: [DONE]"]:
            raise Unexpected(f"the stream ended with {data[-1:]}")

    async def leave_a_stream(self) -> None:
        """Go when the first words have come, on a connection of our own, which is closed."""
        async with connected(self.target) as http:
            async with http.stream(
                "POST", "/ask", json=self._body(max_tokens=200), headers={"Accept": "text/event-stream"}
            ) as response:
                async for line in response.aiter_lines():
                    if line.startswith("event: text"):
                        return
            raise Unexpected("a stream without a text")

    async def leave_before_it(self) -> None:
        try:
            async with asyncio.timeout(self.dice.uniform(0.02, 1.5)), connected(self.target) as http:
                await http.post("/ask", json=self._body(max_tokens=200))
        except TimeoutError:
            pass

    async def search(self) -> None:
        found = (await self._got("GET", "/search", params={"q": self._words(3), "k": 8})).json()
        if not found["passages"]:
            raise Unexpected("a search that finds nothing")

    async def small_requests(self) -> None:
        for path in ("/readyz", "/freshness", "/healthz", "/metrics", "/v1/models", "/adapters", "/nights/last"):
            await self._got("GET", path)
        await self._got("GET", "/code", params={"path": "src/itsdangerous/signer.py", "start_line": 5, "end_line": 9})
        await self._got("GET", "/index/explain", params={"path": "README.md"})
        await self._got("POST", "/v1/embeddings", json={"input": [self._words(6)]})

    async def save_a_file(self) -> None:
        """Save one of our own files, or delete it; what was saved must be found, what was deleted must not."""
        file = self.target.root / "soak" / f"part_{self.number}_{self.dice.randrange(FILES)}.py"
        file.parent.mkdir(exist_ok=True)
        if file.exists() and self.dice.random() < 0.2:
            file.unlink()
            return
        self.saved += 1
        mark = f"mark{self.number}x{self.saved}"
        text = f'def {mark}(key):\n    """{self._words(12)}"""\n    return "{self._words(4)}"\n'
        file.write_text(text + "".join(f"\n\ndef part_{n}():\n    return {n}\n" for n in range(5)))
        deadline = time.monotonic() + FOUND_WITHIN_S
        while not await self._finds(mark):
            if time.monotonic() > deadline:
                raise Unexpected(f"{mark} in {file.name} was not found within {FOUND_WITHIN_S:.0f} s")
            await asyncio.sleep(0.5)

    async def _finds(self, mark: str) -> bool:
        found = (await self._got("GET", "/search", params={"q": mark, "k": 5})).json()
        return any(mark in passage["text"] for passage in found["passages"])

    async def mcp(self) -> None:
        """An agent comes, looks at the tools, searches, reads, and goes."""
        headers = {"Authorization": f"Bearer {self.target.token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http,
            Client(streamable_http_client(f"{self.target.url}/mcp", http_client=http)) as client,
        ):
            tools = (await client.list_tools()).tools
            found = await client.call_tool("search_code", {"query": self._words(2)})
            read = await client.call_tool("read_passage", {"path": "README.md"})
        if len(tools) != 3 or found.is_error or read.is_error:
            raise Unexpected(f"an agent was told {found.content} and {read.content}")

    async def wrong_requests(self) -> None:
        for status, method, path, options in WRONG:
            response = await self.http.request(method, path, **options)
            if response.status_code != status:
                raise Unexpected(f"{method} {path} {str(options)[:80]}: {response.status_code}, {status} is due")

    async def _got(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = await self.http.request(method, path, **options)
        if response.status_code not in (200, 204):
            raise Unexpected(f"{method} {path}: {response.status_code} {response.text[:200]}")
        return response

    @asynccontextmanager
    async def _stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        headers = {"Accept": "text/event-stream"}
        async with self.http.stream("POST", path, json=body, headers=headers) as response:
            if response.status_code != 200:
                raise Unexpected(f"POST {path}: {response.status_code} {(await response.aread())[:200]!r}")
            yield response.aiter_lines()

    def _words(self, count: int) -> str:
        return " ".join(self.dice.choices(WORDS, k=count))


_CHAT = {"messages": [{"role": "user", "content": "hello"}]}
# What must be refused, and with which status.
WRONG: tuple[tuple[int, str, str, dict[str, Any]], ...] = (
    (401, "GET", "/search?q=key", {"headers": {"Authorization": "Bearer wrong"}}),
    (401, "POST", "/ask", {"json": {"question": "?"}, "headers": {"Authorization": "Bearer café".encode()}}),
    (421, "GET", "/search?q=key", {"headers": {"Host": "evil.example"}}),
    (403, "GET", "/search?q=key", {"headers": {"Origin": "https://evil.example"}}),
    (400, "POST", "/ask", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    (400, "POST", "/ask", {"json": {"question": "?", "unknown": 1}}),
    (400, "POST", "/v1/chat/completions", {"json": {**_CHAT, "n": 2}}),
    (413, "POST", "/ask", {"content": json.dumps({"question": "x" * (1 << 20)}).encode()}),
    (404, "GET", "/code?path=../../etc/passwd", {}),
    (404, "GET", "/nothing", {}),
)
