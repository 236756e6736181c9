"""The proxies of docs/operate.md: the very text that stands there, in a real nginx in front of a real backend."""

from __future__ import annotations

import getpass
import re
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from indexer.index import open_index
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace

DOCS = Path(__file__).parents[2] / "docs" / "operate.md"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(not (NGINX and shutil.which("openssl")), reason="no nginx or no openssl here")


def block(language, holding):
    """The block of that language in the documentation that holds this word."""
    blocks = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    (found,) = [text for text in blocks if holding in text]
    return found


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def make_certificate(folder):
    names = ["-subj", "/CN=code.example.org", "-addext", "subjectAltName=DNS:code.example.org"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *names]
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def nginx(folder, server_block, tls="ssl"):
    """nginx over what the documentation says, with its paths and ports; the port it listens on."""
    make_certificate(folder)
    port = free_port()
    text = server_block.replace("listen 443 ssl", f"listen 127.0.0.1:{port} {tls}")
    text = re.sub(
        r"ssl_certificate(_key)? \S+;",
        lambda m: f"ssl_certificate{m[1] or ''} {folder}/{'key' if m[1] else 'cert'}.pem;",
        text,
    )
    kinds = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    files = f"pid {folder}/pid; error_log {folder}/error.log;"
    user = f"user {getpass.getuser()};"  # who may write into `folder`
    config = f"{user} daemon off; {files} events {{}} http {{ access_log off; {kinds} {text} }}"
    (folder / "nginx.conf").write_text(config)
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def client_of(folder, port, token=""):
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    headers = {"Authorization": f"Bearer {token}", "Host": "code.example.org"}
    http = httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", headers=headers, verify=context, trust_env=False)
    return http, {"sni_hostname": "code.example.org"}


async def test_the_documented_nginx_lets_in_who_has_the_token_and_streams(live, tmp_path):
    behind = tuple(re.findall(r'"([\w.]+)"', block("toml", "behind_tls")))
    async with live(behind_tls=behind) as direct:
        token = direct.headers["authorization"].split()[1]
        text = block("nginx", "[server] body_bytes").replace("127.0.0.1:8700", str(direct.base_url.netloc.decode()))
        with nginx(tmp_path, text) as port:
            http, sni = client_of(tmp_path, port, token)
            async with http:
                found = await http.get("/search", params={"q": "run"}, extensions=sni)
                assert (found.status_code, found.json()["passages"][0]["path"]) == (200, "app.py")
                asked = {"question": "where is run?"}
                headers = {"Accept": "text/event-stream"}
                async with http.stream("POST", "/ask", json=asked, headers=headers, extensions=sni) as answer:
                    names = [line async for line in answer.aiter_lines() if line.startswith("event: ")]
                assert names[-1] == "event: done"
                page = {"Origin": "https://code.example.org"}
                assert (await http.get("/freshness", headers=page, extensions=sni)).status_code == 200
                other = {"Origin": "https://evil.example.org"}
                assert (await http.get("/freshness", headers=other, extensions=sni)).status_code == 403
                nobody = {"Authorization": "Bearer wrong"}
                assert (await http.get("/freshness", headers=nobody, extensions=sni)).status_code == 401
                long = {"question": "x" * 8_000, "buffer": "x" * 2_000_000}
                assert (await http.post("/ask", json=long, extensions=sni)).status_code == 413


async def test_the_documented_nginx_asks_the_other_backend_when_one_is_gone(live, tmp_path):
    async with live(behind_tls=("code.example.org",)) as direct:
        token = direct.headers["authorization"].split()[1]
        gone = f"127.0.0.1:{free_port()}"
        text = block("nginx", "upstream nightschool")
        text = text.replace("127.0.0.1:8700", gone).replace("127.0.0.1:8701", direct.base_url.netloc.decode())
        with nginx(tmp_path, text) as port:
            http, sni = client_of(tmp_path, port, token)
            async with http:
                for _ in range(4):
                    answer = await http.post("/ask", json={"question": "where is run?"}, extensions=sni)
                    assert (answer.status_code, answer.json()["passages"][0]["path"]) == (200, "app.py")


async def test_without_the_header_of_the_proxy_the_token_is_not_taken(live, tmp_path):
    async with live(behind_tls=("code.example.org",)) as direct:
        text = block("nginx", "[server] body_bytes").replace("127.0.0.1:8700", direct.base_url.netloc.decode())
        text = text.replace("proxy_set_header X-Forwarded-Proto https;", "")
        with nginx(tmp_path, text) as port:
            http, sni = client_of(tmp_path, port, direct.headers["authorization"].split()[1])
            async with http:
                assert (await http.get("/freshness", extensions=sni)).status_code == 403


def test_the_documented_nginx_lets_in_to_chroma_who_has_the_key(chroma, tmp_path):
    root, folder = tmp_path / "app", tmp_path / "nginx"
    root.mkdir()
    folder.mkdir()
    for number in range(700):  # more than a batch, of more than nginx takes by itself
        (root / f"f{number}.py").write_text(f"def function_{number}(argument):\n    return argument + {number}\n")
    text = block("nginx", "http_x_chroma_token").replace("127.0.0.1:8000", chroma.address.removeprefix("http://"))
    with nginx(folder, text, tls="") as port:
        settings = {"chroma": f"http://127.0.0.1:{port}", "chroma_key": "KEY"}
        with open_index(Workspace(root), IndexerSettings(**settings)) as index:
            assert (index.update().store_fault, index.words_only()) == ("", "")
        with open_index(Workspace(root), IndexerSettings(**settings | {"chroma_key": "other"})) as index:
            assert index.search("function_3", 1)[0].path == "f3.py"
            assert "refuses our key (401)" in index.words_only()
