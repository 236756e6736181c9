"""What this machine and its network can hold: what `auto` decides on. Asks the system, imports no framework."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import psutil

from indexer.gpu import ask_nvidia_smi

HUB_TIMEOUT_S = 3.0
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """`gpu_gib` of the largest GPU (0: none) and `ram_gib` in GiB; `cached` are Hub repositories already on this
    disk.
    """

    gpu_gib: float
    ram_gib: float
    hub_answers: bool
    cached: frozenset[str] = field(default_factory=frozenset)

    def can_reach(self, repository: str) -> bool:
        return self.hub_answers or repository in self.cached


def look_at_machine(repositories: Sequence[str]) -> Machine:
    """This machine now; takes at most `HUB_TIMEOUT_S` where the Hub does not answer."""
    cached = frozenset(name for name in repositories if _is_cached(name))
    return Machine(_gpu_gib(), psutil.virtual_memory().total / GIB, _hub_answers(), cached)


def _gpu_gib() -> float:
    try:
        # The driver reports a little less than the card's name says (24 GB: 23.99 GiB or 24,564 MiB): round up.
        return max((-(-float(line) // 1024) for line in ask_nvidia_smi("memory.total")), default=0.0)
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0.0


def _hub_answers() -> bool:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        return httpx.head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S).status_code < 500
    except httpx.HTTPError:
        return False


def _is_cached(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "config.json"), str)
