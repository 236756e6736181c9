"""The tree changes, and the index follows by itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from indexer.quarantine import Quarantine, write_quarantine
from indexer.watch import Changes

DEADLINE_S = 20


def wait_until(what: Callable[[], bool]) -> float:
    """Seconds until `what` holds; fails at the deadline."""
    started = time.monotonic()
    while not what():
        assert time.monotonic() - started < DEADLINE_S, "not within the deadline"
        threading.Event().wait(0.01)
    return time.monotonic() - started


@pytest.fixture
def watched(write, index):
    write("kept.py", "def kept():\n    return 1\n")
    with index.watch():
        index.update()
        yield index


def paths_for(index, query):
    return {passage.path for passage in index.search(query, 5)}


def test_a_save_is_found_by_its_words(write, watched):
    write("new.py", "def zebra_crossing():\n    return 'é 🦓'\r\n")
    wait_until(lambda: "new.py" in paths_for(watched, "zebra_crossing"))


def test_an_atomic_save_is_seen_though_the_event_names_it_as_target(write, watched, workspace):
    staging = write(".new.py.tmp", "def quokka():\n    return 2\n")
    staging.replace(workspace.root / "kept.py")
    wait_until(lambda: paths_for(watched, "quokka") == {"kept.py"} and not watched.has_symbol("kept"))


def test_renames_deletes_and_new_folders_are_followed(write, watched, workspace, held, rebuilt):
    write("deep/er/est.py", "def walrus():\n    return 3\n")
    wait_until(lambda: watched.has_path("deep/er/est.py"))
    (workspace.root / "deep").rename(workspace.root / "flat")
    wait_until(lambda: watched.has_path("flat/er/est.py") and not watched.has_path("deep/er/est.py"))
    (workspace.root / "flat/er/est.py").rename(workspace.root / "flat/er/EST.py")
    wait_until(lambda: watched.has_path("flat/er/EST.py") and not watched.has_path("flat/er/est.py"))
    (workspace.root / "kept.py").unlink()
    wait_until(lambda: not watched.has_path("kept.py"))
    wait_until(lambda: watched.state().waiting_chunks == 0)
    assert held(watched) == rebuilt()


def test_a_checkout_of_a_thousand_files_is_followed(write, git, index, held, rebuilt):
    for number in range(1000):
        write(f"src/m{number % 40}/f{number}.py", f"def function_{number}():\n    return {number}\n")
    git("add", "."), git("commit", "-qm", "one")
    git("checkout", "-qb", "other")
    for number in range(0, 1000, 2):
        write(f"src/m{number % 40}/f{number}.py", f"def changed_{number}():\n    return {number}\n")
    git("rm", "-rq", "src/m1"), git("add", "."), git("commit", "-qm", "two")
    with index.watch():
        index.update()
        git("checkout", "-q", "main")
        wait_until(lambda: index.has_path("src/m1/f1.py") and not index.has_symbol("changed_998"))
        wait_until(lambda: index.state().waiting_chunks == 0 and held(index) == rebuilt())


def test_a_change_of_the_ignore_rules_is_followed(write, git, watched):
    write("secret_plan.py", "def plan():\n    return 4\n")
    wait_until(lambda: watched.has_path("secret_plan.py"))
    write(".nightschoolignore", "secret_*\n")
    wait_until(lambda: not watched.has_path("secret_plan.py"))


def test_a_watched_index_follows_the_quarantine(write, workspace, watched):
    write("a.py", "def okapi():\n    return 6\n")
    wait_until(lambda: watched.has_path("a.py"))
    write_quarantine(workspace, Quarantine(paths={"a.py": ""}))
    wait_until(lambda: not watched.has_path("a.py"))
    write_quarantine(workspace, Quarantine())
    wait_until(lambda: watched.has_path("a.py"))


def test_an_overflow_of_the_kernel_queue_ends_in_a_look_at_everything(watched, write, workspace):
    changes = watched._following._changes
    changes.on_any_event = lambda event: None  # the events that were lost
    write("lost.py", "def lost():\n    return 5\n")
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
    wait_until(lambda: watched.has_path("lost.py"))


def test_a_search_is_answered_by_words_while_the_embedder_is_busy(write, opened, embedder):
    busy = threading.Event()
    embed = embedder.embed
    embedder.embed = lambda texts: (texts[0].startswith("a.py") and busy.wait(DEADLINE_S), embed(texts))[1]
    write("a.py", "def okapi():\n    return 6\n")
    with opened() as index, index.watch():
        updating = threading.Thread(target=index.update)
        updating.start()
        try:
            wait_until(lambda: paths_for(index, "okapi") == {"a.py"})
            assert index.state().waiting_chunks == 1
        finally:
            busy.set()
            updating.join()
        assert index.state().waiting_chunks == 0


def test_many_events_come_as_one_batch(tmp_path):
    changes = Changes(tmp_path)
    for number in range(50):
        changes._note(tmp_path / f"f{number % 5}.py")
    changes._note(tmp_path / ".nightschool/index/x")
    changes._note(tmp_path / ".git/index")
    assert changes.take(1.0) == ([f"f{n}.py" for n in range(5)], True)
    assert changes.take(0.0) == (None, False)
    assert list(tmp_path.iterdir()) == []
