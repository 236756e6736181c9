"""Two backends on one Chroma server beside one, under many clients; and what fleets of repositories would take.

usage: ./run bench fleet_backends --repository DIR --check DIR [--clients 32] [--seconds 8] [--rounds 2]

`--repository` and `--check` are checkouts of two small repositories; they are copied. Every backend is a whole
`nightschool serve` in a process of its own, in a clone of its own; its engine is an address that nobody answers at,
which `/search` does not need. The clients are one process and go to the backends in turn. What the model of a fleet
takes for one repository is measured on `--repository`, and what it says is checked on `--check`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import psutil

from indexer.chroma_server import ChromaServer
from indexer.index import open_index
from indexer.settings import IndexerSettings
from indexer.store import open_client
from indexer.workspace import Workspace

QUERIES = (
    "where is the signature checked", "Signer", "BadSignature", "derive the secret key", "compress the payload",
    "URLSafeSerializer", "timestamp of a token", "default digest", "SignatureExpired", "load without checking",
    "json encoder", "want_bytes", "fallback signers", "salt", "base64_decode", "how old may a token be",
)  # fmt: skip
VECTORS = 5_000  # with which the memory of a Chroma server is measured


@dataclass(frozen=True, slots=True)
class Prices:
    """What the model of cost assumes of the world; none of it is measured."""

    core_hour: float = 0.03
    gb_month: float = 0.05
    memory_gb_month: float = 3.0
    chunks: int = 5_000  # of a repository
    changed: float = 0.02  # of its chunks, a day
    nights: float = 0.1  # of the repositories, a day: those that changed most


@dataclass(frozen=True, slots=True)
class Measured:
    """One repository: `index_s` is the time of a cold index, `core_s` the processor time of it."""

    name: str
    chunks: int
    index_s: float
    core_s: float
    disk_bytes: int

    @property
    def core_ms(self) -> float:
        """Processor time of a chunk: read, cut, embedded, stored; ms."""
        return 1000 * self.core_s / self.chunks

    @property
    def disk_kb(self) -> float:
        return self.disk_bytes / 1000 / self.chunks


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def process(command: Sequence[str], log: Path, **env: str) -> Iterator[psutil.Process]:
    """A process in a group of its own, ended when left."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command, env={**os.environ, **env}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield psutil.Process(started.pid)
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


