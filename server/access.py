"""Which route is for whom, in one table. What a user reads through theirs is narrowed in `server.reach`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from starlette.routing import compile_path


class Who(Enum):
    """ANYONE needs no token. TEAM: the owner and every user, each with what they may read. OWNER: the owner alone."""

    ANYONE = "anyone"
    TEAM = "team"
    OWNER = "owner"


# A route that does not stand here is nobody's but the owner's: a new one is closed until somebody has thought about it.
ROUTES: dict[str, Who] = {
    "GET /healthz": Who.ANYONE,
    # A browser can send no token for these. The files hold nothing; the address of a report holds a key.
    "GET /ui": Who.ANYONE,
    "GET /ui/page/{name}": Who.ANYONE,
    "GET /ui/report": Who.ANYONE,
    "GET /readyz": Who.TEAM,
    "GET /freshness": Who.TEAM,
    "GET /search": Who.TEAM,
    "GET /code": Who.TEAM,
    "GET /index/explain": Who.TEAM,
    "POST /ask": Who.TEAM,
    "POST /feedback": Who.TEAM,
    "GET /v1/models": Who.TEAM,
    "POST /v1/chat/completions": Who.TEAM,
    "POST /v1/completions": Who.TEAM,
    "POST /v1/embeddings": Who.TEAM,
    "GET /adapters": Who.TEAM,
    "GET /nights": Who.TEAM,
    "GET /nights/last": Who.TEAM,
    "POST /ui/render": Who.TEAM,
    "POST /ui/code": Who.TEAM,
    "GET /openapi.json": Who.TEAM,
    "* /mcp": Who.TEAM,
    # What changes the workspace, and what tells about everybody.
    "POST /index": Who.OWNER,
    "GET /fleet": Who.OWNER,
    "POST /fleet/reload": Who.OWNER,
    "POST /fleet/update": Who.OWNER,
    "GET /adapters/served": Who.OWNER,
    "POST /adapters/rollback": Who.OWNER,
    "POST /adapters/{version}/promote": Who.OWNER,
    "GET /metrics": Who.OWNER,
}


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the table: its pattern, as in `/adapters/{version}/promote`, and for whom it is."""

    method: str
    pattern: str
    who: Who


def _compile(route: str, who: Who) -> tuple[re.Pattern[str], Route]:
    method, pattern = route.split(" ")
    return compile_path(pattern)[0], Route(method, pattern, who)


_COMPILED = [_compile(route, who) for route, who in ROUTES.items()]


def find_route(method: str, path: str) -> Route | None:
    """The route that takes this request; None when none in the table does. HEAD is as GET."""
    asked = "GET" if method == "HEAD" else method
    return next((route for form, route in _COMPILED if route.method in (asked, "*") and form.match(path)), None)
