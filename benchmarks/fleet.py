"""What many repositories cost, as sections of benchmarks/fleet.md; a section is written anew, the others stay.

usage: ./run bench fleet [--counts 1 10 100] [--files 15] [--queries 200] [--keep FOLDER]

The repositories are real: the installed Python packages with the most files, up to `--files` of each, those of at most
12 kB. The embedder is the one that the settings name by default. Each count is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import ast
import json
import platform
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from indexer import fleet_search
from indexer.fleet import FleetIndex, open_fleet
from indexer.fleet_search import fuse, in_turn
from indexer.ranking import Query
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace

REPORT = Path(__file__).with_name("fleet.md")
HEAD = "# Beyond one repository\n\nWritten by the scripts that each section names; a section is measured anew alone.\n"
MIB = 1 << 20


def write_section(title: str, body: str, report: Path = REPORT) -> None:
    """Put `## title` with `body` into the report, in the place of the section of that title or at the end."""
    text = report.read_text() if report.exists() else HEAD
    parts = re.split(r"(?m)^(?=## )", text)
    section = f"## {title}\n\n{body.strip()}\n"
    kept = [part for part in parts if not part.startswith(f"## {title}\n")]
    at = next((n for n, part in enumerate(parts) if part.startswith(f"## {title}\n")), len(kept))
    report.write_text("\n".join(part.strip() + "\n" for part in [*kept[:at], section, *kept[at:]]))


def machine() -> str:
    cpus, memory = psutil.cpu_count(), psutil.virtual_memory().total / (1 << 30)
    about = f"{platform.machine()}, {cpus} cores, {memory:.0f} GiB, Python 3.{sys.version_info.minor}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {about}"


def make_repositories(folder: Path, count: int, files: int) -> list[Path]:
    """`count` folders, each with files of one installed package."""
    site = Path(sysconfig.get_paths()["purelib"])
    packages = [p for p in site.iterdir() if (p / "__init__.py").is_file()]
    by_size = sorted(packages, key=lambda p: (-sum(1 for _ in p.rglob("*.py")), p.name))[:count]
    made = []
    for package in by_size:
        target = folder / re.sub(r"[^a-z0-9]+", "-", package.name.lower()).strip("-")
        for file in [one for one in sorted(package.rglob("*.py")) if 200 < one.stat().st_size <= 12_000][:files]:
            to = target / "src" / file.relative_to(package)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)
        made.append(target)
    return made


def write_settings(fleet: Workspace, repositories: list[Path]) -> None:
    tables = [f'[[fleet.repositories]]\nname = "{one.name}"\nsource = "{one}"\n' for one in repositories]
    fleet.settings_file.write_text("\n".join(tables))


def questions(repositories: list[Path], count: int) -> list[tuple[str, str]]:
    """(first line of a docstring, the path it stands in), of all repositories evenly; the same at every call."""
    dice = random.Random(7)
    asked = []
    while len(asked) < count:
        repository = repositories[len(asked) % len(repositories)]
        file = dice.choice(sorted(repository.rglob("*.py")))
        try:
            nodes = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.FunctionDef)]
        except (SyntaxError, ValueError):
            nodes = []
        lines = [line for n in nodes if len((line := (ast.get_docstring(n) or "").split("\n")[0]).split()) >= 5]
        if lines:
            asked.append((dice.choice(lines), f"{repository.name}/{file.relative_to(repository).as_posix()}"))
        else:
            repositories = repositories[1:] + repositories[:1]
    return asked


def measure(folder: Path, count: int, asked: int, is_watched: bool) -> dict[str, Any]:
    """One process over the first `count` repositories: opened, asked, weighed."""
    place = Workspace(folder.resolve())
    repositories = [Path(line) for line in (folder / "made.txt").read_text().split("\n")][:count]
    write_settings(place, repositories)
    process = psutil.Process()
    before = process.memory_info().rss
    with open_fleet(place, IndexerSettings()) as fleet:
        started = time.perf_counter()
        if is_watched:
            with fleet.watch():
                fleet.update()
                found = {"watch_s": time.perf_counter() - started, "threads": threading.active_count()}
                return found | {"mib": (process.memory_info().rss - before) / MIB, "missing": len(fleet.missing())}
        fleet.search("how does it begin")
        found = {"open_s": time.perf_counter() - started}
        pairs = questions(repositories, asked)
        taken = sorted(_timed(fleet, text) for text, _ in pairs)
        state = fleet.state()
        started = time.perf_counter()
        fleet.state()
        found |= {"state_ms": (time.perf_counter() - started) * 1e3, "chunks": state.chunks, "files": state.files}
        found |= {"mib": (process.memory_info().rss - before) / MIB, "missing": len(fleet.missing())}
        found |= {"p50": taken[len(taken) // 2], "p99": taken[int(0.99 * (len(taken) - 1))]}
        return found | {"right": hits(fleet, pairs)}


def _timed(fleet: FleetIndex, text: str) -> float:
    started = time.perf_counter()
    fleet.search(text, 10)
    return (time.perf_counter() - started) * 1e3


def hits(fleet: FleetIndex, pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Share of the questions whose file is among the first ten chunks, for each way to fuse."""
    found = {"each in turn": 0, "own 1": 0, "own 0.25": 0, "own 0": 0}
    for text, path in pairs:
        query = Query(text)
        answered = fleet._answered(query, 10, {})
        lists = [[f"{a.repository}/{c.chunk.path}" for c in a.candidates] for a in answered]
        found["each in turn"] += path in in_turn(lists, 10)
        for own in (1, 0.25, 0):
            fleet_search.OWN = own
            best = fuse(query, answered)[:10]
            found[f"own {own:g}"] += path in [f"{one.repository}/{one.chunk.path}" for one in best]
    return {way: count / len(pairs) for way, count in found.items()}


