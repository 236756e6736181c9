"""Is there a GPU that this installation can use? Asked in one place, without importing torch."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def has_gpu() -> bool:
    """An NVIDIA driver, a card that this process may open, and a torch that was built for it.

    The driver alone says too little: a container sees its host's, with no card handed in. And where the CPU set was
    installed (torch's version ends in "+cpu") the card cannot be used.
    """
    return find_gpu(Path("/")) and not _torch_version().endswith("+cpu")


def find_gpu(root: Path) -> bool:
    """A driver and a card below the file system's `root`."""
    cards = [path for path in root.glob("dev/nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return (root / "proc/driver/nvidia/version").exists() and bool(cards)


def _torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def free_gpu_bytes() -> int:
    """Free memory of the GPU that has the most of it; 0 where nvidia-smi does not say."""
    try:
        return max((int(line) << 20 for line in ask_nvidia_smi("memory.free")), default=0)
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def ask_nvidia_smi(columns: str) -> list[str]:
    """One line for each GPU: `columns` (of `nvidia-smi --help-query-gpu`, by commas), memory as a number of MiB.

    Raises `OSError` and `SubprocessError` where it is missing, fails or takes ten seconds.
    """
    command = ["nvidia-smi", f"--query-gpu={columns}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
