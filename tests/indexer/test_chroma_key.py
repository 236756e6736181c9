"""A Chroma behind a key: a real server, and before it a real proxy that lets nobody in without it."""

from __future__ import annotations

import http.client
import http.server
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import pytest

from indexer.chroma_server import NoKey, server_of
from indexer.index import Index, open_index
from indexer.settings import IndexerSettings

KEY = "kept-secret-5c1f"


@dataclass
class Proxy:
    """`wanted`: the header and value without which the answer is 401; `refused` and `passed` count."""

    address: str = ""
    wanted: tuple[str, str] = ("X-Chroma-Token", KEY)
    refused: int = 0
    passed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)


@pytest.fixture
def proxy(chroma) -> Iterator[Proxy]:
    """Passes on to the Chroma server what has the header."""
    proxy = Proxy()
    behind = urlsplit(chroma.address)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            name, value = proxy.wanted
            if self.headers.get(name) != value:
                proxy.refused += 1
                self._say(401, b'{"error": "Unauthorized"}')
                return
            proxy.passed += 1
            asked = http.client.HTTPConnection(behind.hostname, behind.port, timeout=20)
            kept = {each: self.headers[each] for each in ("Content-Type", "Accept") if each in self.headers}
            asked.request(self.command, self.path, body, kept)
            answer = asked.getresponse()
            self._say(answer.status, answer.read())
            asked.close()

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "POST", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._pass)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield proxy
    server.shutdown()
    server.server_close()


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def opened(workspace, embedder):
    """Opens an index of two functions, with these settings."""
    (workspace.root / "app.py").write_text("def alpha(x):\n    return x\n\n\ndef beta(y):\n    return y\n")
    return lambda **settings: open_index(workspace, IndexerSettings(**settings), embedder)


def is_whole(index: Index) -> bool:
    report = index.update()
    return report.store_fault == "" and not index.words_only() and index._parts.store.count() == report.chunks > 0


def test_with_the_key_of_a_file_the_proxy_lets_every_request_in(opened, proxy, key_file):
    with opened(chroma=proxy.address, chroma_key_file=key_file) as index:
        assert is_whole(index)
        assert index.search("alpha", 1)[0].path == "app.py"
    assert proxy.refused == 0
    assert proxy.passed > 5


def test_a_bearer_token_from_the_environment_is_sent_as_one(opened, proxy, monkeypatch):
    monkeypatch.setenv("NIGHTSCHOOL_INDEXER__CHROMA_KEY", KEY)
    proxy.wanted = ("Authorization", f"Bearer {KEY}")
    with opened(chroma=proxy.address, chroma_key_header="Authorization") as index:
        assert is_whole(index)
    assert proxy.refused == 0


@pytest.mark.parametrize("given", ["none", "wrong"])
def test_who_is_refused_searches_by_words_and_says_why_without_the_key(opened, proxy, key_file, given, caplog):
    caplog.set_level(logging.DEBUG)
    if given == "wrong":
        key_file.write_text(wrong := "other-secret-77aa")
    more = {"chroma_key_file": key_file} if given == "wrong" else {}
    with opened(chroma=proxy.address, **more) as index:
        report = index.update()
        refused = "our key" if given == "wrong" else "who has no key"
        assert f"Chroma at {proxy.address} refuses {refused} (401)" in report.store_fault
        assert index.search("alpha", 1)[0].path == "app.py"
    assert proxy.passed == 0
    assert given == "none" or wrong not in caplog.text + report.store_fault


def test_a_key_that_others_can_read_is_not_sent(opened, proxy, key_file):
    key_file.chmod(0o644)
    with opened(chroma=proxy.address, chroma_key_file=key_file) as index:
        assert index.update().store_fault.endswith(f"can be read by others (mode 644): chmod 600 {key_file}")
        assert index.search("alpha", 1)[0].path == "app.py"
    assert (proxy.passed, proxy.refused) == (0, 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "holds no key"), (b"two words", "holds no key"), (b"\xff\xfe", "not ASCII"), (None, "No such file")],
)
def test_a_file_that_holds_no_key_is_named(tmp_path, content, said):
    file = tmp_path / "key"
    if content is not None:
        file.touch(0o600)
        file.write_bytes(content)
    with pytest.raises(NoKey, match=said) as error:
        server_of(IndexerSettings(chroma="https://chroma.example.org", chroma_key_file=file))
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("address", "goes"),
    [
        ("http://chroma.example.org:8000", False),
        ("http://10.0.0.7:8000", False),
        ("https://api.trychroma.com:443", True),
        ("http://[::1]:8000", True),
        ("http://localhost:8000", True),
    ],
)
def test_a_key_goes_encrypted_or_to_this_machine(address, goes):
    settings = IndexerSettings(chroma=address, chroma_key=KEY)
    if goes:
        assert server_of(settings).headers == {"X-Chroma-Token": KEY}
    else:
        with pytest.raises(NoKey, match="https"):
            server_of(settings)
    assert KEY not in repr(settings) + str(settings)
    assert not goes or KEY not in repr(server_of(settings))


def test_collections_are_in_the_tenant_and_database_that_are_set(opened, proxy, chroma, key_file):
    """As Chroma Cloud wants it: both are named, and the key stands in a header."""
    api = f"{chroma.address}/api/v2/tenants"
    httpx.post(api, json={"name": "ours"}).raise_for_status()
    httpx.post(f"{api}/ours/databases", json={"name": "code"}).raise_for_status()
    where = {"chroma_tenant": "ours", "chroma_database": "code", "chroma_key_file": key_file}
    with opened(chroma=proxy.address, **where) as index:
        assert is_whole(index)
    counted = [
        httpx.get(f"{api}/{place}/collections_count").json()
        for place in ("ours/databases/code", "default_tenant/databases/default_database")
    ]
    assert counted == [1, 0]
