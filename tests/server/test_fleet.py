"""Many repositories at the edges: the commands, HTTP, the backend that is told who asks, and the doctor."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from indexer.fleet import open_fleet
from indexer.fleet_file import add_repository, remove_repository, rename_repository
from indexer.fleet_settings import FleetSettings, make_repository
from indexer.git import head_commit
from indexer.index import IndexUnavailable, open_index
from indexer.quarantine import read_quarantine, write_quarantine
from indexer.settings import BadSettings, IndexerSettings
from indexer.workspace import Workspace
from server import backend as backend_module
from server.asker import Asker
from server.auth import read_or_make_token
from server.fleet_commands import fleet_app
from server.fleet_doctor import look_at_fleet
from server.forget_command import CannotForget, find_holder, forget, name_target
from server.http import make_app
from server.lsp_documents import Folders, Place, file_uri
from server.routing import adapters_for

ROOT = Path(__file__).parent.parent.parent
PARSER = 'def parse_invoice(text):\n    """Parse the lines of an invoice."""\n    return text\n'
MAILER = 'def send_reminder(address):\n    """Send a reminder to who has not paid."""\n    return address\n'


class Words:
    """Texts with the same words are near each other."""

    name = "words-64"

    def embed(self, texts):
        import numpy as np

        from indexer.tokens import tokens

        vectors = np.zeros((len(texts), 64), np.float32)
        for row, text in enumerate(texts):
            vectors[row, 0] = 0.1
            for token in tokens(text):
                vectors[row, sum(token.encode()) % 64] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "fleet").mkdir()
    return Workspace((tmp_path / "fleet").resolve())


@pytest.fixture
def two(tmp_path, place):
    """A fleet of `bills` and `mail`."""
    for folder, name, text in (("one", "parser.py", PARSER), ("two", "mailer.py", MAILER)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    add_repository(place, make_repository("bills", str(tmp_path / "one")))
    add_repository(place, make_repository("mail", str(tmp_path / "two"), "letters"))
    return tmp_path


@pytest.fixture
def http(place, make_backend):
    """Makes a client of a backend over an open fleet, and gives the backend too."""

    def make(index):
        token = read_or_make_token(place)
        made = make_backend(index=index)
        doors = backend_module._doors(index, _Serving(made), made.settings, lambda: adapters_for({}, {}, None))
        made = replace(made, workspace=place, doors=replace(doors, borrow=made.doors.borrow))
        transport = httpx.ASGITransport(make_app(made, token), raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {token}"}
        return made, httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)

    return make


class _Serving:
    """What `_doors` asks of the engines."""

    def __init__(self, made):
        self.borrow = made.doors.borrow
        self.base_model = type("Base", (), {"parameters": 0})


def run(*arguments):
    return CliRunner().invoke(fleet_app, list(arguments))


COMMENTED = """# the team's
[indexer]  # fast
max_file_bytes = 500000  # half

[[fleet.repositories]]  # the shop
name = "shop"  # renamed once
source = "/srv/shop"

# the second, since May
[[fleet.repositories]]
source = 'https://example.org/web.git'
name = 'web'

