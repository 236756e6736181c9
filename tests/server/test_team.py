"""The team's file and the commands that change it: hashed, private, whole, and at once."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.doctor_team import look_at_team
from server.team import (
    OWNER_NAME,
    Rights,
    TeamError,
    add_member,
    deny,
    digest,
    grant,
    read_team,
    revoke,
    team_file,
)

GROUPS = {"web": frozenset({"shop", "site"})}


def reads(workspace, name):
    return read_team(workspace).find(name).may_read(GROUPS)


def test_a_token_is_kept_as_its_hash_in_a_file_that_only_its_owner_reads(workspace):
    token = add_member(workspace, "anna", Rights(frozenset({"shop"})), per_minute=5)
    text = team_file(workspace).read_text()
    assert token not in text
    assert digest(token.encode()) in text
    assert team_file(workspace).stat().st_mode & 0o777 == 0o600
    member = read_team(workspace).find("anna")
    assert (member.repositories, member.everything, member.per_minute) == (("shop",), False, 5)
    assert len({add_member(workspace, f"u{n}", Rights(everything=True)) for n in range(20)} | {token}) == 21


def test_what_is_granted_can_be_read_and_what_is_denied_cannot(workspace):
    add_member(workspace, "anna", Rights(frozenset({"app"})))
    grant(workspace, "anna", Rights(groups=frozenset({"web"})))
    assert reads(workspace, "anna") == {"app", "shop", "site"}
    deny(workspace, "anna", Rights(frozenset({"app"})), GROUPS)
    assert reads(workspace, "anna") == {"shop", "site"}
    grant(workspace, "anna", Rights(everything=True))
    assert reads(workspace, "anna") is None
    deny(workspace, "anna", Rights(everything=True), GROUPS)
    assert reads(workspace, "anna") == frozenset()


@pytest.mark.parametrize(
    ("had", "said"),
    [(Rights(everything=True), "may read everything"), (Rights(groups=frozenset({"web"})), "through the group web")],
)
def test_a_denial_that_would_change_nothing_is_refused(had, said, workspace):
    add_member(workspace, "anna", had)
    before = team_file(workspace).read_bytes()
    with pytest.raises(TeamError, match=said):
        deny(workspace, "anna", Rights(frozenset({"shop"})), GROUPS)
    assert team_file(workspace).read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused_in_one_line(mode, workspace):
    add_member(workspace, "anna", Rights(everything=True))
    team_file(workspace).chmod(mode)
    with pytest.raises(TeamError, match=rf"can be read by others \(mode {mode:o}\): chmod 600") as caught:
        read_team(workspace)
    assert "\n" not in str(caught.value)
    with pytest.raises(TeamError, match="chmod 600"):
        add_member(workspace, "bob", Rights(everything=True))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"members": [{"name": "x"}]}', '{"members": [], "odd": 1}', "\xff"],
)
def test_a_broken_file_is_one_line_and_stays_as_it_is(text, workspace):
    workspace.make_state_folder()
    team_file(workspace).write_bytes(text.encode("latin-1"))
    team_file(workspace).chmod(0o600)
    with pytest.raises(TeamError) as caught:
        add_member(workspace, "anna", Rights(everything=True))
    assert "\n" not in str(caught.value)
    assert team_file(workspace).read_bytes() == text.encode("latin-1")


@pytest.mark.parametrize("name", ["", OWNER_NAME, "a b", "-x", "é", "a\nb", "x" * 65, "../x"])
def test_a_name_that_could_be_taken_for_another_is_refused(name, workspace):
    with pytest.raises(TeamError, match="cannot be a user's name"):
        add_member(workspace, name, Rights(everything=True))
    assert not team_file(workspace).exists()


@pytest.mark.parametrize("change", [revoke, lambda w, n: grant(w, n, Rights(everything=True))])
def test_somebody_unknown_is_said_to_be_so(change, workspace):
    add_member(workspace, "anna", Rights(everything=True))
    with pytest.raises(TeamError, match="bob is not in the team; there is: anna"):
        change(workspace, "bob")
    with pytest.raises(TeamError, match="anna is in the team already"):
        add_member(workspace, "anna", Rights(everything=True))


NAMES = st.frozensets(st.sampled_from(["app", "shop", "site", "other"]), max_size=4)
CHANGES = st.lists(st.tuples(st.sampled_from(["grant", "deny"]), NAMES), max_size=8)


@given(first=NAMES, changes=CHANGES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_after_any_changes_exactly_what_was_granted_last_can_be_read(first, changes, workspace):
    team_file(workspace).unlink(missing_ok=True)
    add_member(workspace, "anna", Rights(first))
    expected = set(first)
    for kind, names in changes:
        if kind == "grant":
            grant(workspace, "anna", Rights(names))
            expected |= names
        else:
            deny(workspace, "anna", Rights(names), {})
            expected -= names
    assert read_team(workspace).find("anna").may_read({}) == expected


def test_of_two_who_change_it_at_once_neither_undoes_the_other(workspace):
    code = (
        "import sys; from pathlib import Path; from indexer.workspace import Workspace; "
        "from server.team import Rights, add_member\n"
        "for n in range(15): add_member(Workspace(Path(sys.argv[1])), sys.argv[2] + str(n), Rights(everything=True))"
    )
    command = [sys.executable, "-c", code, str(workspace.root)]
    running = [subprocess.Popen([*command, who], env=os.environ) for who in "ab"]
    assert [process.wait(60) for process in running] == [0, 0]
    assert {m.name for m in read_team(workspace).members} == {f"{who}{n}" for who in "ab" for n in range(15)}


def test_the_commands_print_the_token_once_and_never_its_hash(cli, tmp_path):
    place = tmp_path / "app"
    place.mkdir()

    def team(*arguments):
        return cli("team", *arguments, "--workspace", str(place))

    added = json.loads(team("add", "anna", "--repository", "app", "--json").stdout)
    assert (added["name"], len(added["token"])) == ("anna", 43)
    listed = team("list", "--json").stdout
    assert json.loads(listed)["members"][0]["repositories"] == ["app"]
    assert added["token"] not in listed
    assert "sha256" not in listed
    assert team("deny", "anna", "-r", "app").stdout == "anna reads nothing\n"
    assert team("grant", "anna", "--all").stdout == "anna reads everything\n"
    wrong = team("add", "bob", "--repository", "shop")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "there is no repository 'shop' here; there is: app" in wrong.stderr
    assert team("add", "bob").returncode == 2
    assert team("revoke", "anna").stdout == "anna is not in the team any more\n"
    assert json.loads(team("list", "--json").stdout) == {"members": []}
    for command in ("add", "list", "revoke", "grant", "deny"):
        assert "Examples:" in cli("team", command, "--help").stdout


def test_the_doctor_tells_of_modes_and_of_users_who_may_read_nothing_or_what_is_gone(workspace):
    here = workspace.root.name
    assert list(look_at_team(workspace)) == []
    add_member(workspace, "anna", Rights(frozenset({here})))
    add_member(workspace, "bob", Rights(frozenset({"gone"})))
    add_member(workspace, "carl", Rights(frozenset({here, "gone"}), frozenset({"web"})))
    add_member(workspace, "dora", Rights(everything=True))
    (workspace.logs).mkdir()
    (workspace.logs / "audit.jsonl.1").touch(mode=0o644)
    found = {one.name: (one.ok, one.found) for one in look_at_team(workspace)}
    assert found == {
        "team": (True, "4 users"),
        "team: bob": (False, "may read no repository"),
        "team: carl": (False, "may read what is not here: gone, group web"),
        "audit log": (False, "mode 644"),
    }
    team_file(workspace).chmod(0o640)
    assert [(one.ok, "chmod 600" in one.found) for one in look_at_team(workspace)] == [(False, True)]
