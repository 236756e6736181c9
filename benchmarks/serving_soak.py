"""Does the backend stay as it is under a long mixed load? What it holds, noted as it goes, and a rule that says 'flat'.

The rule: the time after the warm-up is cut into ten blocks, each has its mean, a line is laid through the ten and the
95% interval of its slope is taken (Student's t, 8 degrees of freedom; means of blocks, because what is noted every few
seconds hangs together). 'flat': the whole interval lies below what is allowed. 'grows': it lies above 0 and reaches
beyond what is allowed. 'unsure': too noisy to say; run longer. What is counted (descriptors, threads, tasks) goes up
and down with the questions in work: there the two moments of rest decide, after the warm-up and at the end.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import psutil
from serving_load import SHARES, Load, connected

BLOCKS = 10
STUDENT = 2.306  # 95%, two-sided, BLOCKS - 2 degrees of freedom
WARM_UP = 1 / 6  # of the whole time
SETTLES_S = 20.0
MEMORY_AN_HOUR = 0.05  # allowed growth, of what it holds at first
WRONG, LEFT = "Not as it should be", "Questions still in work afterwards"
COUNT_AN_HOUR = 2.0  # allowed growth of what is counted, under load
COUNT_AT_REST = 2.0  # and from rest to rest, which decides: under load it goes with the questions that are in work


@dataclass(frozen=True, slots=True)
class Sample:
    """What the backend held `at_s` seconds after the load began; memory in MB. `engine` is all below the backend."""

    at_s: float
    resident: float
    anonymous: float
    own: float
    descriptors: int
    threads: int
    tasks: float
    in_work: float
    engine: float


NAMES = {
    "resident": "backend, resident, MB",
    "anonymous": "backend, without what is mapped from files, MB",
    "own": "backend, shared with nobody (USS), MB",
    "descriptors": "open descriptors",
    "threads": "threads",
    "tasks": "asyncio tasks",
    "engine": "engine (all its processes), resident, MB",
}


COUNTED = ("descriptors", "threads", "tasks")
# Told and not judged: vLLM's, and what depends on who else maps the same files.
NOT_JUDGED = ("own", "engine")


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth per hour with its 95% interval, and what is allowed."""

    an_hour: float
    low: float
    high: float
    allowed: float

    @property
    def verdict(self) -> str:
        if self.high <= self.allowed:
            return "flat"
        return "grows" if self.low > 0 else "unsure"


def slope(times_s: Sequence[float], values: Sequence[float], allowed: float) -> Slope:
    """The line through the means of ten blocks. Raises `ValueError` for fewer than ten values."""
    if len(values) < BLOCKS:
        raise ValueError(f"{len(values)} values: at least {BLOCKS} are needed")
    at = np.array([block.mean() for block in np.array_split(np.asarray(times_s, float) / 3600, BLOCKS)])
    mean = np.array([block.mean() for block in np.array_split(np.asarray(values, float), BLOCKS)])
    spread = ((at - at.mean()) ** 2).sum()
    an_hour = ((at - at.mean()) * (mean - mean.mean())).sum() / spread
    rest = mean - mean.mean() - an_hour * (at - at.mean())
    half = STUDENT * float(np.sqrt((rest**2).sum() / (BLOCKS - 2) / spread))
    return Slope(float(an_hour), float(an_hour - half), float(an_hour + half), allowed)


async def soak(process: psutil.Process, load: Load, minutes: float, samples_file: Path | None) -> list[str]:
    """The load for `minutes`, at rest for a moment after the warm-up and at the end, then the table.

    Each sample is also appended to `samples_file`, as a line of JSON.
    """
    samples: list[Sample] = []
    rests: list[Sample] = []
    started = time.monotonic()
    every_s = min(10.0, minutes * 60 / 60)
    async with connected(load.target) as http:

        async def look(into: list[Sample]) -> None:
            metrics = (await http.get("/metrics")).text
            into.append(await asyncio.to_thread(sample, process, metrics, time.monotonic() - started))
            _keep(samples_file, asdict(into[-1]) | {"done": load.done.total(), "failed": len(load.failures)})

        for leg_s in (minutes * 60 * WARM_UP, minutes * 60 * (1 - WARM_UP)):
            stop, ends = asyncio.Event(), time.monotonic() + leg_s
            running = asyncio.create_task(load.run(stop))
            while time.monotonic() < ends and not running.done():
                await look(samples)
                await asyncio.sleep(every_s)
            stop.set()
            await running
            load.seed += 1
            await asyncio.sleep(SETTLES_S)
            await look(rests)
    lines = table(samples, rests, load.done, load.failures)
    _keep(samples_file, {"table": lines, "done": load.done, "failures": load.failures})
    return lines