[server]
port = 0
"""


def test_what_else_stands_in_the_settings_stays_when_a_repository_comes_and_goes(place):
    place.settings_file.write_text(COMMENTED)
    place.settings_file.chmod(0o600)
    add_repository(place, make_repository("app", "/srv/é 'x' \"y\""))
    assert place.settings_file.read_text().startswith(COMMENTED)
    assert [one.name for one in FleetSettings.read(place).repositories] == ["shop", "web", "app"]
    assert FleetSettings.read(place).repositories[2].source == "/srv/é 'x' \"y\""
    remove_repository(place, "app")
    assert place.settings_file.read_text().rstrip() == COMMENTED.rstrip()
    rename_repository(place, "web", "site")
    assert place.settings_file.read_text().rstrip() == COMMENTED.replace("'web'", '"site"').rstrip()
    remove_repository(place, "shop")
    left = place.settings_file.read_text()
    assert "# the second, since May\n[[fleet.repositories]]\nsource" in left
    assert "max_file_bytes = 500000  # half" in left
    assert place.settings_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        '[fleet]\nrepositories = [{ name = "app", source = "/srv" }]\n',
        'fleet.repositories = [{ name = "app", source = "/srv" }]\n',
    ],
)
def test_settings_that_cannot_be_edited_stay_as_they_are(text, place):
    place.settings_file.write_text(text)
    for change in (
        lambda: add_repository(place, make_repository("b", "/srv/b")),
        lambda: remove_repository(place, "app"),
        lambda: rename_repository(place, "app", "b"),
    ):
        with pytest.raises(BadSettings, match="edit it by hand"):
            change()
    assert place.settings_file.read_text() == text


def test_a_name_that_is_taken_or_unknown_changes_nothing(two, place):
    before = place.settings_file.read_text()
    for change, fault in (
        (lambda: add_repository(place, make_repository("mail", "/srv/x")), "two repositories have the name"),
        (lambda: rename_repository(place, "mail", "bills"), "two repositories have the name"),
        (lambda: rename_repository(place, "mail", "../x"), "is no name"),
        (lambda: remove_repository(place, "nope"), "there are: bills, mail"),
    ):
        with pytest.raises(BadSettings, match=fault):
            change()
    assert place.settings_file.read_text() == before


def test_a_repository_is_added_listed_and_removed_by_command(two, place):
    (place.root / "inside").mkdir()
    at = ("--workspace", str(place.root))
    assert run("add", "inner", str(place.root / "inside"), *at).exit_code == 0
    rows = json.loads(run("list", "--json", *at).stdout)["repositories"]
    assert [(row["name"], row["source"], row["group"]) for row in rows] == [
        ("bills", str(two / "one"), ""),
        ("mail", str(two / "two"), "letters"),
        ("inner", "inside", ""),
    ]
    assert run("add", "x", str(two / "nothing"), *at).exit_code == 2
    assert run("remove", "inner", *at).exit_code == 0
    assert (place.root / "inside").is_dir()
    assert len(json.loads(run("list", "--json", *at).stdout)["repositories"]) == 2


def git(folder, *arguments):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def sync(place, *more):
    command = [sys.executable, "-m", "nightschool", "fleet", "sync", "--json", "--workspace", str(place.root), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def test_a_sync_does_what_it_can_and_says_why_the_rest_failed(two, place):
    git(two / "one", "init", "-q")
    git(two / "one", "add", "-A")
    git(two / "one", "commit", "-qm", "one")
    remove_repository(place, "bills")
    add_repository(place, make_repository("cloned", f"file://{two / 'one'}"))
    add_repository(place, make_repository("nowhere", f"file://{two / 'nothing'}"))
    shutil.rmtree(two / "two")
    code, said = sync(place)
    rows = {row["name"]: row for row in said["repositories"]}
    assert (code, said["failed"], rows["cloned"]["files"]) == (1, 2, 1)
    assert "is gone: bring it back" in rows["mail"]["fault"]
    assert rows["nowhere"]["fault"].startswith("git clone failed: ")
    assert len(rows["cloned"]["commit"]) == 40
    code, said = sync(place, "cloned")
    assert (code, said["repositories"][0]["embedded"]) == (0, 0)


KILLED = """
import os, sys
from pathlib import Path
from indexer.fleet import open_fleet
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
sys.path.insert(0, sys.argv[2])
from test_fleet_words import Words

class Dies(Words):
    left = 3
    def embed(self, texts):
        Dies.left -= 1
        if not Dies.left:
            os.kill(os.getpid(), 9)
        return super().embed(texts)

with open_fleet(Workspace(Path(sys.argv[1])), IndexerSettings(), Dies()) as fleet:
    fleet.update()
