"""The repository's own pages as documents."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexer.quarantine import Quarantine, write_quarantine
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from trainer.settings import TrainerSettings
from trainer.sources.documentation import is_documentation, title_of
from trainer.sources.documents import DocumentsReport, collect_documents
from trainer.sources.snapshot import take_snapshot

LOCAL = TrainerSettings(pull_requests=0, commits=0)


def collect(root: Path, commit: str = "HEAD") -> DocumentsReport:
    place = Workspace(root)
    return collect_documents(place, LOCAL, take_snapshot(place, IndexerSettings(), commit), lambda _: None)


def test_each_page_is_a_document_with_its_title_and_last_change(git_workspace: tuple[Path, Callable[..., str]]) -> None:
    root, commit = git_workspace
    commit(1, {"README.md": "# The shop\n\nHello.\n", "docs/deploy.rst": "Deploying\n=========\n\nRun it.\n"})
    commit(2, {"docs/deploy.rst": "Deploying\n=========\n\nRun it twice.\n", "src/readers.py": "x = 1\n"})
    commit(3, {"docs/adr/0001-日本.md": "決定の記録です。\n", "docs/conf.py": "x = 1\n", "notes.md": "no page\n"})
    report = collect(root)
    assert [(d.source_id, d.kind, d.title, d.date.day) for d in report.documents] == [
        ("doc:README.md", "documentation", "The shop", 1),
        ("doc:docs/adr/0001-日本.md", "documentation", "0001-日本", 3),
        ("doc:docs/deploy.rst", "documentation", "Deploying", 2),
    ]
    assert report.documents[2].text == "Deploying\n=========\n\nRun it twice.\n"
    assert report.counts == {"documentation": 3}
    assert report.left_out == {}


def test_a_snapshot_of_the_past_has_the_pages_of_then(git_workspace: tuple[Path, Callable[..., str]]) -> None:
    root, commit = git_workspace
    old = commit(1, {"README.md": "# Old\n"})
    commit(2, {"README.md": "# New\n"})
    (page,) = collect(root, old).documents
    assert (page.title, page.date) == ("Old", datetime(2026, 11, 1, 12, tzinfo=UTC))


def test_without_git_the_pages_are_those_of_the_working_tree(tmp_path: Path) -> None:
    (tmp_path / "README").write_bytes(b"Plain\r\n")
    assert [document.title for document in collect(tmp_path).documents] == ["README"]


def test_a_quarantined_page_is_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("# A\n")
    (tmp_path / "README.md").write_text("# Readme\n")
    (tmp_path / "empty.md").write_text("")
    write_quarantine(Workspace(tmp_path), Quarantine(sources={"doc:docs/a.md": ""}))
    report = collect(tmp_path)
    assert [document.source_id for document in report.documents] == ["doc:README.md"]
    assert report.left_out == {"quarantined": 1}


@pytest.mark.parametrize(
    ("path", "is_page"),
    [
        ("README.md", True), ("README", True), ("sub/readme.rst", True), ("docs/a.txt", True), ("doc/1.adoc", True),
        ("readme.py", False), ("docs/conf.py", False), ("a.md", False),
        ("docs/requirements-dev.txt", False), ("docs/Makefile", False), ("a/news.ts", False),
    ],
)  # fmt: skip
def test_what_is_a_page(path: str, is_page: bool) -> None:
    assert is_documentation(path) == is_page


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("intro\n\n## Second\n", "Second"), ("*****\nOver\n*****\n", "Over"), ("= Ascii Doc\n", "Ascii Doc"),
        ("#+TITLE: Org\n", "Org"), ("h1. Textile\n", "Textile"), ("Title\r\n=====\r\n", "Title"),
        ("no title\n", "page"),
        ("# Città e `code` #\n", "Città e `code`"), ("", "page"),
    ],
)  # fmt: skip
def test_the_title_is_the_first_heading(text: str, title: str) -> None:
    assert title_of(text, "docs/page.md") == title
