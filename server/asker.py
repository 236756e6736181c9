"""Who asks, as the gate found out, and what they may read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and the repositories that they may read. None: all of them, as the workspace's own token may."""

    name: str
    repositories: frozenset[str] | None
