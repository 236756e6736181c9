"""An index whose Chroma is a real server: shared, killed under load, full, lying, gone. Never a wrong answer."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from indexer.chroma_server import ChromaServer
from indexer.index import Index, open_index
from indexer.settings import IndexerSettings
from indexer.store import Store, open_client
from indexer.workspace import Workspace


def fill(root: Path, files: int = 6) -> None:
    for number in range(files):
        body = f"def function_{number}(argument):\n    return argument + {number}\n"
        (root / f"f{number}.py").write_text(body)


def rows(index: Index) -> dict[str, object]:
    """What the catalogue says that the store holds."""
    return {c.id: (c.text, c.path, c.start_line, c.end_line) for c in index._parts.catalogue.every_chunk()}


def until(predicate: Callable[[], bool], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not predicate():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def is_stored(index: Index) -> bool:
    store = index._parts.store
    return not index.state().waiting_chunks and not index.words_only() and store is not None


@pytest.fixture
def over(workspace: Workspace, embedder):
    """Opens the index of a workspace over the Chroma at an address."""
    return lambda address, place=workspace: open_index(place, IndexerSettings(chroma=address), embedder)


@pytest.fixture
def retry_at_once(monkeypatch):
    monkeypatch.setattr("indexer.following._FIRST_WAIT_S", 0.05)
    monkeypatch.setattr("indexer.following._LONGEST_WAIT_S", 0.05)


def test_what_is_indexed_over_a_server_is_found_and_stays_there(workspace, chroma, over):
    fill(workspace.root)
    with over(chroma.address) as index:
        report = index.update()
        assert (report.embedded, report.store_fault) == (6, "")
        assert index._parts.store.rows() == rows(index)
        assert index.search("function_3", 1)[0].path == "f3.py"
    assert not (workspace.state / "index/chroma").exists()
    with over(chroma.address) as index:
        assert index.update().embedded == 0
        assert index._parts.store is None or index._parts.store.rows() == rows(index)


def test_two_clones_that_start_on_an_empty_server_together_do_not_meet(chroma, over, workspace, tmp_path):
    """The second clone is a copy of the first, index and all: what one deletes must not be gone for the other."""
    fill(workspace.root)
    other = Workspace((tmp_path / "other").resolve())
    shutil.copytree(workspace.root, other.root)
    begin = threading.Barrier(2)
    found: dict[str, list[str]] = {}

    def work(place: Workspace) -> None:
        with over(chroma.address, place) as index:
            begin.wait(20)
            index.update()
            found[place.root.name] = [index.search(f"function_{n}", 1)[0].path for n in range(6)]
            assert index._parts.store.rows() == rows(index)

    run_together(work, [workspace, other])
    assert found == {"work": [f"f{n}.py" for n in range(6)], "other": [f"f{n}.py" for n in range(6)]}
    shutil.rmtree(other.root)
    shutil.copytree(workspace.root, other.root)
    (other.root / "f3.py").unlink()
    with over(chroma.address, other) as index:
        index.update()
        assert len(index._parts.store.rows()) == 5
    with over(chroma.address) as index:
        index.update()
        index.search("function_3")
        assert index._parts.store.rows() == rows(index)
        assert index.search("function_3", 1)[0].path == "f3.py"


def run_together(work, places) -> None:
    failed: list[BaseException] = []

    def guarded(place) -> None:
        try:
            work(place)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []


def test_killed_under_load_words_are_searched_with_a_notice_and_nothing_that_was_acknowledged_is_lost(
    workspace, chroma, over, retry_at_once
):
    fill(workspace.root, 200)
    stop, wrong, notices = threading.Event(), [], set()

    def ask(index: Index) -> None:
        number = 0
        while not stop.is_set():
            number = (number + 37) % 200
            before = index.words_only()
            paths = [passage.path for passage in index.search(f"function_{number}", 3)]
            notices.add(bool(before or index.words_only()))
            if f"f{number}.py" not in paths:
                wrong.append((number, paths, before, index.words_only()))

    with over(chroma.address) as index:
        index.update()
        with index.watch():
            clients = [threading.Thread(target=ask, args=(index,)) for _ in range(3)]
            for client in clients:
                client.start()
            until(lambda: is_stored(index))
            for round in range(3):
                write = threading.Thread(target=fill_more, args=(workspace.root, round))
                write.start()
                chroma.kill()
                until(lambda: index.words_only() != "")
                write.join()
                assert chroma.address in index.words_only()
                assert "\n" not in index.words_only()
                chroma.start()
                until(lambda n=round: is_stored(index) and index.has_path(f"more{n}_29.py"))
            stop.set()
            for client in clients:
                client.join()
            assert wrong == []
            assert notices == {True, False}
            until(lambda: is_stored(index))
            assert index._parts.store.rows() == rows(index)
            assert len(rows(index)) == 290


def fill_more(root: Path, round: int) -> None:
    for number in range(30):
        (root / f"more{round}_{number}.py").write_text(f"def more_{round}_{number}():\n    return {number}\n")


def test_a_server_that_lost_everything_is_filled_anew_from_the_cache(workspace, chroma, over, embedder, retry_at_once):
    fill(workspace.root)
    with over(chroma.address) as index, index.watch():
        index.update()
        until(lambda: is_stored(index))
        chroma.kill()
        shutil.rmtree(chroma.folder)
        chroma.start()
        assert index.search("function_2", 1)[0].path == "f2.py"
        until(lambda: is_stored(index))
        assert index._parts.store.rows() == rows(index)
    assert len(embedder.texts) == len(set(embedder.texts))


def test_a_server_that_is_not_there_at_the_start_is_said_and_words_are_found(workspace, chroma, over, retry_at_once):
    fill(workspace.root)
    chroma.kill()
    with over(chroma.address) as index:
        assert chroma.address in index.update().store_fault
        assert index.search("function_4", 1)[0].path == "f4.py"
    with over(chroma.address) as index, index.watch():
        assert index.update().files == 6
        assert index.search("function_4", 1)[0].path == "f4.py"
        chroma.start()
        until(lambda: is_stored(index))
        assert index._parts.store.rows() == rows(index)


@contextmanager
def answering(reply: Callable[[str], tuple[int, bytes]]) -> Iterator[str]:
    """A server that gives `reply` (path -> status, body) to everything; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, body = reply(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


GARBAGE = {
    "a page": lambda path: (200, b"<html>\n<h1>It works!</h1>\n</html>"),
    "nothing": lambda path: (200, b""),
    "bytes": lambda path: (200, b"\x00\xff\xfe"),
    "an empty object": lambda path: (200, b"{}"),
    "a list": lambda path: (200, b"[]"),
    "an error": lambda path: (500, b'{"error": "InternalError", "message": "database or disk is full"}'),
    "a page of an error": lambda path: (502, b"<html>\nBad Gateway\n" * 100),
    "a redirect": lambda path: (307, b""),
    "not found": lambda path: (404, b'{"error": "NotFoundError", "message": "no"}'),
    "an error behind a good start": lambda path: (200, b"{}") if "heartbeat" in path else (500, b"no"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_a_server_that_answers_garbage_is_said_in_one_line_and_words_are_found(name, workspace, over):
    fill(workspace.root)
    with answering(GARBAGE[name]) as address, over(address) as index:
        fault = index.update().store_fault
        assert (address in fault, "\n" in fault, len(fault) < 400) == (True, False, True)
        assert index.search("function_1", 1)[0].path == "f1.py"


@pytest.mark.parametrize(
    "found",
    [
        {"ids": [["x"]], "distances": [["near"]]},
        {"ids": [["x"]], "distances": [[]]},
        {"ids": [["x"]], "distances": [[float("nan")]]},
        {"ids": [["x", "y"]], "distances": [[0.0, 0.1]]},
        {"ids": []},
        {},
    ],
)
def test_a_server_whose_answers_to_searches_are_wrong_gives_no_wrong_passage(found, workspace, chroma, over):
    """All but its queries go to the real server."""
    fill(workspace.root)
    with over(chroma.address) as index:
        index.update()
        index.search("function_1")
        collection = index._parts.store._collection
        index._parts.store._collection = Liar(collection, found)
        assert index.search("function_1", 1)[0].path == "f1.py"
        assert {passage.path for passage in index.search("function_1")} <= {f"f{n}.py" for n in range(6)}
        if found.get("ids") != [["x", "y"]]:
            assert "query failed" in index.words_only()


class Liar:
    def __init__(self, collection, found) -> None:
        self._collection, self._found = collection, found

    def query(self, **_):
        return self._found

    def __getattr__(self, name):
        return getattr(self._collection, name)


def test_an_address_at_which_nobody_answers_holds_a_search_up_for_seconds_only(workspace, over):
    fill(workspace.root)
    with over("http://10.255.255.1:8000") as index:
        started = time.monotonic()
        assert "10.255.255.1" in index.update().store_fault
        assert index.search("function_1", 1)[0].path == "f1.py"
        assert time.monotonic() - started < 10


def test_a_full_disk_under_the_server_costs_no_answer_and_is_made_up_for(
    workspace, chroma, over, retry_at_once, tmp_path, embedder
):
    chroma.kill()
    with small_disk(chroma.folder) as make_room:
        chroma.start()
        fill(workspace.root)
        with over(chroma.address) as index, index.watch():
            index.update()
            until(lambda: is_stored(index))
            (chroma.folder / "filler").write_bytes(b"\0" * free_bytes(chroma.folder))
            fill(workspace.root, 300)
            index.update()
            until(lambda: "disk" in index.words_only() or index.state().waiting_chunks == 0)
            assert index.search("function_250", 1)[0].path == "f250.py"
            assert index.state().waiting_chunks > 0
            make_room()
            # chromadb 1.5.9, once in 14 runs: after a full disk it takes writes and never answers, until a restart.
            with suppress(AssertionError):
                until(lambda: is_stored(index), within_s=20)
            if not is_stored(index):
                chroma.kill()
                chroma.start()
            until(lambda: is_stored(index))
            assert index._parts.store.rows() == rows(index)
        assert len(embedder.texts) == len(set(embedder.texts))
        chroma.kill()


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here: that takes root")
    try:
        yield lambda: (folder / "filler").unlink()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_another_embedder_gets_a_collection_of_its_own_and_the_old_one_goes(workspace, chroma, over, embedder):
    fill(workspace.root)
    with over(chroma.address) as index:
        index.update()
        client, first = index._parts.store._client, index._parts.store.name
        assert [c.name for c in client.list_collections()] == [first]
    embedder.name = "words-64-new"
    with over(chroma.address) as index:
        assert index.update().embedded == 6
        client, second = index._parts.store._client, index._parts.store.name
        assert [c.name for c in client.list_collections()] == [second]
    assert first != second


def test_a_collection_that_is_gone_can_be_deleted_again(chroma, tmp_path):
    store = Store(open_client(tmp_path, ChromaServer(chroma.address)), "some-collection")
    store.delete()
    store.delete()
    store.close()
