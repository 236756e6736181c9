"""Embedding on a Ray cluster, as seen from the index: what to embed goes out, embeddings come back as they are made.

Ray itself lives in a process of its own (`indexer/ray_pipeline.py`): it may take long to answer, and ends the process
that it is in when its cluster goes away. What this process hears from it is written down by one writer, here.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from indexer.child import end_group
from indexer.settings import IndexerSettings

LISTENS_WITHIN_S = 10.0
ANSWERS_WITHIN_S = 15.0
# Behind ray:// the head node first starts a process for us, which may fail twice for half a minute each.
CLIENT_ANSWERS_WITHIN_S = 150.0
# A cluster of our own is started first, and Python loads Ray: seconds on an idle machine, many on a busy one.
STARTS_WITHIN_S = 90.0
_ENDS_WITHIN_S = 20.0
CHUNKS_A_BATCH = 64  # three seconds on one core: what a killed worker costs

Keep = Callable[[Sequence[str], NDArray[np.float32]], None]
Tell = Callable[[int, int], None]


class ClusterUnavailable(Exception):
    """The Ray cluster cannot be used; the message says why and what to do. What was embedded until then is kept."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Chunks of one file, by their ids, that have no embedding. `root` is the folder that `path` is relative to."""

    root: str
    path: str
    ids: tuple[str, ...]


def embed_on_cluster(
    wanted: Sequence[Wanted], settings: IndexerSettings, keep: Keep, tell: Tell, log_file: Path
) -> int:
    """Read, cut and embed `wanted` on the cluster of `[indexer] ray`; returns how many texts came back.

    `keep` gets each batch as it comes, in this thread: what it has kept is not lost, whatever ends this call. `tell`
    hears how many of how many. Raises `ClusterUnavailable`.
    """
    if find_spec("ray") is None:
        raise ClusterUnavailable("[indexer] ray is set and Ray is not installed: pip install 'nightschool[fleet]'")
    knock(settings.ray)
    total, done = count(wanted), 0
    tell(0, total)
    with _pipeline(_job(wanted, settings), log_file) as events:
        for event in events:
            if event["event"] == "embedded":
                texts = event["texts"]
                keep(texts, read_vectors(event["vectors"], len(texts)))
                done += len(texts)
                tell(min(done, total), total)
    return done


def count(wanted: Sequence[Wanted]) -> int:
    """How many chunks these are."""
    return sum(len(one.ids) for one in wanted)


def host_and_port(address: str) -> tuple[str, int] | None:
    """Where a cluster must answer; None for `local`."""
    if address == "local":
        return None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return host.strip("[]"), int(port)


def knock(address: str, timeout_s: float = LISTENS_WITHIN_S) -> None:
    """Raise `ClusterUnavailable` when nobody listens at `address`."""
    where = host_and_port(address)
    if where is None:
        return
    try:
        socket.create_connection(where, timeout_s).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ClusterUnavailable(
            f"no Ray cluster answers at {address} ({reason}): start it, or set [indexer] ray to another"
        ) from error


def batches(wanted: Iterable[Wanted], most_chunks: int = CHUNKS_A_BATCH) -> Iterator[list[Wanted]]:
    """`wanted` in its order, in lists of at most `most_chunks` chunks; a large file is in several of them."""
    batch: list[Wanted] = []
    room = most_chunks
    for one in wanted:
        ids = one.ids
        while ids:
            batch.append(Wanted(one.root, one.path, ids[:room]))
            ids, room = ids[room:], room - len(batch[-1].ids)
            if not room:
                yield batch
                batch, room = [], most_chunks
    if batch:
        yield batch


def write_vectors(vectors: NDArray[np.float32]) -> str:
    """Rows of float32 as text that fits into JSON."""
    return base64.b64encode(np.ascontiguousarray(vectors, np.float32).tobytes()).decode()


def read_vectors(text: str, rows: int) -> NDArray[np.float32]:
    """What `write_vectors` wrote: float32 (rows, dim)."""
    return np.frombuffer(base64.b64decode(text), np.float32).reshape(rows, -1)


def _job(wanted: Sequence[Wanted], settings: IndexerSettings) -> dict[str, Any]:
    parts = [[[one.root, one.path, one.ids] for one in batch] for batch in batches(wanted)]
    about = {"address": settings.ray, "workers": settings.ray_workers, "embedder": settings.embedder}
    return {**about, "max_file_bytes": settings.max_file_bytes, "batches": parts}


@contextmanager
def _pipeline(job: dict[str, Any], log_file: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of the process that runs Ray. Whatever ends the reading of them ends that process and its group."""
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            # Not with -P: Ray's workers get the path of this process. In our own folder, never in the repository.
            [sys.executable, "-m", "indexer.ray_pipeline"],
            cwd=Path(__file__).resolve().parent.parent,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            text=True, encoding="utf-8", start_new_session=True, env=_environment(),
        )  # fmt: skip
    assert process.stdin
    assert process.stdout
    try:
        yield _events(process, job, process.stdin, process.stdout, log_file)
    finally:
        process.stdout.close()
        end_group(process)


def _events(
    process: subprocess.Popen[str], job: dict[str, Any], said_to: IO[str], heard: IO[str], log_file: Path
) -> Iterator[dict[str, Any]]:
    address, too_late = job["address"], threading.Event()

    def give_up() -> None:
        too_late.set()
        process.kill()

    def within(seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        return timer

    timer = within(STARTS_WITHIN_S)
    try:
        with said_to:
            json.dump(job, said_to)
        for line in heard:
            event: dict[str, Any] = json.loads(line)
            timer.cancel()
            if event["event"] == "loaded":
                timer = within(_patience(address))
            elif event["event"] == "failed":
                raise ClusterUnavailable(event["text"])
            elif event["event"] == "done":
                process.wait(_ENDS_WITHIN_S)
                return
            yield event
    except BrokenPipeError:
        pass  # it ended before it had read its job: what its log says is told below
    finally:
        timer.cancel()
    if too_late.is_set():
        raise ClusterUnavailable(_why_silent(address, log_file))
    raise ClusterUnavailable(f"the cluster at {address} went away; what was embedded is kept (log: {log_file})")


def _patience(address: str) -> float:
    if address == "local":
        return STARTS_WITHIN_S
    return CLIENT_ANSWERS_WITHIN_S if address.startswith("ray://") else ANSWERS_WITHIN_S


def _why_silent(address: str, log_file: Path) -> str:
    if "InvalidAuthToken" in log_file.read_text(errors="replace")[-500:]:
        return f"the Ray cluster at {address} wants another token: set RAY_AUTH_TOKEN, or keep it in ~/.ray/auth_token"
    return (
        f"what listens at {address} does not answer as a cluster of Ray {version('ray')} does: is it one, and of that?"
    )


def _environment() -> dict[str, str]:
    ours = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": paths}
