"""Commits and pull requests of a real history become documents, without GitHub."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.quarantine import Quarantine, write_quarantine
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from trainer.settings import TrainerSettings
from trainer.sources.commits import is_bot
from trainer.sources.documents import DocumentsReport, collect_documents
from trainer.sources.patches import FilePatch, read_git_diff
from trainer.sources.snapshot import take_snapshot

CODE = "def price(net):\n    return net * 1.19\n"


def collect(root: Path, commit: str = "HEAD", **settings: object) -> DocumentsReport:
    place = Workspace(root)
    snapshot = take_snapshot(place, IndexerSettings(), commit)
    return collect_documents(place, TrainerSettings(**settings), snapshot, lambda _: None)  # type: ignore[arg-type]


@pytest.fixture
def history(tmp_path: Path, make_git) -> tuple[Path, Callable[..., str]]:
    """A repository, and `commit(message, {path: text or bytes, None to delete}, author)`, the hash."""
    root = tmp_path / "shop"
    root.mkdir()
    make_git.git(root, "init", "--quiet")

    def commit(message: str, files: dict[str, str | bytes | None], author: str = "Ann <ann@example.org>") -> str:
        for path, content in files.items():
            file = root / path
            if content is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        make_git.git(root, "add", "--all")
        make_git.git(root, "commit", "--quiet", "--allow-empty", f"--author={author}", "--message", message)
        return make_git.git(root, "rev-parse", "HEAD")

    return root, commit


def test_a_commit_is_what_it_says_and_its_diff(history) -> None:
    root, commit = history
    commit("Begin with the price", {"price.py": CODE})
    message = "Round the price to cents\n\nThe é of 🙂 stays.\n\nSigned-off-by: Ann <ann@example.org>"
    sha = commit(message, {"price.py": CODE.replace("net * 1.19", "round(net * 1.19, 2)")})
    found = {document.source_id: document for document in collect(root).documents}
    told = found[f"commit:{sha}"]
    assert (told.kind, told.title, told.asked) == (
        "commit", "Round the price to cents", "Round the price to cents\n\nThe é of 🙂 stays.",
    )  # fmt: skip
    assert told.answered == (
        "--- a/price.py\n+++ b/price.py\n@@ -1,2 +1,2 @@\n def price(net):\n"
        "-    return net * 1.19\n+    return round(net * 1.19, 2)\n"
    )
    assert told.text.startswith(
        f"Commit {sha[:12]}: Round the price to cents\nDescription: The é of 🙂 stays.\nCommitted"
    )
    assert "File: price.py, Status: modified\nChanges: @@ -1,2 +1,2 @@\n def price" in told.text
    assert len(found) == 2


def test_a_squashed_pull_request_is_told_once(history) -> None:
    root, commit = history
    commit("Begin with the price", {"price.py": CODE})
    commit("Add a tax table (#12)\n\n* first\n* second", {"tax.py": "TAX = 19\n"})
    report = collect(root)
    (pull,) = [document for document in report.documents if document.kind == "pull-request"]
    assert (pull.source_id, pull.title, pull.asked) == (
        "pr:12", "Add a tax table", "Add a tax table\n\n* first\n* second",
    )  # fmt: skip
    assert pull.text.startswith("PR #12: Add a tax table\nDescription: * first\n* second\nMerged at: 20")
    assert "File: tax.py, Status: added\nChanges: @@ -0,0 +1 @@\n+TAX = 19\n" in pull.text
    assert report.counts == {"commit": 1, "pull-request": 1}
    assert report.left_out == {"commit of a pull request that is there whole": 1}


@pytest.mark.parametrize(
    "message",
    [
        "Merge pull request #7 from ann/tax\n\nAdd a tax table\n\nIt was time.",
        "Merge branch 'tax' into 'main'\n\nAdd a tax table\n\nIt was time.\n\nSee merge request shop/web!7",
        "Merged in tax (pull request #7)\n\nAdd a tax table\n\nIt was time.",
    ],
)
def test_a_merged_branch_is_one_pull_request_with_its_whole_diff(history, make_git, message: str) -> None:
    root, commit = history
    commit("Begin with the price", {"price.py": CODE})
    make_git.git(root, "checkout", "--quiet", "-b", "tax")
    commit("Add the table first", {"tax.py": "TAX = 19\n"})
    commit("Use the table then", {"price.py": "from tax import TAX\n"})
    make_git.git(root, "checkout", "--quiet", "main")
    make_git.git(root, "merge", "--quiet", "--no-ff", "--message", message, "tax")
    report = collect(root)
    (pull,) = [document for document in report.documents if document.kind == "pull-request"]
    assert (pull.source_id, pull.asked) == ("pr:7", "Add a tax table\n\nIt was time.")
    assert "+TAX = 19" in pull.answered
    assert "+from tax import TAX" in pull.answered
    assert report.counts == {"commit": 3, "pull-request": 1}
    write_quarantine(Workspace(root), Quarantine(sources={"pr:7": ""}))
    assert [document.asked for document in collect(root).documents] == ["Begin with the price"]


def test_what_is_not_source_is_left_out_of_diffs_and_counted(history) -> None:
    root, commit = history
    commit("Begin with the price", {"price.py": CODE, "old.py": "x = 1\n" * 9})
    files = {
        "price.py": CODE + "\n", "package-lock.json": "{}\n", "vendor/x.py": "x = 1\n", "logo.png": b"\x89PNG\0\1",
        "app.min.js": "var a\n", "gen.go": "// Code generated by x. DO NOT EDIT.\n", "latin.py": b"# caf\xe9\n",
        "one.js": "x" * 19_000 + "\n", "big.py": "value = 1\n" * 4_000, ".env": "A=1\n", "old.py": None,
        "new.py": "x = 1\n" * 9, "empty.py": "", "held/a.py": "x = 1\n", "drafts/b.py": "x = 1\n",
    }  # fmt: skip
    (root / ".nightschoolignore").write_text("drafts/\n.nightschoolignore\n")
    write_quarantine(Workspace(root), Quarantine(paths={"held": ""}))
    sha = commit("Change all at once", files)
    report = collect(root)
    told = next(document for document in report.documents if document.source_id == f"commit:{sha}")
    assert [line.removeprefix("+++ b/") for line in told.answered.split("\n") if line.startswith("+++")] == ["price.py"]
    assert [line for line in told.text.split("\n") if line.startswith("File: ")] == [
        "File: big.py, Status: added", "File: empty.py, Status: added", "File: gen.go, Status: added",
        "File: latin.py, Status: added", "File: logo.png, Status: added", "File: new.py, Status: renamed (from old.py)",
        "File: one.js, Status: added", "File: price.py, Status: modified",
    ]  # fmt: skip
    assert report.left_out == {
        ".nightschoolignore": 2, "diff too large": 1, "generated": 2, "lock file": 1, "minified": 1,
        "no diff (binary or too large)": 2, "not UTF-8": 1, "quarantined": 1, "secret by its name": 1, "vendored": 1,
    }  # fmt: skip


def test_bots_and_messages_that_say_nothing_are_left_out(history) -> None:
    root, commit = history
    commit("wip", {"a.py": "x = 1\n"})
    commit(
        "Bump x from 1 to 2", {"a.py": "x = 2\n"}, "dependabot[bot] <49699333+dependabot[bot]@users.noreply.github.com>"
    )
    commit("Bump y (#9)", {"a.py": "x = 3\n"}, "renovate-bot <bot@example.org>")
    commit("Nothing at all changes", {})
    assert collect(root).documents == ()
    # The pull request is looked at as one, and as a commit.
    assert collect(root).left_out == {"by a bot": 3, "message says nothing": 1}


@pytest.mark.parametrize(
    ("name", "bot"),
    [
        ("dependabot[bot]", True),
        ("Renovate Bot", True),
        ("codecov-commenter", True),
        ("Robot Smith", False),
        ("snyker", False),
    ],
)
def test_who_is_a_bot(name: str, bot: bool) -> None:
    assert is_bot(name) == bot


def test_a_history_in_other_languages_and_a_part_of_a_repository(history) -> None:
    root, commit = history
    commit("Aggiunge il calcolo dell'IVA (#1)", {"web/iva.py": "# è così\r\nIVA = 22\r\n", "other.py": "x = 1\n"})
    commit("税率 を 変更する", {"web/税.py": "税 = 10\n"})
    report = collect(root / "web")
    assert [document.title for document in report.documents] == ["税率 を 変更する", "Aggiunge il calcolo dell'IVA"]
    assert "+IVA = 22\r\n" in report.documents[1].answered
    assert "other.py" not in report.documents[1].text
    assert "File: 税.py, Status: added" in report.documents[0].text


def test_nothing_newer_than_the_snapshot_is_told(history) -> None:
    root, commit = history
    old = commit("Begin with the price", {"price.py": CODE})
    commit("Add a tax table (#12)", {"tax.py": "TAX = 19\n"})
    assert [document.source_id for document in collect(root, old).documents] == [f"commit:{old}"]


def test_the_same_history_gives_the_same_documents(history) -> None:
    root, commit = history
    for number in range(12):
        commit(f"Change number {number} (#{number})", {"a.py": f"x = {number}\n"})
    assert collect(root).documents == collect(root).documents
    few = collect(root, pull_requests=3, commits=2)
    assert [document.source_id for document in few.documents] == ["pr:10", "pr:11", "pr:9"]


def test_odd_names_are_obeyed_and_never_break_the_text(history) -> None:
    root, commit = history
    odd = ['q"uo\\te.py', "tab\there.py", "é 🙂.py", os.fsdecode(b"caf\xe9.py"), 'held"one.py']
    write_quarantine(Workspace(root), Quarantine(paths={'held"one.py': ""}))
    commit("Add files of odd names", dict.fromkeys(odd, "x = 1\n"))
    report = collect(root)
    (told,) = report.documents
    assert told.text.encode().count(b"\n+x = 1\n") == 3
    assert "+++ b/" + odd[0] in told.answered
    assert report.left_out == {"name is not UTF-8": 1, "quarantined": 1}


def test_names_in_a_git_diff_are_read_as_they_are() -> None:
    diff = (
        "diff --git a/a b.py b/a b.py\nindex 1..2 100644\n--- a/a b.py\t\n+++ b/a b.py\t\n"
        "@@ -1 +1 @@\n-diff --git a/x b/x\n+y\n"
        "diff --git a/run.sh b/run.sh\nold mode 100644\nnew mode 100755\n"
        "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n"
        "diff --git a/p.png b/p.png\nnew file mode 100644\nBinary files /dev/null and b/p.png differ\n"
    )
    assert read_git_diff(diff) == [
        FilePatch("a b.py", "modified", "@@ -1 +1 @@\n-diff --git a/x b/x\n+y\n"),
        FilePatch("run.sh", "modified", None),
        FilePatch("y", "renamed", None, "x"),
        FilePatch("p.png", "added", None),
    ]
