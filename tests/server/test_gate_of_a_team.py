"""Who comes in, for what, how often, and how long: tokens of users, the table of routes, the proxy that signs on."""

import asyncio
import json
import time

import httpx
import pytest

from server.access import ROUTES, Who, find_route
from server.auth import read_or_make_token
from server.http import make_app
from server.roster import HOW_TO_ASK, Roster, SignOn, Unknown
from server.run import uvicorn_config
from server.settings import ServerSettings
from server.team import Rights, add_member, deny, grant, revoke, team_file

ALL = Rights(everything=True)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def anna(workspace):
    """The headers of a user who may read everything."""
    return bearer(add_member(workspace, "anna", ALL))


async def test_a_user_comes_in_with_their_token_and_nobody_else_does(client, workspace, anna):
    async with client(authorised=False) as http:
        assert (await http.get("/freshness", headers=anna)).status_code == 200
        bob = bearer(add_member(workspace, "bob", ALL))
        assert (await http.get("/freshness", headers=bob)).status_code == 200
        revoke(workspace, "bob")
        never, gone = [await http.get("/freshness", headers=each) for each in (bearer("x" * 43), bob)]
        assert (never.status_code, gone.status_code) == (401, 401)
        assert never.json() == gone.json()
        assert never.json()["error"]["message"] == HOW_TO_ASK
        assert (await http.get("/freshness", headers={"Authorization": "Bearer é🙂".encode()})).status_code == 401
        assert (await http.get("/freshness", headers=anna)).status_code == 200
        assert (await http.get("/freshness", headers=bearer(read_or_make_token(workspace)))).status_code == 200


async def test_what_is_kept_of_a_token_is_no_token(client, workspace, anna):
    kept = json.loads(team_file(workspace).read_text())["members"][0]["token_sha256"]
    async with client(authorised=False) as http:
        assert (await http.get("/freshness", headers=bearer(kept))).status_code == 401


async def test_a_file_that_others_can_read_lets_no_user_in_and_the_owner_still(client, workspace, anna, caplog):
    async with client() as http:
        assert (await http.get("/freshness", headers=anna)).status_code == 200
        team_file(workspace).chmod(0o644)
        assert [(await http.get("/freshness", headers=anna)).status_code for _ in range(3)] == [401] * 3
        assert (await http.get("/freshness")).status_code == 200
        assert [r.message for r in caplog.records if "chmod 600" in r.message] == [
            f"nobody of the team is let in: {team_file(workspace)} can be read by others (mode 644): "
            f"chmod 600 {team_file(workspace)}"
        ]
        team_file(workspace).chmod(0o600)
        assert (await http.get("/freshness", headers=anna)).status_code == 200


async def test_every_route_stands_in_the_table_and_the_table_names_no_other(client):
    async with client() as http:
        served = {
            (f"{method} {route.path}" if route.methods else f"* {route.path}")
            for route in http._transport.app.routes
            for method in ((route.methods or {"*"}) - {"HEAD"})
        }
    assert served == set(ROUTES)


OWNERS = [route for route, who in ROUTES.items() if who is Who.OWNER]


@pytest.mark.parametrize("route", OWNERS)
async def test_what_is_the_owners_is_refused_to_users(route, client, anna):
    method, path = route.replace("{version}", "x").split(" ")
    async with client() as http:
        refused = await http.request(method, path, headers=anna)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "owner_only")
        if path == "/metrics":
            assert (await http.request(method, path)).status_code == 200


def test_the_owners_are_what_changes_the_workspace_and_what_tells_about_everybody():
    fleet = ["GET /fleet", "POST /fleet/reload", "POST /fleet/update"]
    adapters = ["GET /adapters/served", "POST /adapters/rollback", "POST /adapters/{version}/promote"]
    assert ["POST /index", *fleet, *adapters, "GET /metrics"] == OWNERS


@pytest.mark.parametrize(
    "path", ["/nothing", "/adapters/x", "/search/", "//search", "/adapters/../metrics", "/METRICS"]
)
async def test_a_route_that_is_not_in_the_table_is_nothing_to_a_user(path, client, anna):
    async with client() as http:
        http._transport.app.add_api_route("/nothing", lambda: {"secret": 1})
        assert (await http.get(path, headers=anna)).status_code in (403, 404)
        assert find_route("GET", path) is None
        assert (await http.get("/nothing")).json() == {"secret": 1}


async def test_each_user_has_a_rate_of_their_own(client, workspace):
    anna, bob = (bearer(add_member(workspace, name, ALL, most)) for name, most in (("anna", 2), ("bob", 0)))
    async with client(requests_per_minute=3) as http:
        said = [await http.get("/freshness", headers=anna) for _ in range(3)]
        assert [answer.status_code for answer in said] == [200, 200, 429]
        assert said[-1].headers["Retry-After"] == "30"
        assert [(await http.get("/freshness", headers=bob)).status_code for _ in range(4)] == [200, 200, 200, 429]
        assert (await http.get("/freshness")).status_code == 200


async def _until_it_ends(response):
    started = time.monotonic()
    with pytest.raises(httpx.RemoteProtocolError):
        async for _ in response.aiter_bytes():
            pass
    return time.monotonic() - started


