"""What the doctor looks at on servers that others run: Chroma, and the engines at their addresses."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from indexer.chroma_server import NoKey, server_of
from indexer.settings import IndexerSettings
from indexer.store import StoreDamaged, knock
from server.client import Json
from server.doctor import Finding
from server.routing import shown_url
from server.settings import ServerSettings

_WAIT_S = 5.0
_WORDS = "until then questions are searched by words only; start it, make room for it, or change [indexer] chroma"


def chroma(settings: IndexerSettings, ready: Json | None) -> Iterator[Finding]:
    """The Chroma server, where one is set: does it let us in, and what does the running backend say of it?"""
    if not settings.chroma:
        return
    try:
        server = server_of(settings)
        assert server is not None
        knock(server)
    except (NoKey, StoreDamaged) as error:
        yield Finding("Chroma", False, str(error), _WORDS)
        return
    if said := (ready or {}).get("words_only"):
        yield Finding("Chroma", False, f"it answers, but {said}", _WORDS)
        return
    yield Finding("Chroma", True, f"{settings.chroma} answers" + (", and takes our key" if server.headers else ""))


def endpoints(settings: ServerSettings, ready: Json | None) -> Iterator[Finding]:
    """Each address of an engine that somebody else runs, asked here while no backend runs that knows of them."""
    if ready is not None:
        return
    headers = {"Authorization": f"Bearer {settings.engine_key}"} if settings.engine_key else {}
    for url in settings.engine_urls or filter(None, (settings.engine_url,)):
        try:
            answer = httpx.get(f"{url.rstrip('/')}/models", headers=headers, timeout=_WAIT_S, trust_env=False)
            said = "" if answer.status_code == 200 else f"answers {answer.status_code} to /models"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said = f"does not answer: {error or type(error).__name__}"
        todo = "start it, or change [server] engine_url or engine_urls; the key is NIGHTSCHOOL_SERVER__ENGINE_KEY"
        yield Finding(f"engine {shown_url(url)}", not said, said or "answers", todo)
