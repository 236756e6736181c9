"""Many repositories as one index: fused by rank, told apart by name, and hidden from who may not read them."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from indexer.clones import CannotFetch, bring_clone
from indexer.cluster import ClusterUnavailable
from indexer.files import read_source
from indexer.fleet import open_fleet
from indexer.fleet_settings import FleetSettings
from indexer.index import IndexUnavailable
from indexer.quarantine import Quarantine, write_quarantine
from indexer.ranking import Query
from indexer.settings import BadSettings, IndexerSettings
from indexer.update import describe, embedded_text
from indexer.workspace import Workspace

PARSER = 'def parse_invoice(text):\n    """Parse the lines of an invoice."""\n    return text.split("\\n")\n'
MAILER = 'def send_reminder(address):\n    """Send a reminder é 🙂 to who has not paid."""\n    return address\n'
QUEUE = 'class WorkQueue:\n    """Holds what is to be done."""\n\n    def push(self, item):\n        return item\n'


@pytest.fixture
def place(tmp_path):
    """The folder of a fleet; `repo` makes its repositories beside it."""
    (tmp_path / "fleet").mkdir()
    return Workspace((tmp_path / "fleet").resolve())


@pytest.fixture
def repo(tmp_path):
    """Makes a folder of files under src/."""

    def make(name, files):
        for path, text in files.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path / name

    return make


@pytest.fixture
def settle(place):
    """Writes the settings: (name, folder) of each repository."""

    def write(*repositories):
        tables = [
            f"[[fleet.repositories]]\nname = {json.dumps(name)}\nsource = {json.dumps(str(source))}\n"
            for name, source in repositories
        ]
        place.settings_file.write_text("\n".join(tables))

    return write


@pytest.fixture
def three(repo, settle):
    folders = [
        repo("one", {"src/parser.py": PARSER}),
        repo("two", {"src/mailer.py": MAILER}),
        repo("three", {"src/queue.py": QUEUE}),
    ]
    settle(*zip(("bills", "mail", "work"), folders, strict=True))
    return dict(zip(("bills", "mail", "work"), folders, strict=True))


@pytest.fixture
def opened(place, embedder):
    return lambda: open_fleet(place, IndexerSettings(), embedder)


def wait_until(what):
    """Waits until `what` holds; fails at the deadline."""
    started = time.monotonic()
    while not what():
        assert time.monotonic() - started < 10, "not within the deadline"
        time.sleep(0.01)


def paths(passages):
    return [passage.path for passage in passages]


def git(folder, *arguments):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_one_search_finds_in_every_repository_and_says_in_which(three, opened):
    with opened() as fleet:
        report = fleet.update()
        assert (report.files, report.failed) == (3, {})
        for query, path in (
            ("parse an invoice", "bills/src/parser.py"),
            ("send_reminder", "mail/src/mailer.py"),
            ("what holds work that is to be done", "work/src/queue.py"),
        ):
            best = fleet.search(query, 3)[0]
            assert (best.path, best.repository) == (path, path.split("/")[0])
        assert fleet.is_current(best.path, best.start_line, best.end_line, best.sha256)
        assert fleet.read("mail/src/mailer.py") == MAILER
        assert paths(fleet.search('"has not paid"')) == ["mail/src/mailer.py"]


def test_the_folders_of_a_fleet_stay_as_they_are(three, opened):
    with opened() as fleet:
        fleet.update()
        fleet.search("invoice")
    assert [sorted(entry.name for entry in folder.iterdir()) for folder in three.values()] == [["src"]] * 3


def test_a_repository_of_many_files_does_not_crowd_out_the_one_that_answers(repo, settle, opened):
    many = {f"src/m{n}.py": f"def handle_{n}():\n    return 'a reminder of nothing, number {n}'\n" for n in range(40)}
    settle(("crowd", repo("crowd", many)), ("mail", repo("two", {"src/mailer.py": MAILER})))
    with opened() as fleet:
        fleet.update()
        assert paths(fleet.search("send a reminder to who has not paid", 3))[0] == "mail/src/mailer.py"


def test_what_is_best_in_a_repository_that_does_not_answer_comes_after_what_answers(repo, settle, opened):
    others = [
        (f"other{n}", repo(f"other{n}", {"src/a.py": f"def other_{n}(item):\n    return item + {n}\n"}))
        for n in range(12)
    ]
    mailer = {
        "src/mailer.py": MAILER,
        "src/late.py": "def late():\n    '''Who has not paid a reminder.'''\n    return 1\n",
    }
    settle(*others, ("zz", repo("two", mailer)))
    with opened() as fleet:
        fleet.update()
        assert set(paths(fleet.search("send a reminder to who has not paid", 2))) == {
            "zz/src/mailer.py",
            "zz/src/late.py",
        }


def test_the_query_is_embedded_once_for_all_repositories(three, opened, embedder):
    with opened() as fleet:
        fleet.update()
        before = len(embedder.texts)
        fleet.search("parse an invoice")
        assert embedder.texts[before:] == ["parse an invoice"]


def test_forks_are_embedded_once_and_shown_once(repo, settle, opened, embedder):
    files = {"src/parser.py": PARSER, "src/mailer.py": MAILER}
    settle(("upstream", repo("up", files)), ("fork", repo("fork", {**files, "src/queue.py": QUEUE})))
    with opened() as fleet:
        report = fleet.update()
        assert report.chunks == 5
        assert len(embedder.texts) == len(set(embedder.texts)) == 3
        found = [p.path for p in fleet.search("parse_invoice", 10) if p.path.endswith("parser.py")]
        assert len(found) == 1
        alone = fleet.view(frozenset({"fork"})).search("parse_invoice", 1)
        assert paths(alone) == ["fork/src/parser.py"]


def test_a_renamed_repository_keeps_everything(three, settle, place, opened, embedder):
    with opened() as fleet:
        fleet.update()
        embedder.texts.clear()
        settle(("invoices", three["bills"]), ("mail", three["mail"]), ("work", three["work"]))
        report = fleet.update()
        assert (report.updated_files, report.embedded, embedder.texts) == (0, 0, [])
        assert paths(fleet.search("parse_invoice", 1)) == ["invoices/src/parser.py"]
        assert not fleet.has_path("bills/src/parser.py")
        assert fleet.has_path("invoices/src/parser.py")


def test_removing_a_repository_touches_no_other(three, settle, place, opened):
    with opened() as fleet:
        fleet.update()
        kept = {one.id for one in FleetSettings.read(place).repositories if one.name != "mail"}
        settle(("bills", three["bills"]), ("work", three["work"]))
        report = fleet.update()
        assert (report.files, report.updated_files) == (2, 0)
        assert "mail/src/mailer.py" not in paths(fleet.search("send_reminder", 10))
        assert fleet.search("parse_invoice", 1)[0].path == "bills/src/parser.py"
        client = fleet._members._commons
        names = {entry.name for entry in (place.state / "fleet").iterdir() if entry.is_dir()}
        assert names == kept | {"chroma"}
        from indexer.store import collection_names, open_client

        assert len(collection_names(open_client(client.chroma, None))) == 2
    assert three["mail"].is_dir()


def test_settings_that_are_empty_for_a_moment_delete_nothing(three, place, opened):
    with opened() as fleet:
        fleet.update()
        settings = place.settings_file.read_text()
        place.settings_file.write_text("")
        assert fleet.update().files == 0
        place.settings_file.write_text(settings)
        report = fleet.update()
        assert (report.files, report.updated_files) == (3, 0)
        place.settings_file.write_text("")
        fleet.reload(all_may_go=True)
        assert [entry.name for entry in (place.state / "fleet").iterdir() if entry.is_dir()] == ["chroma"]


def test_an_added_repository_comes_in_while_the_others_serve(three, settle, opened):
    settle(("bills", three["bills"]))
    with opened() as fleet, fleet.watch():
        fleet.update()
        settle(("bills", three["bills"]), ("mail", three["mail"]))
        assert fleet.update().files == 2
        assert fleet.has_path("mail/src/mailer.py")


def test_a_view_hides_all_but_its_repositories_from_every_question(three, opened):
    with opened() as fleet:
        fleet.update()
        view = fleet.view(frozenset({"bills", "unheard-of"}))
        hidden = "mail/src/mailer.py"
        assert {p.repository for p in view.search("send_reminder", 10)} <= {"bills"}
        assert view.search('"has not paid"') == []
        assert view.find_named("what does send_reminder() in mail/src/mailer.py do") == []
        assert view.find_named("mailer.py") == []
        assert [view.knows(name) for name in ("send_reminder", "mailer.py", "mail", "WorkQueue")] == [False] * 4
        assert view.knows("parse_invoice")
        assert [view.has_symbol("send_reminder"), view.has_path(hidden)] == [False, False]
        assert view.read(hidden) is None
        whole = fleet.search("send_reminder", 1)[0]
        assert fleet.is_current(whole.path, whole.start_line, whole.end_line, whole.sha256)
        assert not view.is_current(whole.path, whole.start_line, whole.end_line, whole.sha256)
        assert view.explain(hidden) == view.explain("nowhere/src/mailer.py").replace("nowhere", "mail")
        assert (view.last_changed(hidden), view.commit_of("mail")) == ("", "")
        assert (view.state().files, view.names) == (1, ("bills",))
        assert view.view(frozenset({"mail"})).names == ()
        shutil.rmtree(three["mail"])
        fleet.search("anything")
        assert (view.missing(), view.state().missing) == ((), ())


def test_a_hidden_repository_does_not_change_the_order_of_what_is_seen(three, repo, settle, opened):
    twice = {"a.py": "def alpha():\n    return 'invoice'\n", "b.py": "def beta():\n    return 'reminder reminder'\n"}
    settle(("seen", repo("seen", twice)))
    with opened() as fleet:
        fleet.update()
        alone = [(p.path, p.score) for p in fleet.search("invoice reminder", 5)]
        noise = {f"n{n}.py": f"def n{n}():\n    return 'reminder {n}'\n" for n in range(30)}
        settle(("seen", repo("seen", twice)), ("noise", repo("noise", noise)))
        fleet.update()
        view = fleet.view(frozenset({"seen"}))
        assert [(p.path, p.score) for p in view.search("invoice reminder", 5)] == alone


def test_a_repository_that_vanished_is_named_and_the_others_answer(three, opened):
    with opened() as fleet:
        fleet.update()
        shutil.rmtree(three["mail"])
        assert fleet.search("parse_invoice", 1)[0].path == "bills/src/parser.py"
        assert fleet.missing() == (f"mail: its folder {three['mail']} is gone: bring it back, or remove it",)
        assert fleet.state().missing == fleet.missing()
        report = fleet.update()
        assert (report.files, list(report.failed)) == (2, ["mail"])
        (three["mail"] / "src").mkdir(parents=True)
        (three["mail"] / "src" / "mailer.py").write_text(MAILER)
        assert paths(fleet.search("send_reminder", 1)) == ["mail/src/mailer.py"]
        assert fleet.missing() == ()


def test_a_repository_whose_index_cannot_be_opened_does_not_stop_the_others(three, place, opened):
    with opened() as fleet:
        fleet.update()
    broken = next(one for one in FleetSettings.read(place).repositories if one.name == "mail")
    shutil.rmtree(place.state / "fleet" / broken.id)
    (place.state / "fleet" / broken.id).write_text("no folder")
    with opened() as fleet:
        assert fleet.search("parse_invoice", 1)[0].path == "bills/src/parser.py"
        assert [line.partition(":")[0] for line in fleet.missing()] == ["mail"]


def test_unsaved_buffers_are_read_in_place_of_their_files(three, opened):
    with opened() as fleet:
        fleet.update()
        overlays = {"mail/src/mailer.py": "def post_a_letter(address):\n    return address\n"}
        assert fleet.search("post_a_letter", 1, overlays)[0].path == "mail/src/mailer.py"
        assert "send_reminder" not in "".join(p.text for p in fleet.search("send_reminder", 10, overlays))
        assert "post_a_letter" in fleet.find_named("mail/src/mailer.py", overlays)[0].text


def test_a_name_with_its_repository_in_front_is_looked_for_there_only(repo, settle, opened):
    settle(("a", repo("a", {"src/x.py": PARSER})), ("b", repo("b", {"src/x.py": MAILER})))
    with opened() as fleet:
        fleet.update()
        assert {p.repository for p in fleet.find_named("what is in b/src/x.py")} == {"b"}
        assert {p.repository for p in fleet.find_named("what is in src/x.py")} == {"a", "b"}
        assert [fleet.knows(name) for name in ("b/src/x.py", "b/src/y.py", "src/x.py")] == [True, False, True]


def test_a_change_is_seen_while_a_fleet_is_watched(three, opened):
    with opened() as fleet, fleet.watch():
        fleet.update()
        (three["mail"] / "src" / "new.py").write_text("def brand_new_name():\n    return 1\n")
        wait_until(lambda: "mail/src/new.py" in paths(fleet.search("brand_new_name", 3)))


def test_what_is_held_in_a_repository_or_in_the_fleet_is_not_read(three, place, opened):
    write_quarantine(Workspace(three["mail"]), Quarantine({"src/mailer.py": ""}))
    work = next(one for one in FleetSettings.read(place).repositories if one.name == "work").place(place)
    write_quarantine(work, Quarantine({"src/queue.py": ""}))
    with opened() as fleet:
        assert fleet.update().skipped == {"quarantined": 2}
        assert paths(fleet.search("send_reminder WorkQueue", 10)) == ["bills/src/parser.py"]


def test_what_is_held_stays_held_when_a_repository_goes_and_comes_back(three, settle, place, opened):
    mail = next(one for one in FleetSettings.read(place).repositories if one.name == "mail").place(place)
    write_quarantine(mail, Quarantine({"src/mailer.py": ""}))
    with opened() as fleet:
        fleet.update()
        settle(("bills", three["bills"]))
        fleet.update()
        settle(("bills", three["bills"]), ("letters", three["mail"]))
        assert fleet.update().skipped == {"quarantined": 1}


def test_a_damaged_chroma_is_built_anew_for_every_repository_and_nothing_is_embedded_again(
    three, place, opened, embedder
):
    with opened() as fleet:
        fleet.update()
    (place.state / "fleet" / "chroma" / "chroma.sqlite3").write_bytes(b"no database" * 1000)
    embedder.texts.clear()
    with opened() as fleet:
        fleet.search("parse_invoice")
        embedder.texts.clear()
        fleet.update()
        assert embedder.texts == []
        for name in fleet.names:
            parts = fleet._members._index(name)._parts
            assert parts.store.count() == parts.catalogue.count()[1] > 0
        assert fleet.search("parse_invoice", 1)[0].path == "bills/src/parser.py"
    assert (place.state / "fleet" / "quarantine" / "chroma").is_dir()


def test_a_second_process_cannot_open_the_fleet(three, opened):
    with opened(), pytest.raises(IndexUnavailable, match=r"has the index in .* open already"), opened():
        pass


@pytest.mark.parametrize(
    ("tables", "fault"),
    [
        ([("../up", "/srv")], r"repositories\.0\.name: .*'\.\./up' is no name"),
        ([("-rf", "/srv")], "is no name"),
        ([("App", "/srv")], "is no name"),
        ([("a" * 65, "/srv")], "is no name"),
        ([("", "/srv")], "is no name"),
        ([("a", "")], "is no source"),
        ([("a", "ext::sh -c id")], "is no source"),
        ([("a", "--upload-pack=id")], "is no source"),
        ([("a", "ssh://-oProxyCommand=id/x")], "is no source"),
        ([("a", "http://example.org/x.git")], "is no source"),
        ([("a", "git://example.org/x.git")], "is no source"),
        ([("a", "https://user:secret@example.org/x.git")], "no user and token"),
        ([("a", "https://ghp_token@example.org/x.git")], "no user and token"),
        ([("a", "/srv/a"), ("a", "/srv/b")], "two repositories have the name 'a'"),
        ([("a", "https://example.org/x"), ("b", "https://example.org/x.git")], "two repositories have the source"),
    ],
)
def test_a_bad_fleet_stops_the_start_with_one_line(tables, fault, settle, place):
    settle(*tables)
    with pytest.raises(BadSettings, match=fault) as caught:
        FleetSettings.read(place)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "ghp_" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    ["https://example.org/a/b.git", "ssh://git@example.org:22/a", "git@example.org:a/b.git", "file:///srv/a.git"],
)
def test_what_is_a_url_is_cloned(source, settle, place):
    settle(("a", source))
    assert FleetSettings.read(place).repositories[0].is_cloned


def test_an_unknown_field_of_a_repository_is_named(place):
    place.settings_file.write_text('[[fleet.repositories]]\nname = "a"\nsource = "/srv"\nbrnach = "main"\n')
    with pytest.raises(BadSettings, match=r"repositories\.0\.brnach"):
        FleetSettings.read(place)


def test_vectors_of_a_lone_query_pass_while_a_batch_is_embedded(three, opened):
    with opened() as fleet, fleet._members.embedder._lock:
        assert np.shape(fleet.embed(["one"])) == (1, 64)


def test_a_clone_is_shallow_follows_its_source_and_is_read(tmp_path, repo, settle, place, opened):
    source = repo("upstream", {"src/parser.py": PARSER})
    git(source, "init", "-q")
    git(source, "add", "-A")
    git(source, "commit", "-qm", "one")
    (source / "src" / "mailer.py").write_text(MAILER)
    git(source, "add", "-A")
    git(source, "commit", "-qm", "two")
    settle(("app", f"file://{source}"))
    one = FleetSettings.read(place).repositories[0]
    with opened() as fleet:
        assert list(fleet.update().failed.values()) == ["it is not cloned yet: run `nightschool fleet sync`"]
        folder = one.place(place).root
        assert bring_clone(one.source, folder, 60) == git(source, "rev-parse", "HEAD").strip()
        assert git(folder, "rev-list", "--count", "HEAD").strip() == "1"
        assert fleet.update().files == 2
        (source / "src" / "parser.py").write_text(QUEUE)
        git(source, "rm", "-q", "src/mailer.py")
        git(source, "commit", "-qam", "three")
        (folder / "src" / "litter.py").write_text("x = 1\n")
        assert bring_clone(one.source, folder, 60) == git(source, "rev-parse", "HEAD").strip()
        assert (fleet.update().files, fleet.read("app/src/parser.py")) == (1, QUEUE)
        assert fleet.commit_of("app") == git(source, "rev-parse", "HEAD").strip()
        assert fleet.last_changed("app/src/parser.py") == ""
    with pytest.raises(CannotFetch, match=r"git clone failed: .*nothing"):
        bring_clone(f"file://{tmp_path}/nothing", Path(tmp_path / "to"), 60)
    assert not (tmp_path / "to").exists()


def test_a_source_that_does_not_answer_is_given_up_with_all_that_git_started(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"https://127.0.0.1:{mute.getsockname()[1]}/mute.git"
        with pytest.raises(CannotFetch, match=r"^git clone took longer than \[fleet\] git_timeout_s = 1$"):
            bring_clone(url, tmp_path / "to", 1)
        running = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
        assert not [command for command in running if url in command]
    assert not (tmp_path / "to").exists()


@pytest.fixture
def on_a_cluster(monkeypatch, embedder):
    """What a fleet with a cluster asked it for: (repository, path) of each chunk; the embeddings are made here."""
    asked = []

    def embed(wanted, settings, keep, tell, log_file):
        for one in wanted:
            source = read_source(Workspace(Path(one.root)), one.path, settings)
            chunks = [chunk for chunk in describe(source).chunks if chunk.id in one.ids]
            asked.extend((Path(one.root).name, one.path) for _ in chunks)
            keep([embedded_text(chunk) for chunk in chunks], embedder.embed([embedded_text(chunk) for chunk in chunks]))
        return len(asked)

    monkeypatch.setattr("indexer.missing.embed_on_cluster", embed)
    monkeypatch.setattr("indexer.missing.WORTH_A_CLUSTER", 2)
    return asked


def test_a_cluster_embeds_what_all_of_them_miss_in_one_go_and_what_forks_share_once(
    repo, settle, place, embedder, on_a_cluster
):
    one = repo("one", {"src/parser.py": PARSER, "src/mailer.py": MAILER})
    settle(("one", one), ("fork", repo("fork", {"src/parser.py": PARSER, "src/queue.py": QUEUE})))
    with open_fleet(place, IndexerSettings(ray="local", embedder="a-transformer"), embedder) as fleet:
        stages = []
        report = fleet.update(lambda step: stages.append(step.stage))
        assert sorted(path for _, path in on_a_cluster) == ["src/mailer.py", "src/parser.py", "src/queue.py"]
        assert (report.embedded, report.failed, report.chunks, report.updated_files) == (3, {}, 4, 4)
        assert sorted(stage for stage in stages if "reading" in stage) == ["fork: reading", "one: reading"]  # once
        assert len(embedder.texts) == 3  # nothing was embedded here, and nothing twice
        assert paths(fleet.search("a class that holds what is to be done", 1)) == ["fork/src/queue.py"]


def test_where_no_cluster_answers_whoever_needs_it_says_so_and_the_words_are_found(
    repo, settle, place, embedder, monkeypatch
):
    def refuse(*_):
        raise ClusterUnavailable("no Ray cluster answers at local")

    monkeypatch.setattr("indexer.missing.embed_on_cluster", refuse)
    monkeypatch.setattr("indexer.missing.WORTH_A_CLUSTER", 2)
    settle(
        ("large", repo("one", {"src/parser.py": PARSER, "src/mailer.py": MAILER})),
        ("small", repo("s", {"q.py": QUEUE})),
    )
    with open_fleet(place, IndexerSettings(ray="local", embedder="a-transformer"), embedder) as fleet:
        report = fleet.update()
        assert report.failed == {"large": "no Ray cluster answers at local"}
        assert fleet.search("send_reminder", 1)[0].path == "large/src/mailer.py"
        assert fleet.search("WorkQueue", 1)[0].path == "small/q.py"


def test_only_what_is_among_the_best_of_all_is_read(three, opened, monkeypatch):
    """Whoever has nothing among them is asked for no chunk, and a name that is asked for is looked for everywhere."""
    monkeypatch.setattr("indexer.fleet_search.CANDIDATES", 1)
    monkeypatch.setattr("indexer.fleet_search.OTHERS", 1)
    with opened() as fleet:
        fleet.update()
        asked = Query("send a reminder to who has not paid")
        assert [one.repository for one in fleet._answered(asked, 10, {})] == ["mail"]
        assert len(fleet._answered(Query("WorkQueue"), 10, {})) == 3
        laid = {"bills": {"src/new.py": "def remind_of_invoices():\n    return 1\n"}}
        assert [one.repository for one in fleet._answered(asked, 10, laid)] == ["bills", "mail"]
