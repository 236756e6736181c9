"""`nightschool team ...`: who may ask beside you, and what they may read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.workspace import Workspace, find_workspace
from server.options import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from server.team import Member, Rights

team_app = typer.Typer(
    no_args_is_help=True,
    help="Who may ask this backend beside you, each with a token of their own and what they may read.",
)
Name = Annotated[str, typer.Argument(help="The user's name.")]
Repositories = Annotated[list[str] | None, typer.Option("--repository", "-r", help="A repository; may stand again.")]
Groups = Annotated[list[str] | None, typer.Option("--group", "-g", help="All of a group; may stand again.")]
Everything = Annotated[bool, typer.Option("--all", help="Everything, what is added later too.")]


@team_app.command("add")
def team_add(
    name: Name,
    repository: Repositories = None,
    group: Groups = None,
    everything: Everything = False,
    per_minute: Annotated[int, typer.Option(min=0, help="Most requests a minute; 0: as [server] says.")] = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a user and print their token: this once, because only its hash is kept.

    Examples: `nightschool team add anna --repository app`, `nightschool team add bob --group web --per-minute 60`,
    `nightschool team add build --all --json`
    """
    from server.console import say
    from server.team import add_member

    place = find_workspace(workspace)
    rights = _rights(place, repository, group, everything)
    if not rights:
        raise typer.BadParameter("say what they may read: --repository, --group, or --all")
    token = add_member(place, name, rights, per_minute)
    if as_json:
        print(json.dumps({"name": name, "token": token}))
        return
    say(f"{name}'s token, shown this once; they send it as `Authorization: Bearer TOKEN`:")
    print(token)


@team_app.command("list")
def team_list(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Everybody in the team, and what each may read.

    Examples: `nightschool team list`, `nightschool team list --json`
    """
    from server.console import print_table
    from server.team import read_team

    members = read_team(find_workspace(workspace)).members
    if as_json:
        print(json.dumps({"members": [member.model_dump(exclude={"token_sha256"}) for member in members]}))
        return
    rows = [[m.name, _reads(m), str(m.per_minute or ""), m.added_at] for m in members]
    print_table(
        "the team" if rows else "nobody yet: nightschool team add", ["name", "reads", "a minute", "added"], rows
    )


@team_app.command("revoke")
def team_revoke(name: Name, workspace: WorkspaceOption = None) -> None:
    """Take a user out. A running backend refuses them at once, and ends what it is answering them.

    Examples: `nightschool team revoke anna`
    """
    from server.team import revoke

    revoke(find_workspace(workspace), name)
    print(f"{name} is not in the team any more")


@team_app.command("grant")
def team_grant(
    name: Name,
    repository: Repositories = None,
    group: Groups = None,
    everything: Everything = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Let a user read more, from their next request on.

    Examples: `nightschool team grant anna --repository shop`, `nightschool team grant anna --group web`
    """
    from server.team import grant

    place = find_workspace(workspace)
    rights = _rights(place, repository, group, everything)
    if not rights:
        raise typer.BadParameter("say what they may read too: --repository, --group, or --all")
    print(f"{name} reads {_reads(grant(place, name, rights))}")


@team_app.command("deny")
def team_deny(
    name: Name,
    repository: Repositories = None,
    group: Groups = None,
    everything: Everything = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Let a user read less, from their next request on; `--all` takes everything that they have.

    Examples: `nightschool team deny anna --repository shop`, `nightschool team deny anna --all`
    """
    from server.places import places_of
    from server.team import Rights, deny

    place = find_workspace(workspace)
    # Not checked against what there is: a repository that is gone must be taken out of a user's list too.
    rights = Rights(frozenset(repository or ()), frozenset(group or ()), everything)
    if not rights:
        raise typer.BadParameter("say what they may not read any more: --repository, --group, or --all")
    print(f"{name} reads {_reads(deny(place, name, rights, places_of(place).groups))}")


def _rights(place: Workspace, repositories: list[str] | None, groups: list[str] | None, everything: bool) -> Rights:
    """What was named, each of it there. Raises `TeamError` for what is not."""
    from server.places import places_of
    from server.team import Rights, TeamError

    rights, there = Rights(frozenset(repositories or ()), frozenset(groups or ()), everything), places_of(place)
    for kind, wanted, known in (
        ("repository", rights.repositories, there.repositories),
        ("group", rights.groups, there.groups),
    ):
        if missing := sorted(wanted - set(known)):
            raise TeamError(f"there is no {kind} {missing[0]!r} here; there is: {', '.join(sorted(known)) or 'none'}")
    return rights


def _reads(member: Member) -> str:
    """What a user may read, in words."""
    if member.everything:
        return "everything"
    return ", ".join([*member.repositories, *(f"group {name}" for name in member.groups)]) or "nothing"
