"""What is held is not in the index, at once, and does not come back by itself."""

from __future__ import annotations

import pytest

from indexer.files import Skipped, source_files
from indexer.index import IndexUnavailable
from indexer.quarantine import BadQuarantine, Quarantine, read_quarantine, write_quarantine
from indexer.settings import IndexerSettings

HELD = Quarantine(paths={"src/private": "personal", "a.py": ""}, sources={"pr:7": "reverted"})


def test_a_held_path_holds_what_is_below_it_and_nothing_beside_it():
    paths = ["a.py", "src/private", "src/private/x/y.py", "src/privateer.py", "b/a.py", "src"]
    assert [path for path in paths if HELD.holds_path(path)] == paths[:3]


def test_a_held_pull_request_holds_its_reviews_and_a_held_path_its_page():
    ids = ["pr:7", "review:7#31", "doc:src/private/a.md", "file:a.py", "pr:71", "review:71#7", "commit:7", "wiki:7"]
    assert [source for source in ids if HELD.holds_source(source)] == ids[:4]


def test_a_held_file_is_skipped_with_its_reason(write, workspace):
    write("a.py", "x = 1\n")
    write("b.py", "x = 1\n")
    write_quarantine(workspace, Quarantine(paths={"a.py": ""}))
    judged = list(source_files(workspace, IndexerSettings()))
    assert [one for one in judged if isinstance(one, Skipped)] == [Skipped("a.py", "quarantined")]


def test_a_link_to_a_held_file_is_held_too(write, workspace):
    write("sub/a.py", "x = 1\n")
    (workspace.root / "link.py").symlink_to("sub/a.py")
    write_quarantine(workspace, Quarantine(paths={"sub": ""}))
    assert {type(one) for one in source_files(workspace, IndexerSettings())} == {Skipped}


def test_a_held_file_leaves_a_search_before_the_index_is_updated(write, workspace, index):
    write("a.py", "def okapi():\n    return 6\n")
    index.update()
    assert [passage.path for passage in index.search("okapi")] == ["a.py"]
    write_quarantine(workspace, Quarantine(paths={"a.py": ""}))
    assert index.search("okapi") == []
    assert index.search('"okapi"') == []
    assert index.search("okapi", overlays={"a.py": "def okapi():\n    return 7\n"}) == []
    report = index.update()
    assert (report.files, report.chunks, report.skipped) == (0, 0, {"quarantined": 1})
    assert index.explain("a.py") == "a.py: not in the index: quarantined"
    write_quarantine(workspace, Quarantine())
    assert index.update().files == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "paths": ["a"], "sources": {}}'])
def test_a_quarantine_that_cannot_be_read_lets_nothing_through(text, write, workspace, index):
    write("a.py", "x = 1\n")
    write_quarantine(workspace, HELD)
    (workspace.state / "quarantine.json").write_text(text)
    with pytest.raises(BadQuarantine, match=r"quarantine\.json cannot be read"):
        read_quarantine(workspace)
    with pytest.raises(IndexUnavailable, match=r"quarantine\.json cannot be read"):
        index.update()


def test_what_is_held_is_read_back_as_it_was(workspace):
    held = HELD.with_held("path", "é 🙂.py", "why").with_held("source", "wiki:Home").without("a.py")
    write_quarantine(workspace, held)
    assert read_quarantine(workspace) == held
    assert (workspace.state / "quarantine.json").stat().st_mode & 0o777 == 0o600
