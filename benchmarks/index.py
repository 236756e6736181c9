"""How fast and how large the index is, each figure beside the machine's limit, as Markdown.

usage: ./run bench index [--files 10000] [--chunks 1000 10000 100000] [--embed 2000] [--plot benchmarks/index.svg]

The trees are Python files of the installed packages, drawn at random, and the questions first lines of their
docstrings. "no change" is a whole process, started anew. "save to found" is of an index that is watched while another
thread asks without a pause: until its words find the file, and until its embedding is stored. Recall is Chroma's
against an exact scan, after a cold index and after ten times a tenth of the files was rewritten.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from fleet import questions

from indexer.chunking import chunk_text
from indexer.embedding import PACKAGED_TRANSFORMER, WORD_VECTORS, find_embedder
from indexer.index import Index, open_index
from indexer.settings import IndexerSettings
from indexer.update import embedded_text
from indexer.workspace import Workspace

WORDS = (
    "route parse header cookie render token cache load store merge split model view query bind session schema field "
    "error retry stream buffer socket client server worker queue batch index search rank score chunk text line file "
    "path folder watch event lock thread process signal timer clock date number string list tree node edge graph"
).split()
CHURNS = 10


def make_tree(root: Path, chunks: int) -> None:
    """Python files of installed packages, of 200 to 100,000 bytes, until they are cut into that many chunks."""
    site = Path(sysconfig.get_paths()["purelib"])
    files = sorted(file for file in site.rglob("*.py") if 200 < file.stat().st_size < 100_000)
    random.Random(chunks).shuffle(files)
    for file in files:
        path = file.relative_to(site).as_posix()
        if chunks <= 0:
            return
        if not re.search("vendor|third_party", path):
            text = file.read_text(errors="replace")
            chunks -= len(chunk_text(path, text, "python"))
            write(root / "src" / path, text)


def make_small_files(root: Path, files: int) -> None:
    dice = random.Random(files)
    for number in range(files):
        words = dice.choices(WORDS, k=4)
        write(root / f"src/{number % 97}/{words[0]}_{number}.py", f"def {'_'.join(words)}():\n    return {number}\n")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def questions_about(root: Path, count: int = 200) -> list[str]:
    return [line for line, _ in questions([root / "src"], count)]


def milliseconds(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1e3:.1f} / {ordered[int(0.99 * (len(ordered) - 1))] * 1e3:.1f}"


def time_queries(index: Index, asked: Sequence[str]) -> list[float]:
    taken = []
    for query in asked:
        started = time.perf_counter()
        index.search(query, 10)
        taken.append(time.perf_counter() - started)
    return taken


def recall(index: Index, asked: Sequence[str]) -> float:
    """Share of the 10 nearest by exact scan that Chroma's graph finds."""
    parts = index._parts
    chunks = list(parts.catalogue.every_chunk())
    known = parts.cache.get([embedded_text(chunk) for chunk in chunks])
    chunks = [chunk for chunk, vector in zip(chunks, known, strict=True) if vector is not None]
    vectors = np.stack([vector for vector in known if vector is not None])
    shares = []
    assert parts.store is not None
    for query in asked:
        vector = parts.embedder.embed([query])[0]
        exact = {chunks[row].id for row in np.argsort(-(vectors @ vector))[:10]}
        shares.append(len(exact & {id for id, _ in parts.store.search(vector, 10)}) / 10)
    return statistics.fmean(shares)


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure_size(chunks: int) -> list[float | str]:
    """One row: a cold index, queries, saves, recall and disk at this many chunks, and ripgrep over the same files."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make_tree(root, chunks)
        with open_index(Workspace(root), IndexerSettings()) as index:
            started = time.perf_counter()
            index.prepare()
            words_s = time.perf_counter() - started
            report = index.update()
            asked = questions_about(root)
            time_queries(index, asked[:20])
            taken = time_queries(index, asked)
            disk = folder_bytes(root / ".nightschool") / report.chunks
            found = recall(index, asked)
            by_words, by_meaning = time_saves(index, root, asked)
            churn(index, root)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            cells: list[float | str] = [report.chunks, round(words_s, 1), round(report.seconds + words_s, 1)]
            cells += [milliseconds(taken), percentiles(by_words), percentiles(by_meaning), f"{found:.3f}"]
            cells += [
                f"{recall(index, asked):.3f}",
                round(disk / 1e3, 1),
                round(memory * 1e3),
            ]
            return [*cells, milliseconds(ripgrep(root))]


def percentiles(seconds: Sequence[float]) -> str:
    """The median and the 95th percentile, seconds."""
    ordered = sorted(seconds)
    return f"{statistics.median(ordered):.2f} / {ordered[int(0.95 * (len(ordered) - 1))]:.2f}"


def time_saves(index: Index, root: Path, asked: Sequence[str], count: int = 20) -> tuple[list[float], list[float]]:
    """Seconds from a saved file to its words being found, and to its embedding being stored."""
    by_words, by_meaning = [], []
    with index.watch(), asking(index, asked):
        while index.state().waiting_chunks or index._parts.store is None:
            time.sleep(0.05)
        for number in range(count):
            file = root / f"src/{number}/saved.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"def freshly_saved_{number}():\n    return {number}\n")
            started = time.perf_counter()
            path = file.relative_to(root).as_posix()
            while not any(passage.path == path for passage in index.search(f"freshly_saved_{number}", 1)):
                time.sleep(0.002)
            by_words.append(time.perf_counter() - started)
            while index.state().waiting_chunks:
                time.sleep(0.01)
            by_meaning.append(time.perf_counter() - started)
    return by_words, by_meaning


@contextmanager
def asking(index: Index, asked: Sequence[str]) -> Iterator[None]:
    """Another thread asks, one question after the other."""
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            time_queries(index, asked[:5])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def churn(index: Index, root: Path) -> None:
    """A tenth of the files with other functions in them, ten times."""
    files = sorted((root / "src").rglob("*.py"))
    for turn in range(CHURNS):
        for file in random.Random(turn).sample(files, len(files) // 10):
            file.write_text(file.read_text().replace("def ", f"def turn{turn}_"))
        index.update()


def ripgrep(root: Path) -> list[float]:
    """Seconds of `rg -c WORD`, whose answers are all lines that hold it: what somebody would use without an index."""
    taken = []
    for word in WORDS[:20]:
        started = time.perf_counter()
        subprocess.run(["rg", "-c", word, str(root / "src")], stdout=subprocess.DEVNULL, check=False)
        taken.append(time.perf_counter() - started)
    return taken


def measure_no_change(files: int) -> str:
    """Seconds and memory of a whole process that finds a tree unchanged."""
    code = (
        "import sys, time, resource\nstarted = time.perf_counter()\nfrom pathlib import Path\n"
        "from indexer.index import open_index\nfrom indexer.settings import IndexerSettings\n"
        "from indexer.workspace import Workspace\n"
        "with open_index(Workspace(Path(sys.argv[1])), IndexerSettings()) as index: index.prepare()\n"
        "print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make_small_files(root, files)
        subprocess.run(["git", "init", "-q", str(root)], check=True)
        command = [sys.executable, "-c", code, str(root)]
        runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
    seconds, megabytes = runs[-1].split()
    took = f"{float(seconds):.2f} s, {float(megabytes):.0f} MB"
    return f"no change, {files:,} files, a process of its own: {took} (goal 2 s, 300 MB)"


def measure_embedder(name: str, count: int) -> str:
    """End to end against the bare embedder, which reads the same texts."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make_tree(root, count)
        embedder = find_embedder(name)
        embedder.embed(["warm", "up"])
        asked = questions_about(root, 50)
        with open_index(Workspace(root), IndexerSettings(), embedder) as index:
            report = index.update()
            texts = sorted((embedded_text(c) for c in index._parts.catalogue.every_chunk()), key=len)
    started = time.perf_counter()
    embedder.embed(texts)
    bare = time.perf_counter() - started
    single = []
    for query in asked:
        started = time.perf_counter()
        embedder.embed([query])
        single.append(time.perf_counter() - started)
    return (
        f"{name}: a cold index of {report.chunks} chunks {report.seconds:.1f} s, the embedder alone on the same texts"
        f" {bare:.2f} s ({len(texts) / bare:,.0f} chunks/s; {bare / report.seconds:.2f} of the whole)."
        f" A query: {milliseconds(single)} ms"
    )


