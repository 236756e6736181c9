"""The index of a workspace, whichever it has: its own tree's, or that of the repositories in [fleet]."""

from __future__ import annotations

from contextlib import AbstractContextManager

from indexer.embedding import Embedder
from indexer.fleet import FleetIndex, open_fleet
from indexer.fleet_settings import is_fleet
from indexer.index import Index, open_index
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace

AnyIndex = Index | FleetIndex


def open_any_index(
    workspace: Workspace, settings: IndexerSettings, embedder: Embedder | None = None
) -> AbstractContextManager[AnyIndex]:
    """`open_fleet` where there is a fleet, else `open_index`."""
    if is_fleet(workspace):
        return open_fleet(workspace, settings, embedder)
    return open_index(workspace, settings, embedder)