@contextmanager
def chroma(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A Chroma server: its address and its process."""
    port = free_port()
    program = str(Path(sys.executable).with_name("chroma"))
    command = [program, "run", "--path", str(folder / "chroma"), "--host", "127.0.0.1", "--port", str(port)]
    with process(command, folder / "chroma.log") as running:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: httpx.get(f"{address}/api/v2/heartbeat", trust_env=False).status_code == 200)
        yield address, running


def wait_for(is_there, within_s: float = 180) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            if is_there():
                return
        except (httpx.HTTPError, OSError, KeyError, ValueError):
            pass
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


@contextmanager
def backend(root: Path, address: str) -> Iterator[psutil.Process]:
    """`nightschool serve` in `root`, over the Chroma at `address`, or its own."""
    settings = {
        "INDEXER__CHROMA": address,
        "SERVER__REQUESTS_PER_MINUTE": "0",
        "SERVER__ENGINE_URL": "http://127.0.0.1:9/v1",
    }
    command = [sys.executable, "-m", "nightschool", "serve", "--workspace", str(root)]
    env = {f"NIGHTSCHOOL_{name}": value for name, value in settings.items() if value}
    with process(command, root / "serve.log", **env) as running:
        yield running


def client_of(root: Path) -> httpx.AsyncClient:
    """A client of the backend in `root`, when its whole index is in Chroma."""
    state = root / ".nightschool"

    def about() -> tuple[str, dict[str, str]]:
        url = json.loads((state / "backend.json").read_text())["url"]
        return url, {"Authorization": f"Bearer {(state / 'token').read_text().strip()}"}

    def is_indexed() -> bool:
        url, headers = about()
        fresh = httpx.get(f"{url}/freshness", headers=headers, trust_env=False, timeout=30).json()
        return bool(fresh["chunks"]) and not fresh["waiting_chunks"]

    wait_for(is_indexed)
    url, headers = about()
    limits = httpx.Limits(max_connections=64)
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False, limits=limits)


def say(text: str) -> None:
    print(f"fleet_backends: {text}", file=sys.stderr, flush=True)


async def load(targets: Sequence[httpx.AsyncClient], clients: int, seconds: float) -> tuple[list[float], int]:
    """Each client searches without a pause; ms of every answer, and how many were none."""
    times: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal failed
        while (started := time.perf_counter()) < end:
            target, query = targets[number % len(targets)], QUERIES[number % len(QUERIES)]
            answer = await target.get("/search", params={"q": query, "k": 10})
            body = answer.json()
            if answer.status_code != 200 or not body["passages"] or "notice" in body:
                failed += 1
            times.append(1000 * (time.perf_counter() - started))
            number += 1

    await asyncio.gather(*(client(number) for number in range(clients)))
    return times, failed


async def compare(arms: dict[str, Sequence[httpx.AsyncClient]], clients: int, seconds: float, rounds: int) -> list[str]:
    """The arms in turn, `rounds` times; a row of a table each."""
    for targets in arms.values():
        await load(targets, 4, 1.0)
    times: dict[str, list[float]] = {name: [] for name in arms}
    failed = dict.fromkeys(arms, 0)
    for _ in range(rounds):
        for name, targets in arms.items():
            say(name)
            found, none = await load(targets, clients, seconds)
            times[name] += found
            failed[name] += none
    rate = {name: len(each) / (rounds * seconds) for name, each in times.items()}
    first = next(iter(rate.values()))
    return [
        f"| {name} | {rate[name]:.0f} | {rate[name] / first:.2f} | {statistics.median(each):.0f} "
        f"| {np.percentile(each, 99):.0f} | {failed[name]} |"
        for name, each in times.items()
    ]


def two_beside_one(repository: Path, folder: Path, options: argparse.Namespace) -> list[str]:
    with ExitStack() as stack:
        address, server = stack.enter_context(chroma(folder))
        places = [Path(shutil.copytree(repository, folder / name)) for name in ("alone", "one", "two")]
        begun = [stack.enter_context(backend(place, "" if place.name == "alone" else address)) for place in places]
        say("three backends read their clones")
        alone, one, two = map(client_of, places)
        arms = {
            "one backend, embedded Chroma": [alone],
            "one backend, a Chroma server": [one],
            "two backends, one Chroma server": [one, two],
        }
        rows = asyncio.run(compare(arms, options.clients, options.seconds, options.rounds))
        said = [f"{running.memory_info().rss / 1e6:.0f} MB" for running in (*begun, server)]
        memory_line = (
            f"Resident memory after it: {said[0]} of the backend with an embedded Chroma, {said[1]} and {said[2]} of "
            f"those on a server, {said[3]} of the server; no engine runs."
        )
    head = "| | requests/s | to the first | p50 ms | p99 ms | failed |"
    return [head, "|---|---:|---:|---:|---:|---:|", *rows, "", memory_line]


def measure(repository: Path, folder: Path) -> Measured:
    """A cold index of a copy of `repository`, with an embedded Chroma."""
    root = Path(shutil.copytree(repository, folder / f"cold-{repository.name}"))
    settings = IndexerSettings()
    with open_index(Workspace(root.resolve()), settings) as index:
        index.embed(["the model is loaded before the clock runs"])
        started, cpu = time.perf_counter(), time.process_time()
        report = index.update()
        seconds, core_s = time.perf_counter() - started, time.process_time() - cpu
    size = sum(file.stat().st_size for file in (root / ".nightschool").rglob("*") if file.is_file())
    return Measured(repository.name, report.chunks, seconds, core_s, size)


def chroma_kb(folder: Path) -> float:
    """What a vector of 384 dimensions adds to the memory of a Chroma server; kB."""
    (folder / "memory").mkdir()
    with chroma(folder / "memory") as (address, running):
        collection = open_client(folder, ChromaServer(address)).get_or_create_collection(
            "vectors", embedding_function=None
        )
        dice = np.random.default_rng(0)

        def put(first: int, count: int) -> int:
            for start in range(first, first + count, 500):
                vectors = dice.normal(size=(500, 384)).astype(np.float32)
                collection.upsert(ids=[str(n) for n in range(start, start + 500)], embeddings=vectors)
            collection.query(query_embeddings=vectors[:1], n_results=5)
            return running.memory_info().rss

        before = put(0, 1000)
        return (put(1000, VECTORS) - before) / 1000 / VECTORS


def model(one: Measured, vector_kb: float, night_s: float, prices: Prices) -> list[str]:
    """What fleets take, by the figures of one repository."""
    lines = [
        "| repositories | chunks | first index, core-hours | a day's changes, core-hours | nights a day, core-hours "
        "| disk GB | Chroma's memory GB | cost a month |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for count in (10, 1_000, 100_000):
        chunks = count * prices.chunks
        first = chunks * one.core_ms / 3.6e6
        daily = first * prices.changed
        nights = count * prices.nights * night_s * 2 / 3600
        disk, memory = chunks * one.disk_kb / 1e6, chunks * vector_kb / 1e6
        month = 30 * (daily + nights) * prices.core_hour + disk * prices.gb_month + memory * prices.memory_gb_month
        lines.append(
            f"| {count:,} | {chunks:,} | {first:,.1f} | {daily:,.1f} | {nights:,.1f} | {disk:,.1f} | {memory:,.1f} "
            f"| {month:,.0f} |"
        )
    return lines


def assumptions(one: Measured, vector_kb: float, options: argparse.Namespace, prices: Prices) -> list[str]:
    return [
        f"- measured here on {one.name} ({one.chunks} chunks, cold index {one.index_s:.1f} s), embedder "
        f"{IndexerSettings().embedder}: {one.core_ms:.1f} ms of processor and {one.disk_kb:.1f} kB of disk a chunk; "
        f"{vector_kb:.1f} kB of a Chroma server's memory a vector ({VECTORS:,} random ones of 384 dimensions);",
        f"- a night: {options.night_s:.0f} s on two cores ({options.night_source});",
        f"- assumed: {prices.chunks:,} chunks a repository, {prices.changed:.0%} of them new a day, a night for the "
        f"{prices.nights:.0%} of the repositories that changed most, nothing shared between forks;",
        f"- assumed prices: {prices.core_hour} a core-hour, {prices.gb_month} a GB of disk a month, "
        f"{prices.memory_gb_month} a GB of memory a month; engines (GPUs) and people are not in it.",
    ]


def check(one: Measured, other: Measured) -> str:
    core, disk = other.chunks * one.core_ms / 1000, other.chunks * one.disk_kb / 1000
    return (
        f"Checked on {other.name} ({other.chunks} chunks): the model says {core:.1f} s of processor and {disk:.1f} MB, "
        f"measured were {other.core_s:.1f} s ({other.core_s / core:.2f} of it) and {other.disk_bytes / 1e6:.1f} MB "
        f"({other.disk_bytes / 1e6 / disk:.2f})."
    )


def machine() -> str:
    cores, memory = os.cpu_count(), psutil.virtual_memory().total / 1e9
    return f"{cores} cores ({platform.machine()}), {memory:.0f} GB, load {os.getloadavg()[0]:.1f} before"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, required=True, help="a checkout of itsdangerous: the queries fit it")
    parser.add_argument("--check", type=Path, required=True, help="a checkout of another small repository")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--night-s", type=float, default=447.0, help="seconds of a night on two cores")
    parser.add_argument("--night-source", default="trainer/LOG.md, 2026-11-25: pydantic, two minutes of training")
    parser.add_argument("--markdown", type=Path)
    options, prices = parser.parse_args(), Prices()
    began, here = datetime.now(UTC), machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        rows = two_beside_one(options.repository, folder, options)
        say("cold indexes of both repositories")
        one, other = measure(options.repository, folder), measure(options.check, folder)
        say("the memory of a Chroma server")
        vector_kb = chroma_kb(folder)
    text = "\n".join([
        "# Several backends, and what fleets take", "",
        f"Made by `./run bench fleet_backends` on {began:%Y-%m-%d} on {here}.", "",
        f"## Two backends beside one: {options.clients} clients, /search on {options.repository.name}, "
        f"{options.rounds} x {options.seconds:g} s each", "",
        *rows, "",
        "Clients, backends and Chroma share these cores, so two backends have no more processor than one: read what "
        "a server and a second backend cost, not what a second machine gives.", "",
        "## A model of 10, 1,000 and 100,000 repositories", "",
        *assumptions(one, vector_kb, options, prices), "",
        *model(one, vector_kb, options.night_s, prices), "",
        check(one, other), "",
    ])  # fmt: skip
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
