"""Embedding on a Ray cluster: real ones, of separate processes, that lose workers, drivers, and their patience."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from indexer.cluster import ClusterUnavailable, Wanted, batches, embed_on_cluster, read_vectors, write_vectors
from indexer.embedding import PACKAGED_TRANSFORMER, SentenceTransformerEmbedder
from indexer.embedding_cache import EmbeddingCache
from indexer.index import Index, IndexUnavailable, open_index
from indexer.missing import WORTH_A_CLUSTER, find_missing
from indexer.ray_pipeline import NotHere, explain
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace

ROOT = Path(__file__).parents[2]
RAY = version("ray")
PYTHON = ".".join(map(str, sys.version_info[:3]))
TOKEN = "0123456789abcdef" * 4
SECRET = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2
FILES = 40  # of eight chunks


def with_cluster(address: str) -> IndexerSettings:
    """Settings for an embedder that is worth a cluster."""
    return IndexerSettings(embedder=PACKAGED_TRANSFORMER, ray=address)


class Cluster:
    """A head node started as its users start it; `address` and `client` are its two doors."""

    def __init__(self, folder: Path, cpus: int) -> None:
        port, client = _free_port(), _free_port()
        self.address, self.client = f"127.0.0.1:{port}", f"ray://127.0.0.1:{client}"
        command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--port", port, "--ray-client-server-port", client, "--num-cpus", cpus]
        command += ["--min-worker-port", 0, "--max-worker-port", 0, "--dashboard-agent-listen-port", _free_port()]
        command += ["--object-store-memory", 100_000_000, "--include-dashboard=false", "--temp-dir", folder]
        with (folder / "head.log").open("wb") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, start_new_session=True, cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": TOKEN},
            )  # fmt: skip
        _until(lambda: b"will now block" in (folder / "head.log").read_bytes(), 180)

    def workers(self) -> list[psutil.Process]:
        """The processes that embed."""
        inside = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in inside if "MapBatches(Embed)" in "".join(_command(process))]

    def end(self) -> None:
        inside = psutil.Process(self.process.pid).children(recursive=True)
        os.killpg(self.process.pid, signal.SIGTERM)
        _, left = psutil.wait_procs([psutil.Process(self.process.pid), *inside], timeout=5)
        for process in left:
            process.kill()
        self.process.wait()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until(predicate: Callable[[], object], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not predicate():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


@contextmanager
def _started(tmp_path_factory: pytest.TempPathFactory, cpus: int) -> Iterator[Cluster]:
    # Ray's sockets are files below it: their names may have 107 characters.
    one = Cluster(tmp_path_factory.mktemp("r"), cpus)
    try:
        yield one
    finally:
        one.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with _started(tmp_path_factory, cpus=2) as one:
        yield one


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without a CPU to give."""
    with _started(tmp_path_factory, cpus=0) as one:
        yield one


@pytest.fixture(autouse=True)
def _with_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def tree(workspace: Workspace, write: Callable[[str, str], Path]) -> Workspace:
    """A workspace with a backlog that is worth a cluster; one file holds a secret."""
    line = "    # documentation information configuration administration"  # few tokens: embedded five times as fast
    for number in range(FILES):
        bodies = (f"def f{number}_{n}(x):\n" + f"{line} {n}\n" * 10 for n in range(8))
        write(f"m{number}.py", "\n\n".join(bodies))
    write("keys.py", f'TOKEN = "{SECRET}"\n')
    return workspace


class NoBulk:
    """The packaged embedder for queries; texts in bulk must come from elsewhere."""

    name = PACKAGED_TRANSFORMER

    def __init__(self) -> None:
        self._inner = SentenceTransformerEmbedder(self.name)
        self.bulk = 0

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.bulk += len(texts) if len(texts) > 1 else 0
        return self._inner.embed(texts)


def _cached(workspace: Workspace) -> int:
    file = workspace.state / "index" / "embeddings.sqlite"
    cache = EmbeddingCache(file, PACKAGED_TRANSFORMER)
    try:
        return cache.count()
    finally:
        cache.close()


def test_a_cluster_embeds_the_backlog_and_a_killed_worker_costs_its_own_batch(tree: Workspace, cluster: Cluster):
    embedder, seen, killed = NoBulk(), [], []

    def watch(progress: object) -> None:
        seen.append(progress)
        if "embedding on" in progress.stage and progress.done and not killed:
            killed.append(cluster.workers()[0])
            killed[0].kill()

    with open_index(tree, with_cluster(cluster.address), embedder) as index:
        report = index.update(watch)
        assert report.chunks > WORTH_A_CLUSTER
        # Each text came back once, those of the killed worker too, and nothing was left for this process to embed.
        assert (report.embedded, embedder.bulk) == (report.chunks, 0)
        assert killed
        assert not killed[0].is_running() or killed[0].status() == psutil.STATUS_ZOMBIE
        _has_the_embeddings_that_are_made_here(index)
        assert index.update().embedded == 0
    on_cluster = [progress for progress in seen if progress.stage == f"embedding on {cluster.address}"]
    assert (on_cluster[-1].done, on_cluster[-1].total) == (report.chunks, report.chunks)