"""


def test_a_killed_update_of_a_fleet_goes_on_where_it_stopped(two, place, tmp_path):
    for name in ("one", "two"):
        for number in range(60):
            text = "".join(f"def f{number}_{n}(x):\n    return x + {n}\n\n\n" for n in range(4))
            (two / name / f"m{number}.py").write_text(text + f"# {name}\n")
    source = Path(__file__).read_text()
    words = source[source.index("class Words:") : source.index("@pytest.fixture")]
    (tmp_path / "test_fleet_words.py").write_text(words)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(place.root), str(tmp_path)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    with open_fleet(place, IndexerSettings(), Words()) as fleet:
        report = fleet.update()
        kept = fleet._members._commons.cache.count()
        assert 0 < report.embedded < kept
        state = fleet.state()
        assert (state.files, state.waiting_chunks) == (122, 0)
        for name in fleet.names:
            fleet.search("anything")
            parts = fleet._members._index(name)._parts
            assert parts.store.count() == parts.lexical.count() == parts.catalogue.count()[1]


async def test_every_passage_and_citation_over_http_names_its_repository(two, place, http):
    with open_fleet(place, IndexerSettings(), Words()) as index:
        index.update()
        _, client = http(index)
        async with client:
            found = (await client.get("/search", params={"q": "send_reminder", "k": 1})).json()
            assert (found["passages"][0]["path"], found["passages"][0]["repository"]) == ("mail/mailer.py", "mail")
            assert "missing" not in found
            answer = (await client.post("/ask", json={"question": "what does send_reminder do?"})).json()
            assert {c["repository"] for c in answer["citations"]} == {"mail"}
            assert [c["verified"] for c in answer["citations"]] == [True]
            code = await client.get("/code", params={"path": "mail/mailer.py"})
            assert code.json()["text"] == MAILER
            shutil.rmtree(two / "two")
            found = (await client.get("/search", params={"q": "parse_invoice"})).json()
            assert found["passages"][0]["path"] == "bills/parser.py"
            assert [line.partition(":")[0] for line in found["missing"]] == ["mail"]
            answer = (await client.post("/ask", json={"question": "what does parse_invoice do?"})).json()
            assert any(notice.startswith("Not asked: mail: its folder") for notice in answer["notices"])
            fresh = (await client.get("/freshness")).json()
            assert [line.partition(":")[0] for line in fresh["missing"]] == ["mail"]


async def test_a_citation_has_the_commit_of_its_own_repository(two, place, http):
    git(two / "two", "init", "-q")
    git(two / "two", "add", "-A")
    git(two / "two", "commit", "-qm", "one")
    with open_fleet(place, IndexerSettings(), Words()) as index:
        index.update()
        _, client = http(index)
        async with client:
            answer = (await client.post("/ask", json={"question": "what does send_reminder do?"})).json()
    assert answer["citations"][0]["commit"] == head_commit(two / "two")
    assert answer["freshness"]["commit"] is None


async def test_a_running_backend_takes_in_what_is_added_and_lets_go_of_what_is_removed(two, place, http):
    with open_fleet(place, IndexerSettings(), Words()) as index:
        index.update()
        _, client = http(index)
        async with client:
            remove_repository(place, "mail")
            assert (await client.post("/fleet/reload")).json() == {"repositories": ["bills"]}
            assert (await client.get("/code", params={"path": "mail/mailer.py"})).status_code == 404
            rename_repository(place, "bills", "shop")
            add_repository(place, make_repository("post", str(two / "two")))
            synced = await client.post("/fleet/update", json={"name": "post"})
            assert (synced.status_code, synced.json()["files"]) == (200, 1)
            status = (await client.get("/fleet")).json()
            assert [(row["name"], row["files"]) for row in status["repositories"]] == [("shop", 1), ("post", 1)]
            assert (await client.post("/fleet/update", json={"name": "mail"})).status_code == 503


async def test_a_workspace_that_is_no_fleet_says_so(client):
    async with client() as http:
        answer = await http.get("/fleet")
    assert (answer.status_code, "nightschool fleet add" in answer.json()["error"]["message"]) == (404, True)


async def test_the_doors_of_an_asker_lead_to_what_it_may_read_only(two, place, http):
    with open_fleet(place, IndexerSettings(), Words()) as index:
        index.update()
        backend, client = http(index)
        async with client:
            backend = replace(backend, serving=_Serving(backend))
            doors = backend.doors_for(Asker("ann", frozenset({"bills"})))
            assert {p.repository for p in await doors.search("send_reminder", 10, {})} <= {"bills"}
            assert list(await doors.find_named("send_reminder() in mail/mailer.py", {})) == []
            assert not doors.knows("send_reminder")
            assert (await doors.freshness()).files == 1
            assert await doors.commit_of("mail") == ""
            assert backend.doors_for(Asker("workspace", None)) is backend.doors
            nobody = backend.doors_for(Asker("eve", frozenset()))
            assert list(await nobody.search("send_reminder", 10, {})) == []
            shutil.rmtree(two / "two")
            await backend.doors.search("x", 1, {})
            assert (list(doors.missing()), len(backend.doors.missing())) == ([], 1)


async def test_outside_a_fleet_the_folders_name_is_the_repository(workspace, make_backend):
    with open_index(workspace, IndexerSettings(), Words()) as index:
        backend = replace(make_backend(index=index), serving=_Serving(make_backend()))
        backend.doors_for(Asker("ann", frozenset({workspace.root.name})))
        with pytest.raises(IndexUnavailable, match="may read no repository"):
            backend.doors_for(Asker("eve", frozenset({"other"})))


def test_the_doctor_names_each_repository_that_is_not_as_it_should_be(two, place, tmp_path):
    from server.fleet_sync import status_json

    (tmp_path / "instances").write_text("128\n")
    with open_fleet(place, IndexerSettings(), Words()) as index:
        index.update()
        findings = list(look_at_fleet(place, status_json(index), tmp_path / "instances"))
        assert [(one.name, one.ok) for one in findings] == [("fleet", True), ("watched folders", True)]
        shutil.rmtree(two / "two")
        (tmp_path / "instances").write_text("2\n")
        findings = list(look_at_fleet(place, status_json(index), tmp_path / "instances"))
    assert [(one.name, one.ok) for one in findings] == [
        ("repository mail", False),
        ("fleet", False),
        ("watched folders", False),
    ]
    assert "is gone" in findings[0].found
    assert findings[1].found.startswith("1 of 2 repositories")


async def test_search_goes_on_while_a_repository_is_added_and_removed(two, place, http):
    with open_fleet(place, IndexerSettings(), Words()) as index:
        index.update()
        stop = time.monotonic() + 2
        faults = []

        def ask():
            while time.monotonic() < stop:
                found = index.search("parse_invoice", 1)
                if [p.path for p in found] != ["bills/parser.py"]:
                    faults.append(found)

        def change():
            while time.monotonic() < stop:
                remove_repository(place, "mail")
                index.update()
                add_repository(place, make_repository("mail", str(two / "two")))
                index.update()

        await asyncio.gather(asyncio.to_thread(ask), asyncio.to_thread(change))
    assert faults == []
    assert not list(place.root.rglob("quarantine/*")), "a repository that goes is no damage to what the others share"


def test_an_editor_opens_and_names_the_files_of_a_fleet_where_they_lie(two, place):
    (place.root / "inside").mkdir()
    add_repository(place, make_repository("inner", "inside"))
    folders = Folders()
    folders.add(place.root)
    for path, file in (("mail/mailer.py", two / "two" / "mailer.py"), ("inner/a.py", place.root / "inside" / "a.py")):
        uri = folders.uri(place, path)
        assert uri == file_uri(file.resolve())
        assert folders.locate(uri) == Place(place, path)
    assert folders.locate(file_uri(two / "elsewhere.py")) is None
    assert folders.locate(file_uri(place.root / "notes.md")) == Place(place, "notes.md")


def test_what_is_forgotten_in_a_fleet_goes_from_its_index_and_stays_out_after_a_rename(two, place, capsys):
    with open_fleet(place, IndexerSettings(), Words()) as index:
        index.update()
        holder, what = find_holder(place, "mail/mailer.py")
        write_quarantine(holder, read_quarantine(holder).with_held(*name_target(holder, what), "old"))
        rename_repository(place, "mail", "post")
        index.update()
        assert [p.path for p in index.search("send_reminder", 5)] == ["bills/parser.py"]
        assert index.read("post/mailer.py") is None
    forget(None, workspace=place.root, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"paths": {"post/mailer.py": "old"}, "sources": {}}
    assert [entry.name for entry in (two / "two").iterdir()] == ["mailer.py"]
    with pytest.raises(CannotForget, match="give REPOSITORY/PATH"):
        forget("mailer.py", workspace=place.root)
