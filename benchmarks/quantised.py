"""Are rounded weights faster on this machine, and what do they cost: vLLM on each, in turn, as Markdown.

usage: ./run bench quantised --repository DIR [--model smollm2-135m] [--rounds 4]

All engines run at once and are asked in turn, one at a time, so that the machine's drift meets all of them. Reading is
of prompts of 1,024 tokens that no cache holds; writing is 64 tokens for each of 1, 4 and 16 at once, with none of it
cached either. Bits per byte are of DIR's own Python files, as the engine itself scores them (`prompt_logprobs`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import datetime
from math import log
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import httpx
import psutil

from server.base_model import resolve_base_model
from server.engine import SERVED_NAME, EngineProcess, Weights, dtype, start_engine
from server.settings import ServerSettings

SCHEMES = ("", "W8A8", "W4A16")
PROMPT_TOKENS, SCORED_BYTES, WRITTEN = 1024, 3000, 64
CLIENTS = (1, 4, 16)


class Asked:
    """One engine, and what was measured of it: lists of tokens a second by what was done."""

    def __init__(self, scheme: str, process: EngineProcess, megabytes: float) -> None:
        self.scheme, self.process, self.megabytes = scheme, process, megabytes
        host, port = process.engine.address
        headers = dict(process.engine._http.headers)
        self.http = httpx.AsyncClient(base_url=f"http://{host}:{port}/v1", headers=headers, timeout=600)
        self.rates: dict[str, list[float]] = {}
        self.bits_per_byte = 0.0

    async def complete(self, prompt: str | list[int], tokens: int, **more: Any) -> dict[str, Any]:
        body = {"model": SERVED_NAME, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        response = await self.http.post("/completions", json=body | more)
        response.raise_for_status()
        return dict(response.json())

    async def read(self, salt: int) -> None:
        prompt = [(salt * 7919 + number * 31) % 40_000 + 100 for number in range(PROMPT_TOKENS)]
        await self.timed("read", PROMPT_TOKENS, [self.complete(prompt, 1)])

    async def write(self, salt: int, clients: int) -> None:
        prompts = [f"# {salt}.{number}\ndef parse_" for number in range(clients)]
        await self.timed(f"write {clients}", clients * WRITTEN, [self.complete(one, WRITTEN) for one in prompts])

    async def timed(self, what: str, tokens: int, work: list[Any]) -> None:
        started = time.perf_counter()
        await asyncio.gather(*work)
        self.rates.setdefault(what, []).append(tokens / (time.perf_counter() - started))

    async def score(self, texts: list[str]) -> None:
        nats = 0.0
        for text in texts:
            answer = await self.complete(text, 1, prompt_logprobs=0)
            for at in answer["choices"][0]["prompt_logprobs"][1:]:
                nats -= next(iter(at.values()))["logprob"]
        self.bits_per_byte = nats / log(2) / sum(len(text.encode()) for text in texts)

    def row(self, first: Asked) -> str:
        cells = [f"{harmonic_mean(self.rates[what]):.0f} ({self.ratio(first, what):.2f})" for what in self.rates]
        loses = f"{self.bits_per_byte:.4f} ({100 * (self.bits_per_byte / first.bits_per_byte - 1):+.1f}%)"
        group = psutil.Process(self.process._process.pid)
        held = sum(one.memory_info().rss for one in [group, *group.children(recursive=True)]) / 1e6
        return f"| {self.scheme or dtype()} | {self.megabytes:.0f} | {' | '.join(cells)} | {loses} | {held:.0f} |"

    def ratio(self, first: Asked, what: str) -> float:
        return harmonic_mean(self.rates[what]) / harmonic_mean(first.rates[what])


async def start(scheme: str, settings: ServerSettings, folder: Path) -> Asked:
    base = resolve_base_model(settings.model, settings.models_cache, print)
    weights = base.folder
    if scheme:
        weights = folder / scheme
        command = [sys.executable, "-m", "server.quantise", base.folder, scheme, weights]
        await asyncio.to_thread(subprocess.run, command, check=True, stderr=subprocess.DEVNULL)
    (state := folder / f"state-{scheme}").mkdir()
    held = Weights(weights, replace(base, folder=weights), None)
    process = start_engine(held, settings, state, state / "logs")
    await process.wait_until_ready(settings.engine_start_timeout_s)
    return Asked(scheme, process, held.bytes / 1e6)


async def measure(given: argparse.Namespace, folder: Path) -> list[str]:
    settings = ServerSettings(model=given.model, eager=True)
    files = sorted(file for file in given.repository.rglob("*.py") if file.stat().st_size > SCORED_BYTES)[:12]
    texts = [file.read_text()[:SCORED_BYTES] for file in files]
    asked: list[Asked] = []
    try:
        for scheme in SCHEMES:
            asked.append(await start(scheme, settings, folder))
        for salt in range(given.rounds + 1):
            for one in asked:
                await one.read(salt)
                for clients in CLIENTS:
                    await one.write(salt, clients)
            if not salt:  # what is compiled and allocated at first
                for one in asked:
                    one.rates.clear()
        for one in asked:
            await one.score(texts)
        return [one.row(asked[0]) for one in asked]
    finally:
        for one in asked:
            await one.process.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    started, load = datetime.now().astimezone(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(given, Path(folder)))
    print(f"{started:%Y-%m-%d %H:%M}, {given.model}, load {load:.1f} before, {given.rounds} rounds\n")
    print("| weights | MB | read, tokens/s | " + " | ".join(f"write, {n} at once" for n in CLIENTS), end="")
    print(" | bits per byte | engine, MB |\n" + "|---" * (6 + len(CLIENTS) - 1) + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
