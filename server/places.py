"""What there is to be read in a workspace: its repositories and their groups, by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from indexer.fleet import FleetIndex
from indexer.fleet_settings import FleetSettings, RepositorySettings
from indexer.opened import AnyIndex
from indexer.workspace import Workspace
from server.team import Places


def places_of(workspace: Workspace) -> Places:
    """What there is by the settings. Raises `BadSettings`."""
    return _places(_grouped(workspace, FleetSettings.read(workspace).repositories))


def places_in(index: AnyIndex, workspace: Workspace) -> Places:
    """What there is in an index that is open."""
    return _places(group_of_each(index, workspace))


def group_of_each(index: AnyIndex, workspace: Workspace) -> dict[str, str]:
    """Every repository of an index that is open, and its group, "" for none."""
    return _grouped(workspace, index.repositories if isinstance(index, FleetIndex) else ())


def _grouped(workspace: Workspace, repositories: Sequence[RepositorySettings]) -> dict[str, str]:
    """A workspace that is no fleet is a single repository, of its folder's name."""
    return {one.name: one.group for one in repositories} or {workspace.root.name: ""}


def _places(grouped: Mapping[str, str]) -> Places:
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for name, group in grouped.items():
        if group:
            groups[group].add(name)
    return Places(frozenset(grouped), {name: frozenset(of) for name, of in groups.items()})
