"""Door to Ray: reading, cutting and embedding as a Ray Data pipeline, in a process of its own.

`indexer/cluster.py` starts it, gives it a job as JSON on stdin, and reads events as JSON lines from its stdout.
Files are read, and secrets masked, on the node that the address leads to; only masked chunks go on to the workers.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.child import event_stream
from indexer.cluster import write_vectors
from indexer.embedding import find_embedder
from indexer.files import SourceFile, read_source
from indexer.settings import IndexerSettings
from indexer.update import describe, embedded_text
from indexer.workspace import Workspace

_PRIVATE = {"RAY_usage_stats_enabled": "0"}  # else it reports to its makers
_OBJECT_STORE_BYTES = 256 << 20  # of a cluster of our own: the blocks under way are a few MB
_TOKEN_FILE = Path("~/.ray/auth_token")
_READERS = 2
_TIDIES_UP_WITHIN_S = 10
_FIRST_WORKER_WITHIN_S = 120
_ATTEMPTS = 3  # to join a cluster through ray://
# In a RuntimeError of Ray's (2.9 to 2.60, at both kinds of address): first the cluster's, then ours.
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")
Say = Callable[[dict[str, Any]], None]
Columns = dict[str, Any]
Embedded = tuple[list[str], NDArray[np.float32]]


class NotHere(Exception):
    """A worker cannot do its part where it runs; the message says what is missing there."""


def main() -> int:
    """The edge of the process: exit status 0, and a last event `done` or `failed`."""
    say = _only_events()
    _end_with_parent()
    job = json.load(sys.stdin)
    _prepare_environment(job["address"])
    try:
        import ray

        say({"event": "loaded"})
        workers = _connect(ray, job)
        say({"event": "connected", "workers": workers})
        # Ray Data does not run where Ray's client is: behind ray:// an actor of the cluster runs it for us.
        made = _through_conductor(ray, job, workers) if job["address"].startswith("ray://") else _embedded(job, workers)
        for texts, vectors in made:
            say({"event": "embedded", "texts": texts, "vectors": write_vectors(vectors)})
        ray.shutdown()
        say({"event": "done"})
    except Exception as error:  # the edge: Ray raises what it likes, and who waits must read one line about it
        sys.stderr.write(f"{error!r}\n")
        say({"event": "failed", "text": explain(error, job["address"])})
    return 0


def _prepare_environment(address: str) -> None:
    """What Ray reads when it is imported."""
    os.environ.update(_PRIVATE)
    if address == "local":
        # Else Ray makes one for all clusters of this user and keeps it in the home folder.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    elif {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or _TOKEN_FILE.expanduser().is_file():
        # `ray start` asks for a token wherever there is one, but ray.init sends none to an address without this.
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _connect(ray: Any, job: dict[str, Any]) -> int:
    """Join the cluster, or start one here; how many workers it has room for."""
    ours = {
        "num_cpus": job["workers"] or os.cpu_count(),
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",  # else it listens on the machine's own address
    }
    more = ours if job["address"] == "local" else {}
    _join(ray, job["address"], more)
    there = ray.cluster_resources()
    room = int(there.get("GPU", 0)) or int(there.get("CPU", 0))
    if room < 1:
        raise NotHere("it has neither a CPU nor a GPU for a worker: give it one with ray start --num-cpus")
    return min(room, job["workers"] or room, len(job["batches"]))


def _join(ray: Any, address: str, more: dict[str, Any]) -> None:
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            ray.init(address, log_to_driver=False, logging_level="warning", **more)
            return
        except ConnectionAbortedError:
            # The process that the head forks for a client behind ray:// dies in gRPC now and then (2.60.0: a segfault
            # in 2 of 12 runs of the tests), and Ray notices after half a minute.
            if not attempts_left:
                raise


class Conductor:
    """Runs the pipeline where it lives, and hands out one batch at a time."""

    def __init__(self, job: dict[str, Any], workers: int) -> None:
        self._batches = _embedded(job, workers)

    def next(self) -> Embedded | None:
        """The next batch; None when there are no more."""
        return next(self._batches, None)


def _through_conductor(ray: Any, job: dict[str, Any], workers: int) -> Iterator[Embedded]:
    conductor = ray.remote(num_cpus=0)(Conductor).remote(job, workers)
    while (batch := ray.get(conductor.next.remote())) is not None:
        yield batch


def _embedded(job: dict[str, Any], workers: int) -> Iterator[Embedded]:
    """Texts and their embeddings, batch by batch as they are made, in no order."""
    import ray
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.wait_for_min_actors_s = _FIRST_WORKER_WITHIN_S
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
    items = [{"files": json.dumps(batch)} for batch in job["batches"]]
    # A block a batch: what is lost with a worker. Readers ask for no CPU: a head node often has none to give.
    read = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        partial(read_and_cut, max_file_bytes=job["max_file_bytes"]),
        batch_size=None, num_cpus=0, compute=TaskPoolStrategy(_READERS), label_selector=here,
    )  # fmt: skip
    embedded = read.map_batches(
        Embed, fn_constructor_args=(job["embedder"],), batch_size=None,
        compute=ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
        num_cpus=0 if has_gpu else 1, num_gpus=1 if has_gpu else 0,
    )  # fmt: skip
    for block in embedded.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        if len(block["text"]):
            yield [str(text) for text in block["text"]], np.stack(block["vector"])


def read_and_cut(batch: Columns, max_file_bytes: int) -> Columns:
    """The texts to embed of a batch of files, secrets masked; a chunk that is no longer there is left out."""
    settings = IndexerSettings(max_file_bytes=max_file_bytes)
    texts: list[str] = []
    for root, path, ids in (one for files in batch["files"] for one in json.loads(str(files))):
        if not Path(root).is_dir():
            raise NotHere(f"the node that reads has no folder {root}: run on a node of the cluster that has it")
        source = read_source(Workspace(Path(root)), path, settings)
        chunks = describe(source).chunks if isinstance(source, SourceFile) else ()
        wanted = set(ids)
        texts += [embedded_text(chunk) for chunk in chunks if chunk.id in wanted]
    return {"text": np.array(texts, dtype=object)}


class Embed:
    """A worker: loads the embedding model once and computes in one thread, as many of them as there are cores."""

    def __init__(self, embedder: str) -> None:
        self._embedder = find_embedder(embedder, threads=1)

    def __call__(self, batch: Columns) -> Columns:
        """The texts with their embeddings, float32 (n, dim)."""
        texts = [str(text) for text in batch["text"]]
        if not texts:
            return {"text": batch["text"], "vector": np.zeros((0, 1), np.float32)}
        return {"text": batch["text"], "vector": self._embedder.embed(texts)}


def explain(error: BaseException, address: str) -> str:
    """One line about what Ray raised, and what to do."""
    said = str(error).strip()
    where = "the Ray cluster started here" if address == "local" else f"the Ray cluster at {address}"
    if isinstance(error, NotHere) or "NotHere" in said:
        return f"{where}: {said.rpartition('NotHere: ')[2].splitlines()[0]}"
    if len(versions := _VERSIONS.findall(said)) == 2:
        theirs, ours = (f"Ray {ray} on Python {python}" for ray, python in versions)
        return f"{where} runs {theirs}, we run {ours}: install the same versions on every node"
    if "No module named" in said:
        return f"{where} lacks what embeds ({said.splitlines()[-1].strip()}): install nightschool on every node"
    if isinstance(error, ConnectionError):
        return f"{where} does not answer: start it, or set [indexer] ray to another"
    if "starting actors" in said or isinstance(error, TimeoutError):
        return f"{where} had no free worker within {_FIRST_WORKER_WITHIN_S} s: wait, or give it more nodes"
    return f"{where} failed: {(said.splitlines() or [type(error).__name__])[-1].strip()[:300]}"


def _only_events() -> Say:
    """What says an event on the stdout that we were given; whatever else prints goes to stderr from now on."""
    events = event_stream()

    def say(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    return say


def _end_with_parent() -> None:
    """When the one who waits for us is killed, end, and with us a cluster of our own.

    By SIGTERM, on which Ray tidies up; at the latest ten seconds after: while it starts Ray can miss the signal. Small
    actors of its own, without a model, may look for their cluster for a minute before they end.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(_TIDIES_UP_WITHIN_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
