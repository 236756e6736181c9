"""What there is to be read in a workspace: its repositories and their groups, by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from indexer.fleet import FleetIndex
from indexer.fleet_settings import FleetSettings, RepositorySettings
from indexer.opened import AnyIndex
from indexer.workspace import Workspace
from server.team import Places


def places_of(workspace: Workspace) -> Places:
    """What there is by the settings. Raises `BadSettings`."""
    return _places(workspace, FleetSettings.read(workspace).repositories)


def places_in(index: AnyIndex, workspace: Workspace) -> Places:
    """What there is in an index that is open."""
    return _places(workspace, index.repositories if isinstance(index, FleetIndex) else ())


def _places(workspace: Workspace, repositories: Sequence[RepositorySettings]) -> Places:
    """A workspace that is no fleet is a single repository, of its folder's name."""
    if not repositories:
        return Places(frozenset({workspace.root.name}), {})
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for repository in repositories:
        if repository.group:
            groups[repository.group].add(repository.name)
    return Places(frozenset(one.name for one in repositories), {name: frozenset(of) for name, of in groups.items()})