def _has_the_embeddings_that_are_made_here(index: Index) -> None:
    from indexer.update import embedded_text

    parts = index._parts
    texts = [embedded_text(chunk) for chunk in list(parts.catalogue.every_chunk())[:3]]
    secret = next(chunk for chunk in parts.catalogue.every_chunk() if chunk.path == "keys.py")
    assert SECRET not in embedded_text(secret)
    texts.append(embedded_text(secret))
    cached = np.stack(parts.cache.get(texts))
    here = SentenceTransformerEmbedder(PACKAGED_TRANSFORMER).embed(texts)
    assert (cached * here).sum(axis=1).min() > 0.999


def _driver(tree: Workspace, address: str) -> subprocess.Popen[str]:
    """Brings the index up to the tree in a process of its own, which prints how far it is."""
    run = (
        "import sys; from pathlib import Path; from indexer.index import open_index\n"
        "from indexer.settings import IndexerSettings; from indexer.workspace import Workspace\n"
        "with open_index(Workspace(Path(sys.argv[1])), IndexerSettings(\n"
        "        embedder='all-MiniLM-L6-v2', ray=sys.argv[2], ray_workers=1)) as index:\n"
        "    index.update(lambda p: print(p.stage, p.done, flush=True))\n"
    )
    command = [sys.executable, "-c", run, str(tree.root), address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_driver_killed_half_way_has_kept_what_came_and_the_next_run_asks_for_the_rest(
    tree: Workspace, cluster: Cluster
):
    driver = _driver(tree, cluster.address)
    for line in driver.stdout:
        stage, done = line.rsplit(" ", 1)
        if stage.startswith("embedding on") and int(done):
            break
    helpers = _below(driver)
    _kill(driver)
    assert helpers
    _until(lambda: not any(_is_alive(one) for one in helpers), 30)
    kept = _cached(tree)
    assert kept > 0
    with open_index(tree, with_cluster(cluster.address), NoBulk()) as index:
        report = index.update()
    assert report.embedded == report.chunks - kept


def test_a_cluster_started_here_ends_with_the_one_who_wanted_it(tree: Workspace):
    driver = _driver(tree, "local")
    assert driver.stdout
    _until(lambda: any("raylet" in "".join(_command(p)) for p in _below(driver)), 60)
    # Ray's own small actors look for their cluster for a minute before they end. At first they have no name yet.
    inside = [process for process in _below(driver) if not _is_small_actor(process)]
    assert len(inside) > 3
    _kill(driver)
    _until(lambda: not any(_is_alive(process) and not _is_small_actor(process) for process in inside), 40)


def _is_small_actor(process: psutil.Process) -> bool:
    command = "".join(_command(process))
    return command.startswith("ray::") or "default_worker.py" in command


def _below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def _is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _kill(driver: subprocess.Popen[str]) -> None:
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()


def test_what_reads_alike_in_two_repositories_is_asked_for_once(tmp_path: Path, embedder):
    indexes = []
    with ExitStack() as stack:
        for name in ("one", "fork"):
            place = Workspace(tmp_path / name)
            place.root.mkdir()
            (place.root / "a.py").write_text("def f():\n    return 1\n")
            (place.root / f"{name}.py").write_text(f"def {name}():\n    return 2\n")
            indexes.append(stack.enter_context(open_index(place, IndexerSettings(), embedder)))
            indexes[-1].prepare()
        parts = [index._parts for index in indexes]
        wanted = [(Path(one.root).name, one.path, len(one.ids)) for one in find_missing(parts, 1_000)]
        assert sorted(wanted) == [("fork", "fork.py", 1), ("one", "a.py", 1), ("one", "one.py", 1)]
        assert len(find_missing(parts, 2)) == 2
        indexes[0].update()
        assert [one.path for one in find_missing(parts[:1], 1_000)] == []


def test_rays_own_client_address_works_too(tree: Workspace, cluster: Cluster, tmp_path: Path):
    with open_index(tree, IndexerSettings(), NoBulk()) as index:
        index.prepare()
        wanted = find_missing([index._parts], 1_000)[:4]
    kept: list[str] = []

    def keep(texts: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        assert embeddings.shape == (len(texts), 384)
        kept.extend(texts)

    settings = with_cluster(cluster.client)
    done = embed_on_cluster(wanted, settings, keep, lambda done, total: None, tmp_path / "log")
    assert done == len(set(kept)) == sum(len(one.ids) for one in wanted)


def _refusal(address: str, tmp_path: Path, root: str = "/nowhere") -> str:
    """The one line that this address ends in."""
    wanted = [Wanted(root, "a.py", ("0",))]
    with pytest.raises(ClusterUnavailable) as refused:
        embed_on_cluster(wanted, with_cluster(address), lambda *_: None, lambda *_: None, tmp_path / "log")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_address_where_nobody_listens_is_told_at_once(tree: Workspace):
    address = f"127.0.0.1:{_free_port()}"
    started = time.monotonic()
    with (
        open_index(tree, with_cluster(address), NoBulk()) as index,
        pytest.raises(IndexUnavailable, match=f"no Ray cluster answers at {address}"),
    ):
        index.update()
    assert time.monotonic() - started < 10


def test_a_listener_that_is_no_cluster_is_given_up_on(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        assert f"does not answer as a cluster of Ray {RAY} does" in _refusal(address, tmp_path)


def test_a_cluster_without_a_cpu_is_refused(poor: Cluster, tmp_path: Path):
    assert "neither a CPU nor a GPU" in _refusal(poor.address, tmp_path)


def test_another_token_is_told_as_such(poor: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    assert "wants another token" in _refusal(poor.address, tmp_path)


def _record_version(address: str, recorded: str) -> None:
    """What the cluster has written down about itself, which is all that tells Ray."""
    change = (
        "import json, sys, ray\nfrom ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put\n"
        "ray._private.utils.check_version_info = lambda *_, **__: None\n"
        "ray.init(sys.argv[1], log_to_driver=False)\n"
        "about = json.loads(_internal_kv_get('CLUSTER_METADATA', namespace='cluster'))\n"
        "about['ray_version'] = sys.argv[2]\n"
        "_internal_kv_put('CLUSTER_METADATA', json.dumps(about), True, namespace='cluster')\n"
    )
    environment = {**os.environ, "RAY_AUTH_MODE": "token"}
    subprocess.run([sys.executable, "-c", change, address, recorded], check=True, env=environment)


def test_a_cluster_of_another_version_is_refused_with_both_versions(poor: Cluster, tmp_path: Path):
    _record_version(poor.address, "2.9.3")
    try:
        said = _refusal(poor.address, tmp_path)
    finally:
        _record_version(poor.address, RAY)  # else its own processes refuse it too
    assert f"at {poor.address} runs Ray 2.9.3 on Python {PYTHON}, we run Ray {RAY} on Python {PYTHON}: " in said


def test_behind_rays_client_address_another_version_is_refused_the_same(
    poor: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """There the head tells its version to our process, which says that it is older."""
    (tmp_path / "sitecustomize.py").write_text("import ray\nray.__version__ = '2.9.3'\n")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # Ray is imported before we can say so
    said = _refusal(poor.client, tmp_path)
    assert f"at {poor.client} runs Ray {RAY} on Python {PYTHON}, we run Ray 2.9.3 on Python {PYTHON}: " in said


# As Ray 2.60.0 said it of real heads of 2.55.0, and of 2.60.0 on another Python, at an address and at one of ray://.
OF_ANOTHER_VERSION = (
    "Version mismatch: The cluster was started with:\n    Ray: {}\n    Python: {}\n"
    "This process on {} was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
)


@pytest.mark.parametrize("place", ["node 192.0.2.2", "Ray Client"])
@pytest.mark.parametrize(("ray", "python"), [("2.55.0", "3.11.7"), ("2.60.0", "3.12.1")])
def test_another_ray_or_another_python_is_one_line_with_both(ray: str, python: str, place: str):
    said = explain(RuntimeError(OF_ANOTHER_VERSION.format(ray, python, place)), "a:1")
    ours = "we run Ray 2.60.0 on Python 3.11.7: install the same versions on every node"
    assert said == f"the Ray cluster at a:1 runs Ray {ray} on Python {python}, {ours}"


def test_without_ray_the_setting_says_what_to_install():
    code = (
        "import sys; sys.modules['ray'] = None\nfrom indexer.cluster import *; from pathlib import Path\n"
        "embed_on_cluster([], IndexerSettings(ray='local'), None, None, Path())"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "pip install 'nightschool[fleet]'" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("address", ["localhost", "host:port", "http://a:1", "ray://a", "a b:1", "--x"])
def test_an_address_that_is_none_stops_the_start(address: str):
    with pytest.raises(ValueError, match="ray"):
        IndexerSettings(ray=address)


def test_a_large_file_is_shared_among_batches_and_small_ones_share_one():
    wanted = [Wanted("/r", "big", tuple("abcdefg")), Wanted("/r", "small", tuple("hi")), Wanted("/r", "last", ("j",))]
    parts = list(batches(wanted, 3))
    assert [[(one.path, "".join(one.ids)) for one in part] for part in parts] == [
        [("big", "abc")],
        [("big", "def")],
        [("big", "g"), ("small", "hi")],
        [("last", "j")],
    ]
    assert list(batches([], 3)) == []


def test_vectors_come_through_json_as_they_were():
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    assert (read_vectors(json.loads(json.dumps(write_vectors(vectors))), 3) == vectors).all()


def test_what_ray_says_in_many_lines_is_told_in_one():
    actor = RuntimeError("x\nModuleNotFoundError: No module named 'indexer'")
    assert explain(actor, "a:1").endswith("install nightschool on every node")
    assert "had no free worker" in explain(TimeoutError("starting actors"), "a:1")
    assert explain(NotHere("no folder"), "local") == "the Ray cluster started here: no folder"
    assert threading.active_count() < 20