def child(folder: Path, count: int, asked: int, *more: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", str(folder), str(count), str(asked), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def index_all(folder: Path, repositories: list[Path]) -> tuple[float, int]:
    """Seconds to index all of them, and how many chunks they have."""
    place = Workspace(folder.resolve())
    write_settings(place, repositories)
    with open_fleet(place, IndexerSettings()) as fleet:
        started = time.perf_counter()
        report = fleet.update(lambda step: None)
    print(f"{report.files} files, {report.chunks} chunks, failed: {report.failed}", file=sys.stderr)
    return time.perf_counter() - started, report.chunks


def section_search(folder: Path, counts: list[int], files: int, asked: int) -> None:
    """Search over few and many repositories: time, memory, and whether the right file is found."""
    seconds, chunks = 0.0, 0
    if not (folder / "made.txt").exists():
        repositories = make_repositories(folder / "repositories", max(counts), files)
        seconds, chunks = index_all(folder, repositories)
        (folder / "made.txt").write_text("\n".join(map(str, repositories)))
    rows = {count: child(folder, count, asked) for count in counts}
    watched = child(folder, max(counts), asked, "--watch")
    write_section("Search over many repositories", _search_text(rows, watched, seconds, chunks, files, asked))


def _search_text(
    rows: dict[int, dict[str, Any]], watched: dict[str, Any], seconds: float, chunks: int, files: int, asked: int
) -> str:
    few, many = min(rows), max(rows)
    each = (rows[many]["mib"] - rows[few]["mib"]) / max(1, many - few)
    lines = [
        f"`./run bench fleet`; {machine()}. Repositories are installed Python packages, up to {files} files of each; "
        f"embedder {IndexerSettings().embedder}. "
        f"{asked} questions, ten passages each; a process of its own for each row, other programs beside it.",
        "",
        "| repositories | files | chunks | opened, first answer | p50 | p99 | state | memory |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {count} | {r['files']} | {r['chunks']} | {r['open_s']:.1f} s | {r['p50']:.0f} ms | {r['p99']:.0f} ms "
        f"| {r['state_ms']:.0f} ms | {r['mib']:.0f} MiB |"
        for count, r in rows.items()
    ]
    lines += [
        "",
        f"Growth from {few} to {many}: p50 {rows[many]['p50'] / rows[few]['p50']:.1f} times, p99 "
        f"{rows[many]['p99'] / rows[few]['p99']:.1f} times; {each:.1f} MiB a repository of "
        f"{rows[many]['chunks'] / many:.0f} chunks (index, Chroma's graph and open files). "
        f"All {many} watched and up to date: {watched['threads']} threads, {watched['mib']:.0f} MiB, "
        f"{watched['watch_s']:.1f} s to start."
        + (f" Indexed from nothing in {seconds:.0f} s ({chunks / seconds:.0f} chunks/s)." if seconds else ""),
        "",
        "Is the right file among the first ten chunks? Questions are first lines of docstrings. `own` is what the "
        "place in the repository's own list counts beside the place in the one list over all (`OWN` in "
        "indexer/fleet_search.py); `each in turn` takes the first of each repository, then the second.",
        "",
        "| repositories | " + " | ".join(rows[few]["right"]) + " |",
        "|---:|" + "---:|" * len(rows[few]["right"]),
    ]
    lines += [
        f"| {count} | " + " | ".join(f"{share:.2f}" for share in r["right"].values()) + " |"
        for count, r in rows.items()
    ]
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        folder, count, asked = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
        print(json.dumps(measure(folder, count, asked, "--watch" in sys.argv)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--files", type=int, default=15)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="work here, and leave it; indexed already: use it as it is")
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (wish.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        section_search(folder, wish.counts, wish.files, wish.queries)
    print(REPORT.read_text())


if __name__ == "__main__":
    main()
