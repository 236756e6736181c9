"""The backend beside bare vLLM: the same engine, the same prompts, the same run.

usage: ./run bench serving speed|swap|adapters|soak --repository DIR [--rounds N] [--pairs N] [--minutes N]
       [--markdown FILE]

speed: one vLLM is started; the backend is put in front of it by [server] engine_url. Each question's own prompt (as
`explain` tells it) goes to vLLM itself and, as the question, through the backend, in turn; every prompt was read once
before, so that both find it in vLLM's prefix cache and what is left is what the backend adds. Then 1, 4 and 16 clients.

swap: the backend with an engine of its own, from nothing to the first answer; then adapter and base model change places
while four clients ask without a pause. No request may fail.

adapters: the adapter merged into the weights of a second engine, and loaded into the one that runs: seconds from
promote to the first answer that names it and back again, and tokens a second with it.

soak: half an hour of mixed load (serving_load.py), and whether the backend holds more at its end (serving_soak.py). The
exit status is 1 when it does, or when one answer was not the one due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
from serving_load import Load, Target
from serving_report import put_section, told
from serving_soak import is_well, soak

from indexer.workspace import Workspace
from server.adapter import rollback
from server.base_model import resolve_base_model
from server.client import Backend, find_backend
from server.engine import SERVED_NAME, EngineProcess, Weights, start_engine
from server.settings import ServerSettings

QUESTIONS = (
    "Where is the signature checked?", "What does the Signer class do?", "Which exception means an expired signature?",
    "How is the secret key derived?", "How are payloads compressed?", "What does URLSafeSerializer add?",
    "Where is the timestamp read?", "Which digest is used by default?",
)  # fmt: skip
PASSAGES = 3  # so that all prompts fit into the prefix cache
MODEL = "smollm2-135m"
ANSWER_TOKENS = 96  # an answer of ordinary length: with 24 the question's own work was half of what is measured
FIRST_TOKENS = 6  # with two, the first piece could come because it is the last
ASKED_EACH = 2  # questions of each client, one after the other: all at once would measure the searches' queue alone
RATIO = 0.97


@dataclass(frozen=True, slots=True)
class Timed:
    """One answer: seconds to its first piece and to its end, how many tokens it has, and the backend's own times."""

    first_s: float
    total_s: float
    tokens: int
    timings_ms: dict[str, float]


Running = tuple[Backend, httpx.AsyncClient, psutil.Process]
Ask = Callable[[str, int], Awaitable[Timed]]


