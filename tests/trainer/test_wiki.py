"""A real git wiki, made here, becomes documents; what cannot be had is said in a line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexer.quarantine import Quarantine
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from trainer.settings import TrainerSettings
from trainer.sources.documents import DocumentsReport, collect_documents
from trainer.sources.gathering import Gathering
from trainer.sources.snapshot import take_snapshot
from trainer.sources.wiki import WikiFailed, WikiSource, _authorised, find_wiki, gather_wiki

Wiki = tuple[Path, Callable[..., None]]


@pytest.fixture
def wiki(tmp_path: Path) -> Wiki:
    """An empty wiki, and `edit(day, {path: text})`."""
    root = tmp_path / "shop.wiki"
    subprocess.run(["git", "init", "-q", "-b", "master", str(root)], check=True)

    def edit(day: int, pages: dict[str, str | bytes]) -> None:
        for path, text in pages.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(text.encode() if isinstance(text, str) else text)
        date = {f"GIT_{who}_DATE": f"2026-11-{day:02}T12:00:00Z" for who in ("AUTHOR", "COMMITTER")}
        who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
        for command in (["add", "-A"], [*who, "commit", "-q", "-m", "Edit"]):
            subprocess.run(["git", *command], cwd=root, env={**os.environ, **date}, check=True)

    return root, edit


def gather(place: str, tmp_path: Path, **fields: object) -> Gathering:
    gathering = Gathering(**fields)  # type: ignore[arg-type]
    gather_wiki(WikiSource(place), tmp_path / "copy", "", gathering)
    return gathering


def test_each_page_is_a_document_with_its_name_and_last_change(wiki: Wiki, tmp_path: Path) -> None:
    root, edit = wiki
    edit(1, {"Home.md": "Welcome.\n", "Guida-alla-città.md": "# Città\n\nPerché è così. 🙂\r\n", "_Sidebar.md": "x\n"})
    edit(2, {"sub/日本語.asciidoc": "決定の記録です。\n", "logo.png": b"\x89PNG\0", "Home.md": "Welcome!\n"})
    edit(3, {"Latin.md": b"caf\xe9\n", "Empty.md": "", "uploads.txt.zip": b"PK"})
    found = gather(f"file://{root}", tmp_path)
    assert [(d.source_id, d.title, d.text, d.date.day) for d in found.documents] == [
        ("wiki:Guida-alla-città", "Guida alla città", "# Città\n\nPerché è così. 🙂\r\n", 1),
        ("wiki:Home", "Home", "Welcome!\n", 2),
        ("wiki:sub/日本語", "日本語", "決定の記録です。\n", 2),
    ]
    assert (found.left_out, found.notices) == ({"empty": 1, "not UTF-8": 1}, [])
    assert gather(str(root), tmp_path).documents == found.documents


def test_a_changed_wiki_is_fetched_again_and_a_lost_one_is_remembered(wiki: Wiki, tmp_path: Path) -> None:
    root, edit = wiki
    edit(1, {"Home.md": "Old.\n"})
    gather(f"file://{root}", tmp_path)
    edit(2, {"Home.md": "New.\n"})
    (tmp_path / "copy/refs/heads/pages.lock").touch()  # what a killed git leaves
    assert [document.text for document in gather(f"file://{root}", tmp_path).documents] == ["New.\n"]
    root.rename(tmp_path / "moved")
    found = gather(f"file://{root}", tmp_path)
    assert [document.text for document in found.documents] == ["New.\n"]
    (notice,) = found.notices
    assert notice.endswith("; the copy fetched before is used")


def test_a_fetch_that_was_killed_at_first_begins_anew(wiki: Wiki, tmp_path: Path) -> None:
    root, edit = wiki
    edit(1, {"Home.md": "Old.\n"})
    (tmp_path / ".copy.part").mkdir()
    (tmp_path / ".copy.part/HEAD").write_text("half")
    assert len(gather(f"file://{root}", tmp_path).documents) == 1


def test_a_wiki_of_the_past_has_the_pages_of_then(wiki: Wiki, tmp_path: Path) -> None:
    root, edit = wiki
    edit(2, {"Home.md": "Old.\n"})
    edit(5, {"Home.md": "New.\n", "Later.md": "Later.\n"})
    then = gather(f"file://{root}", tmp_path, until=datetime(2026, 11, 4, tzinfo=UTC))
    assert [(document.source_id, document.text) for document in then.documents] == [("wiki:Home", "Old.\n")]
    assert gather(f"file://{root}", tmp_path, until=datetime(2026, 11, 1, tzinfo=UTC)).documents == []


def test_a_folder_without_git_is_a_wiki_too(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "Home.md").write_text("Welcome.\n")
    (folder / "link.md").symlink_to("/etc/passwd")
    os.utime(folder / "Home.md", (86_400, 86_400))
    (page,) = gather(str(folder), tmp_path).documents
    assert (page.source_id, page.date) == ("wiki:Home", datetime(1970, 1, 2, tzinfo=UTC))


def test_a_quarantined_page_is_left_out(wiki: Wiki, tmp_path: Path) -> None:
    root, edit = wiki
    edit(1, {"Home.md": "Welcome.\n", "Passwords.md": "Not for all.\n"})
    found = gather(f"file://{root}", tmp_path, quarantine=Quarantine(sources={"wiki:Passwords": ""}))
    assert [document.source_id for document in found.documents] == ["wiki:Home"]
    assert found.left_out == {"quarantined": 1}


@pytest.mark.parametrize(
    ("place", "notice"),
    [
        ("file:///nowhere/shop.wiki.git", "wiki: it is not there, or private: set GITHUB_TOKEN"),
        ("/nowhere", "wiki: /nowhere is no folder and no URL of a git repository: look at [trainer] wiki"),
        ("ext::sh -c true", "wiki: ext::sh -c true is no folder and no URL"),
        ("--upload-pack=x", "wiki: --upload-pack=x is no folder and no URL"),
        ("http://127.0.0.1:9/x.wiki.git", "wiki: resume later: "),
    ],
)
def test_a_wiki_that_cannot_be_had_is_said(place: str, notice: str, tmp_path: Path) -> None:
    found = gather(place, tmp_path)
    assert (found.documents, len(found.notices)) == ([], 1)
    assert found.notices[0].startswith(notice), found.notices


def test_an_empty_wiki_is_said(wiki: Wiki, tmp_path: Path) -> None:
    assert gather(f"file://{wiki[0]}", tmp_path).notices == ["wiki: it has no page yet"]
    (tmp_path / "bare").mkdir()
    assert gather(str(tmp_path / "bare"), tmp_path).notices == ["wiki: it has no page to learn from"]


def test_the_wiki_of_a_repository_on_github_is_found() -> None:
    ours = "https://api.github.com"
    assert find_wiki("", "acme/shop", ours) is None
    assert find_wiki("github", "acme/shop", ours) == WikiSource(
        "https://github.com/acme/shop.wiki.git", "https://github.com/acme/shop/wiki"
    )
    corporate = find_wiki("github", "acme/shop", "https://git.corp.example/api/v3")
    assert corporate is not None
    assert corporate.place == "https://git.corp.example/acme/shop.wiki.git"
    with pytest.raises(WikiFailed, match="needs \\[trainer\\] github"):
        find_wiki("github", "", ours)


def test_a_token_goes_by_the_environment_and_over_https_only() -> None:
    url = "https://github.com/acme/shop.wiki.git"
    assert _authorised(url, "secret")["GIT_CONFIG_KEY_0"] == f"http.{url}.extraHeader"
    assert (_authorised("http://github.com/x", "secret"), _authorised(url, "")) == ({}, {})


def test_collect_reads_the_wiki_that_the_settings_name(wiki: Wiki, tmp_path: Path) -> None:
    root, edit = wiki
    edit(1, {"Home.md": "Welcome.\n"})
    (tmp_path / "work").mkdir()
    (tmp_path / "work/README.md").write_text("# Shop\n")
    place = Workspace((tmp_path / "work").resolve())
    settings = TrainerSettings(wiki=f"file://{root}")
    report: DocumentsReport = collect_documents(
        place, settings, take_snapshot(place, IndexerSettings()), lambda _: None
    )
    assert report.counts == {"documentation": 1, "wiki": 1}
    assert (place.state / "sources/wiki/HEAD").exists()
