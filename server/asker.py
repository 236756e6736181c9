"""Who asks, and what they may read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asker:
    """`repositories` are the names of those that may be read; None: all of them (the workspace's own token)."""

    name: str
    repositories: frozenset[str] | None = None


EVERYTHING = Asker("workspace")
