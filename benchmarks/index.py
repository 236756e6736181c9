"""How fast and how large the index is, each figure beside the machine's limit, as Markdown.

usage: ./run bench index [--files 10000] [--chunks 1000 10000 100000] [--embed 256]

Trees are made up (functions of real words), so the figures are of the machinery and not of meaning. "no change" is a
whole process, started anew. Vectors of the large trees are of hashed words: MiniLM would take hours for 100,000 chunks;
its query embedding is timed apart and belongs on top.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from indexer.embedding import PACKAGED_EMBEDDER, SentenceTransformerEmbedder
from indexer.index import Index, open_index
from indexer.settings import IndexerSettings
from indexer.tokens import tokens
from indexer.update import embedded_text
from indexer.workspace import Workspace

WORDS = (
    "route parse header cookie render token cache load store merge split model view query bind session schema field "
    "error retry stream buffer socket client server worker queue batch index search rank score chunk text line file "
    "path folder watch event lock thread process signal timer clock date number string list tree node edge graph"
).split()
DIMENSIONS = 384


class HashedWords:
    """An embedder as wide as MiniLM, of hashed words."""

    name = "hashed-words-384"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.random.default_rng(0).normal(0, 0.05, (len(texts), DIMENSIONS)).astype(np.float32)
        for row, text in enumerate(texts):
            for token in tokens(text):
                vectors[row, crc32(token.encode()) % DIMENSIONS] += 1
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def make_tree(root: Path, chunks: int, a_file: int = 10) -> None:
    """Python files with `a_file` functions each, every function a chunk of its own."""
    dice = random.Random(chunks)
    for number in range(chunks // a_file):
        functions = []
        for part in range(a_file):
            names = dice.choices(WORDS, k=4)
            body = "".join(
                f"    {dice.choice(WORDS)}_{dice.choice(WORDS)} = {dice.choice(names)}({dice.randrange(999)})\n"
                for _ in range(16)
            )
            functions.append(f"def {'_'.join(names)}_{number}_{part}({names[0]}, {names[1]}):\n{body}")
        file = root / f"src/{number % 97}/{dice.choice(WORDS)}_{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n\n".join(functions))


def queries(count: int) -> Iterator[str]:
    dice = random.Random(1)
    return (" ".join(["how", "does", *dice.choices(WORDS, k=3), "work"]) for _ in range(count))


def milliseconds(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1e3:.1f} / {ordered[int(0.99 * (len(ordered) - 1))] * 1e3:.1f}"


def time_queries(index: Index, count: int) -> list[float]:
    taken = []
    for query in queries(count):
        started = time.perf_counter()
        index.search(query, 10)
        taken.append(time.perf_counter() - started)
    return taken


def recall(index: Index, count: int = 100) -> float:
    """Share of the 10 nearest by exact scan that Chroma's graph finds."""
    parts = index._parts
    chunks = list(parts.catalogue.every_chunk())
    known = parts.cache.get([embedded_text(chunk) for chunk in chunks])
    chunks = [chunk for chunk, vector in zip(chunks, known, strict=True) if vector is not None]
    vectors = np.stack([vector for vector in known if vector is not None])
    shares = []
    assert parts.store is not None
    for query in queries(count):
        vector = parts.embedder.embed([query])[0]
        exact = {chunks[row].id for row in np.argsort(-(vectors @ vector))[:10]}
        shares.append(len(exact & {id for id, _ in parts.store.search(vector, 10)}) / 10)
    return statistics.fmean(shares)


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure_size(chunks: int) -> str:
    """One row: a cold index, queries, a save, recall and disk at this many chunks."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make_tree(root, chunks)
        with open_index(Workspace(root), IndexerSettings(), HashedWords()) as index:
            started = time.perf_counter()
            index._read(None)
            words_s = time.perf_counter() - started
            report = index.update()
            list(time_queries(index, 20))
            taken = time_queries(index, 200)
            saves = [time_save(index, root, number) for number in range(20)]
            found = recall(index)
            disk = folder_bytes(root / ".nightschool") / report.chunks
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        cells = [f"{report.chunks:,}", f"{words_s:.1f}", f"{report.seconds + words_s:.1f}", milliseconds(taken)]
        cells += [milliseconds(saves), f"{found:.3f}", f"{disk / 1e3:.1f}", f"{memory:.0f}"]
        return "| " + " | ".join(cells) + " |"


def time_save(index: Index, root: Path, number: int) -> float:
    """From a saved file, through the catalogue and the lexical index, to the search that finds it."""
    file = root / f"src/{number}/saved.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"def freshly_saved_{number}():\n    return {number}\n")
    started = time.perf_counter()
    index._read([file.relative_to(root).as_posix()])
    assert index.search(f"freshly_saved_{number}", 1)[0].symbol == f"freshly_saved_{number}"
    return time.perf_counter() - started


def measure_no_change(files: int) -> str:
    """Seconds and memory of a whole process that finds a tree unchanged."""
    code = (
        "import sys, time, resource\nstarted = time.perf_counter()\nfrom pathlib import Path\n"
        "from indexer.index import open_index\nfrom indexer.settings import IndexerSettings\n"
        "from indexer.workspace import Workspace\n"
        "with open_index(Workspace(Path(sys.argv[1])), IndexerSettings()) as index: index._read(None)\n"
        "print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make_tree(root, files, a_file=1)
        subprocess.run(["git", "init", "-q", str(root)], check=True)
        command = [sys.executable, "-c", code, str(root)]
        runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
    seconds, megabytes = runs[-1].split()
    took = f"{float(seconds):.2f} s, {float(megabytes):.0f} MB"
    return f"no change, {files:,} files, a process of its own: {took} (goal 2 s, 300 MB)"


def measure_embedder(count: int) -> str:
    """End to end against the bare embedder, and that against the machine's matrix multiplication."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make_tree(root, count)
        embedder = SentenceTransformerEmbedder(PACKAGED_EMBEDDER)
        embedder.embed(["warm up"])
        with open_index(Workspace(root), IndexerSettings(), embedder) as index:
            report = index.update()
            texts = sorted((embedded_text(c) for c in index._parts.catalogue.every_chunk()), key=len)
        started = time.perf_counter()
        embedder.embed(texts)
        bare = time.perf_counter() - started
    single = []
    for query in queries(50):
        started = time.perf_counter()
        embedder.embed([query])
        single.append(time.perf_counter() - started)
    share = f"{bare / report.seconds:.2f} of end to end, goal 0.90; {len(texts) / bare:.1f} chunks/s"
    return (
        f"cold index of {report.chunks} chunks with MiniLM: {report.seconds:.1f} s; the bare embedder on the same texts"
        f" {bare:.1f} s ({share}). A query's embedding: {milliseconds(single)} ms (p50 / p99)."
        f" Matrix multiplication: {multiplication_rate():.0f} GFLOP/s"
    )


def multiplication_rate() -> float:
    """GFLOP/s of float32 matrices of MiniLM's shapes, on all cores."""
    left, right = np.ones((4096, 384), np.float32), np.ones((384, 1536), np.float32)
    started = time.perf_counter()
    for _ in range(20):
        left @ right
    return 20 * 2 * left.shape[0] * left.shape[1] * right.shape[1] / (time.perf_counter() - started) / 1e9


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=10_000)
    arguments.add_argument("--chunks", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    arguments.add_argument("--embed", type=int, default=256)
    given = arguments.parse_args()
    print(f"- {measure_no_change(given.files)}", flush=True)
    if given.embed:
        print(f"- {measure_embedder(given.embed)}", flush=True)
    print(
        "\n| chunks | words s | all s | query ms p50 / p99 | save to found ms | recall | kB a chunk | MB |", flush=True
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for chunks in given.chunks:
        print(measure_size(chunks), flush=True)


if __name__ == "__main__":
    main()