@pytest.mark.parametrize(
    "take",
    [
        lambda w: revoke(w, "anna"),
        lambda w: deny(w, "anna", ALL, {}),
        lambda w: team_file(w).chmod(0o644),
        lambda w: team_file(w).unlink(),
        lambda w: (revoke(w, "anna"), add_member(w, "anna", ALL)),
    ],
    ids=["revoked", "denied", "readable", "gone", "another of that name"],
)
@pytest.mark.parametrize(
    "body", [{"question": "where?"}, {"messages": [{"role": "user", "content": "?"}], "stream": True}]
)
async def test_a_stream_of_who_may_not_read_any_more_ends_within_a_second(
    body, take, live, workspace, anna, slow_model
):
    model = slow_model(writes_at_once=True)
    path = "/ask" if "question" in body else "/v1/chat/completions"
    async with live(model) as http:
        headers = {**anna, "Accept": "text/event-stream"}
        async with http.stream("POST", path, json=body, headers=headers) as response:
            assert response.status_code == 200
            await asyncio.wait_for(model.begun.wait(), 5)
            take(workspace)
            assert await _until_it_ends(response) < 1.5
        await asyncio.wait_for(model.stopped.wait(), 1)


async def test_a_whole_answer_to_who_was_revoked_meanwhile_is_a_refusal(live, workspace, anna, slow_model):
    model = slow_model(writes_at_once=True)
    async with live(model) as http:
        asking = asyncio.create_task(http.post("/ask", json={"question": "where?"}, headers=anna))
        await asyncio.wait_for(model.begun.wait(), 5)
        revoke(workspace, "anna")
        assert (await asyncio.wait_for(asking, 2)).status_code == 401
        await asyncio.wait_for(model.stopped.wait(), 1)


async def test_a_stream_goes_on_while_others_change_and_its_user_may_read_more(live, workspace, scripted):
    anna, gate = bearer(add_member(workspace, "anna", Rights(frozenset({workspace.root.name})))), asyncio.Event()
    async with live(scripted(["It ", gate, "is."])) as http:
        asking = asyncio.create_task(http.post("/ask", json={"question": "where?"}, headers=anna))
        add_member(workspace, "bob", ALL)
        grant(workspace, "anna", Rights(frozenset({"more"})))
        await asyncio.wait({asking}, timeout=1.2)
        assert not asking.done()
        gate.set()
        assert (await asking).json()["answer"].startswith("It is.")


PROXY = {"trusted_proxy": "127.0.0.1", "user_header": "X-Forwarded-User"}


async def test_the_proxy_names_the_user_and_only_it_is_believed(live, workspace, anna):
    async with live(**PROXY) as http:
        del http.headers["Authorization"]
        assert (await http.get("/freshness", headers={"X-Forwarded-User": "anna"})).status_code == 200
        unknown = await http.get("/freshness", headers={"X-Forwarded-User": "bob"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (403, "not_in_the_team")
        assert (await http.get("/freshness", headers={"X-Forwarded-User": ""})).status_code == 401
        assert (await http.get("/metrics", headers={"X-Forwarded-User": "owner"})).status_code == 403
        twice = await http.get("/freshness", headers=[("X-Forwarded-User", "anna"), ("X-Forwarded-User", "bob")])
        assert twice.status_code == 403
        revoke(workspace, "anna")
        assert (await http.get("/freshness", headers={"X-Forwarded-User": "anna"})).status_code == 403


@pytest.mark.parametrize("forged", ["10.1.2.3", "10.1.2.3, 127.0.0.1", "127.0.0.1"])
async def test_a_header_from_elsewhere_does_not_log_in_whatever_it_says_of_its_way(forged, live, anna):
    async with live(trusted_proxy="10.1.2.3", user_header="X-Forwarded-User") as http:
        del http.headers["Authorization"]
        named = {
            "X-Forwarded-User": "anna",
            "X-Forwarded-For": forged,
            "X-Real-IP": forged,
            "Forwarded": f"for={forged}",
        }
        assert (await http.get("/freshness", headers=named)).status_code == 401
        # It is ignored, not obeyed: the token counts.
        assert (await http.get("/freshness", headers={**named, **anna, "X-Forwarded-User": "bob"})).status_code == 200


async def test_without_the_setting_no_header_logs_in(live, anna):
    async with live() as http:
        del http.headers["Authorization"]
        assert (await http.get("/freshness", headers={"X-Forwarded-User": "anna"})).status_code == 401


def test_an_address_is_the_same_however_it_is_written(workspace):
    add_member(workspace, "anna", ALL)
    roster = Roster(workspace, "t", SignOn("10.0.0.1", b"x-user"))
    named = [(b"X-User", b"anna")]
    assert [roster.who(peer, named).asker.name for peer in ("10.0.0.1", "::ffff:10.0.0.1")] == ["anna", "anna"]
    for peer in ("10.0.0.2", "", "unix:", "::1"):
        with pytest.raises(Unknown):
            roster.who(peer, named)


def test_uvicorn_leaves_the_peer_as_the_socket_says(make_backend):
    config = uvicorn_config(make_app(make_backend(), "t"))
    config.load()
    assert type(config.loaded_app).__name__ != "ProxyHeadersMiddleware"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trusted_proxy": "127.0.0.1"}, "belong together"),
        ({"user_header": "X-User"}, "belong together"),
        ({"trusted_proxy": "proxy.example", "user_header": "X-User"}, "no IP address"),
        ({"trusted_proxy": "127.0.0.1", "user_header": "X User"}, "user_header"),
    ],
)
def test_half_a_proxy_stops_the_start(given, said):
    with pytest.raises(ValueError, match=said):
        ServerSettings(**given)