def multiplication_rate() -> float:
    """GFLOP/s of float32 matrices of MiniLM's shapes, on all cores."""
    left, right = np.ones((4096, 384), np.float32), np.ones((384, 1536), np.float32)
    started = time.perf_counter()
    for _ in range(20):
        left @ right
    return 20 * 2 * left.shape[0] * left.shape[1] * right.shape[1] / (time.perf_counter() - started) / 1e9


COLUMNS = (
    "chunks", "words s", "all s", "query ms p50 / p99", "save to words s p50 / p95", "save to meaning s p50 / p95",
    "recall", f"after {CHURNS} churns", "kB a chunk", "MB", "ripgrep ms p50 / p99",
)  # fmt: skip


def draw(rows: Sequence[Sequence[float | str]], file: Path) -> None:
    """Growth with size: seconds of a cold index, and milliseconds of a query."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    sizes = [float(row[0]) for row in rows]
    medians = [float(str(row[3]).split(" / ")[0]) for row in rows]
    for place, values, title in (
        (1, [float(row[2]) for row in rows], "cold index, s"),
        (2, medians, "query, ms (p50)"),
    ):
        axes = figure.add_subplot(1, 2, place, xscale="log", yscale="log" if place == 1 else "linear", title=title)
        axes.plot(sizes, values, marker="o")
        axes.set_xlabel("chunks")
        axes.set_ylim(bottom=None if place == 1 else 0)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=10_000)
    arguments.add_argument("--chunks", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    arguments.add_argument("--embed", type=int, default=2_000)
    arguments.add_argument("--plot", type=Path)
    given = arguments.parse_args()
    print(f"- {measure_no_change(given.files)}", flush=True)
    for name, count in ((WORD_VECTORS, given.embed), (PACKAGED_TRANSFORMER, given.embed // 10)):
        print(f"- {measure_embedder(name, count)}", flush=True)
    print(
        f"- matrix multiplication on this machine, of MiniLM's shapes: {multiplication_rate():.0f} GFLOP/s", flush=True
    )
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---:|' * len(COLUMNS)}", flush=True)
    rows = []
    for chunks in given.chunks:
        rows.append(measure_size(chunks))
        print(f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in rows[-1])} |", flush=True)
    if given.plot:
        draw(rows, given.plot)


if __name__ == "__main__":
    main()