async def timed(http: httpx.AsyncClient, body: dict[str, Any], most: int) -> Timed:
    """A streamed chat completion of at most `most` tokens, timed at the client."""
    started, first, tokens, timings = time.perf_counter(), 0.0, 0, {}
    body |= {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": most, "temperature": 0}
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise RuntimeError(chunk["error"])
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            timings = chunk.get("nightschool", {}).get("timings_ms", timings)
            said = (chunk.get("choices") or [{}])[0].get("delta", {}).get("content")
            first = first or (time.perf_counter() - started if said else 0.0)
    return Timed(first, time.perf_counter() - started, tokens, timings)


@asynccontextmanager
async def bare_engine(folder: Path) -> AsyncIterator[tuple[EngineProcess, str, str]]:
    """vLLM as the backend starts it: the process, its address and its key."""
    settings = ServerSettings(model=MODEL, eager=True)
    base = await asyncio.to_thread(resolve_base_model, MODEL, settings.models_cache, print)
    process = start_engine(Weights(base.folder, base, None), settings, folder, folder / "logs")
    try:
        await process.wait_until_ready(settings.engine_start_timeout_s)
        host, port = process.engine.address
        yield process, f"http://{host}:{port}/v1", process.engine._http.headers["Authorization"].split()[1]
    finally:
        await process.stop()


@asynccontextmanager
async def backend(
    place: Workspace, **settings: str
) -> AsyncIterator[tuple[Backend, httpx.AsyncClient, psutil.Process]]:
    """`nightschool serve` in a process of its own, ready."""
    names = {f"NIGHTSCHOOL_SERVER__{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "nightschool", "serve", "--workspace", str(place.root)]
    with (place.root / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **names}, stdout=log, stderr=log)  # noqa: ASYNC220
    try:
        while (found := await find_backend(place)) is None or not (await found.get("/readyz"))["ready"]:
            assert process.poll() is None, (place.root / "serve.log").read_text()
            await asyncio.sleep(0.2)
        headers = {"Authorization": f"Bearer {(place.state / 'token').read_text().strip()}"}
        limits = httpx.Limits(max_connections=64)
        async with found, httpx.AsyncClient(base_url=found.url, headers=headers, timeout=600, limits=limits) as http:
            yield found, http, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def speed(place: Workspace, arguments: argparse.Namespace) -> list[str]:
    # Not in the workspace's own folder: a backend that starts there ends the engines that it finds recorded.
    async with bare_engine(Path(tempfile.mkdtemp(dir=place.root.parent))) as (engine, url, key):
        more = {"engine_url": url, "engine_key": key, "engine_model": SERVED_NAME, "requests_per_minute": "0"}
        bare = httpx.AsyncClient(base_url=url[:-3], headers={"Authorization": f"Bearer {key}"}, timeout=600)
        async with bare, backend(place, **more) as (ours, http, process):
            firsts, rates = [], []
            spent = (Spent(process), Spent(psutil.Process(engine._process.pid)))
            for retrieval, goal_ms in ((False, 15), (True, 50)):
                title = "with" if retrieval else "without"
                asks = await two_ways(bare, http, ours, retrieval)
                firsts.append(told_at_once(await first_tokens(title, asks, arguments.rounds, goal_ms)))
                for clients in (1, 4, 16):
                    rates.append(told_at_once(await throughput(title, asks, clients, arguments.pairs, spent)))
            memory = process.memory_full_info()
    held = f"{memory.rss / 1e6:.0f} MB resident, {memory.uss / 1e6:.0f} MB shared with nobody (goal: below 700)"
    return [
        "| time to the first token, ms | bare vLLM p50 | through the backend p50 | added p50 | goal | added p95 |"
        " before the engine was asked p50 |",
        "|---|---|---|---|---|---|---|",
        *firsts,
        "",
        f"| retrieval | clients | bare vLLM, tokens/s | through the backend | ratio (goal {RATIO}) | of each pair |"
        " backend's CPU, ms a token | of its and the engine's |",
        "|---|---|---|---|---|---|---|---|",
        *rates,
        "",
        f"Memory of the backend without the engine, after all of it: {held}.",
    ]


def told_at_once(row: str) -> str:
    print(row, file=sys.stderr, flush=True)
    return row


async def two_ways(bare: httpx.AsyncClient, http: httpx.AsyncClient, ours: Backend, retrieval: bool) -> tuple[Ask, Ask]:
    """The same question asked of vLLM, with the backend's own prompt, and of the backend; all prompts read once."""
    prompts = {}
    for question in QUESTIONS:
        asked = {"question": question, "retrieval": retrieval, "k": PASSAGES, "explain": True, "max_tokens": 1}
        explained = await ours.post("/ask", asked)
        prompts[question] = [{"role": t["role"], "content": t["content"]} for t in explained["explanation"]["prompt"]]

    async def ask_bare(question: str, most: int) -> Timed:
        return await timed(bare, {"model": SERVED_NAME, "messages": prompts[question]}, most)

    async def ask_ours(question: str, most: int) -> Timed:
        messages = [{"role": "user", "content": question}]
        return await timed(http, {"messages": messages, "nightschool": {"retrieval": retrieval, "k": PASSAGES}}, most)

    return ask_bare, ask_ours


async def first_tokens(title: str, asks: Sequence[Ask], rounds: int, goal_ms: int) -> str:
    for ask in asks:
        await ask(QUESTIONS[0], FIRST_TOKENS)
    bare, ours = [], []
    for number in range(rounds):
        question = QUESTIONS[number % len(QUESTIONS)]
        # In turn, each first every other time.
        for times, ask in [(bare, asks[0]), (ours, asks[1])][:: 1 if number % 2 else -1]:
            times.append(await ask(question, FIRST_TOKENS))
    added = sorted(1000 * (after.first_s - before.first_s) for before, after in zip(bare, ours, strict=True))
    p95 = added[int(0.95 * (len(added) - 1))]
    middle = [statistics.median(1000 * one.first_s for one in times) for times in (bare, ours)]
    before = statistics.median(one.timings_ms["prompt"] for one in ours)
    shown = " | ".join(f"{value:.1f}" for value in (*middle, statistics.median(added)))
    return f"| {title} retrieval ({rounds} pairs) | {shown} | {goal_ms} | {p95:.1f} | {before:.1f} |"


class Spent:
    """The processor's time of a process and its children, among them git, which it waits for."""

    def __init__(self, process: psutil.Process) -> None:
        self._processes = [process, *process.children(recursive=True)]

    def seconds(self) -> float:
        return sum(sum(process.cpu_times()[:4]) for process in self._processes)


async def throughput(title: str, asks: Sequence[Ask], clients: int, pairs: int, spent: tuple[Spent, Spent]) -> str:
    """Tokens a second over `clients` at once, both ways in turn, each first every other time.

    The ratio is the geometric mean of those of the pairs, with its standard error. `spent` is of the backend and of
    the engine; the backend's share of both is what must be lost where the engine fills all cores.
    """
    rates: list[list[float]] = []
    cpu_s, tokens = [0.0, 0.0], 0
    for number in range(pairs):
        pair = [0.0, 0.0]
        for way in (0, 1)[:: 1 if number % 2 else -1]:
            before = [one.seconds() for one in spent]
            pair[way], written = await rate(asks[way], clients)
            if way:
                used = [one.seconds() - was for one, was in zip(spent, before, strict=True)]
                cpu_s = [sum(both) for both in zip(cpu_s, used, strict=True)]
                tokens += written
        rates.append(pair)
    bare, ours = (statistics.harmonic_mean(each) for each in zip(*rates, strict=True))
    logs = [math.log(through / direct) for direct, through in rates]
    mean, error = math.exp(statistics.mean(logs)), statistics.stdev(logs) / math.sqrt(pairs)
    each = ", ".join(f"{through / direct:.2f}" for direct, through in rates)
    costs = f"{1000 * cpu_s[0] / tokens:.2f} | {100 * cpu_s[0] / sum(cpu_s):.1f}%"
    return f"| {title} | {clients} | {bare:.1f} | {ours:.1f} | {mean:.3f} +- {mean * error:.3f} | {each} | {costs} |"


async def rate(ask: Ask, clients: int) -> tuple[float, int]:
    """Tokens a second of `clients` that ask one question after the other, and how many tokens."""
    questions = [QUESTIONS[n % len(QUESTIONS)] for n in range(ASKED_EACH * clients)]

    async def client(mine: Sequence[str]) -> int:
        return sum([(await ask(question, ANSWER_TOKENS)).tokens for question in mine])

    started = time.perf_counter()
    tokens = sum(await asyncio.gather(*(client(questions[n::clients]) for n in range(clients))))
    return tokens / (time.perf_counter() - started), tokens


async def swap(place: Workspace, _: argparse.Namespace) -> list[str]:
    more = {"model": MODEL, "eager": "true", "code_first": "never", "requests_per_minute": "0"}
    await asyncio.to_thread(learn, place)
    started = time.monotonic()
    async with backend(place, **more) as (ours, _, process):
        await ours.post("/ask", {"question": QUESTIONS[0], "max_tokens": 1})
        first_s = time.monotonic() - started
        asked, failed, done = 0, [], asyncio.Event()

        async def client(number: int) -> None:
            nonlocal asked
            while not done.is_set():
                try:
                    answer = await ours.post("/ask", {"question": QUESTIONS[number], "max_tokens": 8})
                    if not answer["base_model"]:
                        failed.append("; ".join(answer["notices"]))
                except Exception as error:  # what is counted here
                    failed.append(repr(error))
                asked += 1

        clients = [asyncio.create_task(client(number)) for number in range(4)]
        took = await swapped(ours, None)
        done.set()
        await asyncio.gather(*clients)
        memory = process.memory_info().rss / 1e6
    said = f": {failed[0]}" if failed else ""
    return [
        f"Start to the first answer (index, vLLM eager, one token): {first_s:.0f} s.",
        f"Swap from adapter to base model under 4 clients: {took:.0f} s, {asked} requests, {len(failed)} failed{said}.",
        f"Memory of the backend then: {memory:.0f} MB resident.",
    ]


def learn(place: Workspace) -> None:
    """An adapter of half a minute, in service."""
    nightschool = (sys.executable, "-m", "nightschool")
    where = ("--workspace", str(place.root), "--json")
    subprocess.run([*nightschool, "collect", *where], check=True, stdout=subprocess.DEVNULL)
    train = [*nightschool, "train", *where, "--budget", "0.5", "--model", MODEL]
    subprocess.run(train, check=True, stdout=subprocess.DEVNULL)


async def swapped(ours: Backend, wanted: str | None) -> float:
    """Roll back, and wait until the other one answers; seconds."""
    started = time.monotonic()
    await ours.post("/adapters/rollback")
    while (ready := await ours.get("/readyz"))["adapter"] != wanted or ready["engine"]["name"] != "ready":
        await asyncio.sleep(0.2)
    return time.monotonic() - started


async def adapters(place: Workspace, _: argparse.Namespace) -> list[str]:
    await asyncio.to_thread(learn, place)
    version = json.loads((place.adapters / "current.json").read_text())["version"]
    rows = []
    for way in ("merged", "loaded"):
        shutil.rmtree(place.state / "merged", ignore_errors=True)  # merging is part of the way
        rollback(place.adapters)
        async with backend(place, model=MODEL, eager="true", adapters=way, requests_per_minute="0") as (ours, http, _):
            promoted = await changed(ours, f"/adapters/{version}/promote", version)
            alone, _ = await rate(partial(ask_bare_of_passages, http), 1)
            together, _ = await rate(partial(ask_bare_of_passages, http), 4)
            back = await changed(ours, "/adapters/rollback", None)
        cells = (f"{value:.1f}" for value in (promoted, back, alone, together))
        rows.append(told_at_once(f"| {way} | {' | '.join(cells)} |"))
    return [
        "| | promote to its first answer, s | rollback to the base model's, s | tokens/s alone | tokens/s, 4 clients |",
        "|---|---|---|---|---|",
        *rows,
    ]


async def changed(ours: Backend, path: str, wanted: str | None) -> float:
    """Seconds from the request to the end of the first answer of one token that names `wanted`."""
    started = time.monotonic()
    await ours.post(path)
    while (await ours.post("/ask", {"question": "Say yes.", "retrieval": False, "max_tokens": 1}))["adapter"] != wanted:
        await asyncio.sleep(0.1)
    return time.monotonic() - started


async def ask_bare_of_passages(http: httpx.AsyncClient, question: str, most: int) -> Timed:
    messages = [{"role": "user", "content": question}]
    return await timed(http, {"messages": messages, "nightschool": {"retrieval": False}}, most)


async def long_load(place: Workspace, arguments: argparse.Namespace) -> list[str]:
    more = {"model": MODEL, "eager": "true", "requests_per_minute": "0"}
    async with backend(place, **more) as (ours, _, process):
        load = Load(Target(ours.url, (place.state / "token").read_text().strip(), place.root), QUESTIONS)
        return await soak(process, load, arguments.minutes, arguments.samples)


MEASURES = {
    "speed": ("What the backend adds to vLLM", speed),
    "swap": ("Start, and the swap under load", swap),
    "adapters": ("Adapters merged, and loaded at run time", adapters),
    "soak": ("A long mixed load", long_load),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=tuple(MEASURES))
    parser.add_argument("--repository", type=Path, required=True, help="a checkout of itsdangerous; it is copied")
    parser.add_argument("--rounds", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=6, help="of throughput, at least 2")
    parser.add_argument("--minutes", type=float, default=30, help="of soak")
    parser.add_argument("--samples", type=Path, help="where soak writes what it notes, a line of JSON each")
    parser.add_argument("--markdown", type=Path, help="the file in which this measurement's section is replaced")
    arguments = parser.parse_args()
    started, load = datetime.now().astimezone(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(arguments.repository, Path(folder) / "repository"))
        title, measure = MEASURES[arguments.what]
        lines = asyncio.run(measure(Workspace(root.resolve()), arguments))
    print(section := told(lines, started, load, title))
    if arguments.markdown:
        put_section(arguments.markdown, section)
    if arguments.what == "soak":
        sys.exit(not is_well(lines))


if __name__ == "__main__":
    main()