def sample(process: psutil.Process, metrics: str, at_s: float) -> Sample:
    memory = process.memory_full_info()
    engine = 0
    for child in process.children(recursive=True):
        try:
            engine += child.memory_info().rss
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return Sample(
        at_s=at_s,
        resident=memory.rss / 1e6,
        anonymous=(memory.rss - memory.shared) / 1e6,
        own=memory.uss / 1e6,
        descriptors=process.num_fds(),
        threads=process.num_threads(),
        tasks=_metric(metrics, "nightschool_asyncio_tasks"),
        in_work=_metric(metrics, "nightschool_questions_in_work"),
        engine=engine / 1e6,
    )


def _metric(text: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found, f"/metrics does not tell {name}"
    return float(found[1])


def _keep(file: Path | None, line: Mapping[str, object]) -> None:
    if file is not None:
        with file.open("a") as out:
            out.write(json.dumps(line) + "\n")


def table(
    samples: Sequence[Sample], rests: Sequence[Sample], done: Mapping[str, int], failures: Sequence[str]
) -> list[str]:
    """What was held at first and at last, the slopes with their verdicts, and what was done.

    `rests`: at rest after the warm-up, and at rest at the end.
    """
    whole_s = samples[-1].at_s
    warm = [s for s in samples if s.at_s >= whole_s * WARM_UP]
    edge_s = whole_s / 6
    first = [s for s in warm if s.at_s < whole_s * WARM_UP + edge_s]
    last = [s for s in warm if s.at_s >= whole_s - edge_s]
    ends = f"{edge_s / 60:.1f} min"
    lines = [
        f"| | first {ends} after warm-up | last {ends} | growth an hour (95% interval) | allowed | |"
        " at rest after warm-up | at rest at the end |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in (f.name for f in fields(Sample) if f.name in NAMES):
        lines.append(_row(name, first, last, slope_of(warm, name), rests))
    requests = "; ".join(f"{name} {done.get(name, 0)}" for name in SHARES)
    lines += ["", f"{whole_s / 60:.1f} minutes, {len(samples)} looks. Done: {sum(done.values())} ({requests})."]
    lines.append(f"{WRONG}: {len(failures)}. {LEFT}: {rests[-1].in_work:.0f}.")
    return [*lines, *(f"- {failure}" for failure in failures[:10])]


def is_well(lines: Sequence[str]) -> bool:
    """Whether a table tells of no growth, no wrong answer and nothing left in work."""
    text = "\n".join(lines)
    return "| grows |" not in text and f"{WRONG}: 0. {LEFT}: 0." in text


def slope_of(warm: Sequence[Sample], name: str) -> Slope:
    values = [float(getattr(s, name)) for s in warm]
    allowed = COUNT_AN_HOUR if name in COUNTED else MEMORY_AN_HOUR * values[0]
    return slope([s.at_s for s in warm], values, allowed)


def _row(name: str, first: Sequence[Sample], last: Sequence[Sample], line: Slope, rests: Sequence[Sample]) -> str:
    value: Callable[[Sample], float] = lambda s: float(getattr(s, name))  # noqa: E731
    begin, end = (float(np.mean([value(s) for s in part])) for part in (first, last))
    grown = f"{line.an_hour:+.1f} ({line.low:+.1f} to {line.high:+.1f})"
    verdict = f"({line.verdict})" if name in NOT_JUDGED else line.verdict
    idle = [value(rest) for rest in rests]
    if name in COUNTED:
        verdict = "flat" if idle[-1] - idle[0] <= COUNT_AT_REST else "grows"
    at_rest = " | ".join(f"{each:.1f}" for each in idle)
    return f"| {NAMES[name]} | {begin:.1f} | {end:.1f} | {grown} | {line.allowed:.1f} | {verdict} | {at_rest} |"
