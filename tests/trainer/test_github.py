"""Pull requests from a server that speaks GitHub's REST to the real PyGithub, with every way it can fail."""

from __future__ import annotations

import json
import logging
import random
import re
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from indexer.quarantine import Quarantine, write_quarantine
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from trainer.settings import TrainerSettings
from trainer.sources.documents import collect_documents
from trainer.sources.fetching import Wanted, fetch_pulls
from trainer.sources.gathering import Gathering
from trainer.sources.github import GithubPulls, Patience
from trainer.sources.github_token import URL_VARIABLE, BadToken, read_token
from trainer.sources.patches import DiffRules
from trainer.sources.pull_requests import gather_pulls, near_hunks
from trainer.sources.pulls import read_pull, read_pulls
from trainer.sources.snapshot import take_snapshot

TOKEN = "gh" + "p_" + "x1Y2" * 9
QUICK = Patience(max_wait_s=2, retries=4, backoff_s=0.01, pause_s=0, timeout_s=2)
REPO = "/repos/acme/shop"
Answer = tuple[int, dict[str, str], bytes]
Fault = Callable[[str], Answer | None]


def said(value: object, status: int = 200, **headers: str) -> Answer:
    return status, {name.replace("_", "-"): text for name, text in headers.items()}, json.dumps(value).encode()


def person(login: str = "ann", kind: str = "User") -> dict[str, str]:
    return {"login": login, "type": kind}


@dataclass
class Shop:
    """The repository as GitHub has it. `faults` may answer in its place, each until it gives None; `calls` are the
    paths that were asked for, with the status.
    """

    pulls: dict[int, dict[str, Any]] = field(default_factory=dict)
    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    comparisons: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, int]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def add(self, number: int, files: list[dict[str, Any]] | None = None, **fields: Any) -> None:
        day = f"2026-10-{number % 28 + 1:02}T12:00:00Z"
        files = files if files is not None else [changed("price.py", f"@@ -1 +1 @@\n-x = 0\n+x = {number}\n")]
        self.lists[f"{REPO}/pulls/{number}/files"] = files
        self.pulls[number] = {
            "number": number, "title": f"Change {number}", "html_url": f"https://github.com/acme/shop/pull/{number}",
            "body": f"Why {number}.", "created_at": day, "updated_at": day, "merged_at": day, "state": "closed",
            "user": person(), "author_association": "MEMBER", "head": {"sha": f"head{number}"},
            "changed_files": len(files), "comments": 0, "review_comments": 0, **fields,
        }  # fmt: skip

    def comment(self, number: int, where: str, **fields: Any) -> None:
        """`where`: issues (the conversation), pulls (at a line), or reviews."""
        path = f"{REPO}/pulls/{number}/reviews" if where == "reviews" else f"{REPO}/{where}/{number}/comments"
        items = self.lists.setdefault(path, [])
        when = {
            "submitted_at"
            if where == "reviews"
            else "created_at": f"2026-10-30T12:00:{sum(map(len, self.lists.values())):02}Z"
        }
        items.append({"id": 100 + len(items), "user": person(), "author_association": "OWNER", **when, **fields})
        name = {"issues": "comments", "pulls": "review_comments"}.get(where)
        if name:
            self.pulls[number][name] = len(items)

    def answer(self, path: str, query: dict[str, str], etag: str) -> Answer:
        if path == REPO:
            return said({"full_name": "acme/shop"})
        if path == f"{REPO}/pulls":
            items = [self.pulls[number] for number in sorted(self.pulls, reverse=True)]
            return self._page(path, items, query, etag)
        if found := re.fullmatch(rf"{REPO}/pulls/(\d+)", path):
            pull = self.pulls.get(int(found[1]))
            return said(pull) if pull else said({"message": "Not Found"}, 404)
        if found := re.fullmatch(rf"{REPO}/compare/(.+)", path):
            compared = self.comparisons.get(found[1])
            return said(compared) if compared else said({"message": "Not Found"}, 404)
        return self._page(path, self.lists.get(path, []), query, etag)

    def _page(self, path: str, items: list[dict[str, Any]], query: dict[str, str], etag: str) -> Answer:
        size, page = int(query.get("per_page", "30")), int(query.get("page", "1"))
        shown = items[(page - 1) * size : page * size]
        tag = f'"{hash(json.dumps(shown)):x}"'
        if etag == tag:
            return 304, {}, b""
        more = {"Link": f'<http://x{path}?page={page + 1}>; rel="next"'} if len(items) > page * size else {}
        return said(shown, ETag=tag, **more)


def changed(path: str, patch: str | None, status: str = "modified") -> dict[str, Any]:
    return {"filename": path, "status": status, **({"patch": patch} if patch is not None else {})}


@pytest.fixture
def shop() -> Iterator[tuple[Shop, str]]:
    """The repository, and the URL of its server."""
    there = Shop()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            there.tokens.append(self.headers.get("Authorization", ""))
            answer = next((a for fault in there.faults if (a := fault(self.path))), None)
            status, headers, body = answer or there.answer(parts.path, query, self.headers.get("If-None-Match", ""))
            there.calls.append((self.path, status))
            self.send_response(status)
            length = headers.pop("Length", str(len(body)))
            for name, text in headers.items():
                self.send_header(name, text)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(body)
            if length != str(len(body)):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield there, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Run:
    """One fetch: what `fetch_pulls` gave, what it said, what lies there, and which calls it took."""

    numbers: list[int] | None
    gathering: Gathering
    kept: list[int]
    calls: list[tuple[str, int]]


@pytest.fixture
def fetch(shop: tuple[Shop, str], tmp_path: Path) -> Callable[..., Run]:
    there, url = shop

    def run(count: int = 100, token: str = "", **wanted: Any) -> Run:
        gathering, folder = Gathering(), tmp_path / "pulls"
        settings = TrainerSettings(pull_requests=count, **wanted)
        there.calls.clear()
        with GithubPulls("acme/shop", url, token, QUICK) as github:
            numbers = fetch_pulls(github, folder, Wanted.by(settings, Quarantine()), gathering, lambda *_: None)
        kept = [pull.number for pull in read_pulls(folder, "acme/shop")]
        return Run(numbers, gathering, kept, list(there.calls))

    return run


def times(count: int, answer: Answer, path: str = "") -> Fault:
    """Gives `answer` to the first `count` calls whose path has `path` in it."""
    left = [count]

    def fault(asked: str) -> Answer | None:
        if path not in asked or left[0] == 0:
            return None
        left[0] -= 1
        return answer[0], dict(answer[1]), answer[2]

    return fault


def documents(folder: Path, workspace: Path, **settings: Any) -> Gathering:
    gathering = Gathering()
    wanted = Wanted.by(TrainerSettings(**settings), Quarantine())
    rules = DiffRules(Workspace(workspace), Quarantine())
    gather_pulls(read_pulls(folder, "acme/shop"), wanted, rules, gathering)
    return gathering


# What it gives


def test_a_pull_request_is_told_in_the_agreed_form(shop, fetch, tmp_path) -> None:
    there, _ = shop
    files = [changed("a.json", "@@ -0,0 +1 @@\n+{}", "added"), changed("logo.png", None, "added")]
    there.add(2989, files, title="Create devcontainer.json", body="So that é 🙂 works.\r\n<!-- template -->")
    there.comment(2989, "issues", body="Nice.")
    there.comment(2989, "pulls", body="Why empty?", path="a.json", original_line=1, diff_hunk="@@ -0,0 +1 @@\n+{}")
    there.comment(2989, "reviews", body="Looks good.")
    there.comment(2989, "reviews", body="")
    fetch()
    (document,) = documents(tmp_path / "pulls", tmp_path).documents
    assert document.text == (
        "PR #2989: Create devcontainer.json\n"
        "URL: https://github.com/acme/shop/pull/2989\n"
        "Description: So that é 🙂 works.\n"
        "Created at: 2026-10-22T12:00:00Z\n"
        "Merged at: 2026-10-22T12:00:00Z\n"
        "File: a.json, Status: added\n"
        "Changes: @@ -0,0 +1 @@\n+{}\n"
        "File: logo.png, Status: added\n"
        "Comment: Nice.\n"
        "Review comment on a.json, line 1: Why empty?\n"
        "Review: Looks good.\n"
    )
    assert (document.source_id, document.kind, document.date) == (
        "pr:2989", "pull-request", datetime(2026, 10, 22, 12, tzinfo=UTC),
    )  # fmt: skip
    assert document.asked == "Create devcontainer.json\n\nSo that é 🙂 works."
    assert document.answered == "--- /dev/null\n+++ b/a.json\n@@ -0,0 +1 @@\n+{}\n"


def test_what_was_merged_after_the_snapshot_is_not_told(shop, fetch, tmp_path) -> None:
    there, _ = shop
    there.add(1, merged_at="2026-10-02T12:00:00Z")
    there.add(2, merged_at="2026-10-02T12:00:01Z")
    fetch()
    gathering = Gathering(until=datetime(2026, 10, 2, 12, tzinfo=UTC))
    rules = DiffRules(Workspace(tmp_path), Quarantine())
    pulls = read_pulls(tmp_path / "pulls", "acme/shop")
    gather_pulls(pulls, Wanted.by(TrainerSettings(), Quarantine()), rules, gathering)
    assert [document.source_id for document in gathering.documents] == ["pr:1"]
    assert gathering.left_out == {"newer than the snapshot": 1}


def test_a_review_comment_is_answered_by_the_change_that_followed(shop, fetch, tmp_path) -> None:
    there, _ = shop
    there.add(5)
    at = {"path": "price.py", "original_line": 3, "diff_hunk": "@@ -1 +1 @@\n+x = 1", "original_commit_id": "old"}
    there.comment(5, "pulls", body="Round it.", **at)
    there.comment(5, "pulls", body="Done.", in_reply_to_id=100, **at)
    there.comment(5, "pulls", body="Name it.", **{**at, "path": "other.py"})
    there.comment(5, "pulls", body="I was here.", **at, author_association="NONE")
    there.comment(5, "pulls", body="Rebased since.", **{**at, "original_commit_id": "lost"})
    patch = "@@ -1,3 +1,3 @@\n a\n b\n-x = 1\n+x = round(1)\n@@ -90 +90 @@\n-far\n+away"
    there.comparisons["old...head5"] = {"status": "ahead", "files": [changed("price.py", patch)]}
    fetch()
    found = documents(tmp_path / "pulls", tmp_path)
    (review,) = [document for document in found.documents if document.kind == "review"]
    assert review.source_id == "review:5#100"
    assert review.asked == "File: price.py, line 3\n@@ -1 +1 @@\n+x = 1\n\nRound it."
    assert review.answered == "--- a/price.py\n+++ b/price.py\n@@ -1,3 +1,3 @@\n a\n b\n-x = 1\n+x = round(1)\n"
    assert found.left_out == {"comment by nobody trusted": 1, "review that no change followed": 2}


def test_the_hunks_near_a_comment_are_its_answer() -> None:
    patch = "@@ -1,2 +1 @@\n-a\n-b\n+c\n@@ -40 +39 @@\n-d\n+e\n"
    assert near_hunks(patch, 12) == "@@ -1,2 +1 @@\n-a\n-b\n+c\n"
    assert near_hunks(patch, 50) == "@@ -40 +39 @@\n-d\n+e\n"
    assert (near_hunks(patch, 25), near_hunks("", 3), near_hunks(patch, 0)) == ("", "", patch)


def test_only_merged_ones_by_people_of_the_project_are_fetched(shop, fetch) -> None:
    there, _ = shop
    there.add(1)
    there.add(2, merged_at=None)
    there.add(3, author_association="CONTRIBUTOR")
    there.add(4, user=person("dependabot[bot]", "Bot"))
    there.add(5, user=None, author_association="NONE")
    run = fetch()
    assert (run.numbers, run.kept) == ([1], [1])
    assert run.gathering.left_out == {
        "pull request by a bot": 1, "pull request by nobody trusted": 2, "pull request not merged": 1,
    }  # fmt: skip
    every = fetch(trusted=("MEMBER", "CONTRIBUTOR", "NONE"), merged_only=False)
    assert (every.numbers, every.gathering.notices) == ([5, 3, 2, 1], [])


def test_halves_of_surrogate_pairs_are_stripped(shop, fetch, tmp_path) -> None:
    there, _ = shop
    there.add(1, [changed("a\ud800.py", "@@ -1 +1 @@\n-a\n+b\ud800", "mod\udc00")], title="T\ud800", html_url="h\ud800")
    there.comment(1, "issues", body="C\udfff")
    fetch()
    (document,) = documents(tmp_path / "pulls", tmp_path).documents
    assert "+b\nComment: C\n" in document.text.encode().decode()


def test_a_deleted_user_and_a_bot_that_comment_do_no_harm(shop, fetch, tmp_path) -> None:
    there, _ = shop
    there.add(1, user=None)
    there.comment(1, "issues", body="Gone since.", user=None)
    there.comment(1, "issues", body="Coverage: 3%", user=person("codecov[bot]", "Bot"))
    there.comment(1, "issues", body=None)
    fetch()
    (document,) = documents(tmp_path / "pulls", tmp_path).documents
    assert document.text.split("\n")[-2] == "Comment: Gone since."
    assert "Coverage" not in document.text


# Paging, and nothing twice


def test_the_last_ones_are_found_over_many_pages(shop, fetch) -> None:
    there, _ = shop
    for number in range(1, 251):
        there.add(number, [], author_association="NONE" if number % 10 else "MEMBER")
    run = fetch(count=20)
    assert run.numbers == run.kept == list(range(250, 50, -10))


def test_a_list_that_shifts_while_it_is_read_gives_nothing_twice(shop, fetch) -> None:
    there, _ = shop
    for number in range(1, 131):
        there.add(number, [], merged_at=None if number % 10 else "2026-10-01T12:00:00Z")

    def push(path: str) -> None:
        if "page=2" in path and "/pulls?" in path and 131 not in there.pulls:
            there.add(131, [])

    there.faults.append(push)
    run = fetch(count=500)
    assert (run.numbers, run.gathering.left_out) == (list(range(130, 0, -10)), {"pull request not merged": 117})
    assert fetch(count=500).numbers == [131, *range(130, 0, -10)]


def test_nothing_is_fetched_twice(shop, fetch) -> None:
    there, _ = shop
    for number in (1, 2, 3):
        there.add(number)
    fetch()
    assert fetch().calls == [
        (REPO, 200),
        (f"{REPO}/pulls?direction=desc&page=1&per_page=100&sort=created&state=all", 304),
    ]
    there.pulls[2]["updated_at"] = "2026-11-01T00:00:00Z"
    there.add(4)
    run = fetch()
    assert (run.numbers, run.kept) == ([4, 3, 2, 1], [4, 3, 2, 1])
    assert {int(n) for path, _ in run.calls for n in re.findall(r"/pulls/(\d+)", path)} == {2, 4}


def test_a_pull_request_of_three_thousand_files_is_told_by_its_first(shop, fetch, tmp_path) -> None:
    there, _ = shop
    there.add(1, [changed(f"src/f{number}.py", "@@ -1 +1 @@\n-a\n+b") for number in range(3_000)])
    run = fetch()
    assert [path for path, _ in run.calls if "/files" in path][-1].startswith(f"{REPO}/pulls/1/files?page=3")
    found = documents(tmp_path / "pulls", tmp_path)
    assert found.documents[0].text.count("\nFile: ") == 300
    assert found.left_out == {"file beyond the first 300 of a pull request": 2_700}


def test_huge_generated_and_hidden_diffs_are_named_or_left_out(shop, fetch, tmp_path) -> None:
    there, _ = shop
    patch = "@@ -1 +1 @@\n-a\n+b"
    there.add(1, [
        changed("big.py", "@@ -0,0 +1,9 @@\n" + "+value = 1\n" * 3_000), changed("yarn.lock", patch),
        changed(".env", patch), changed("node_modules/a.js", patch), changed("app.min.js", patch),
        changed("a.py", "@@ -1 +1 @@\n-a\n+\u202eb\u200b"),
    ])  # fmt: skip
    fetch()
    assert all(
        file.patch is None for file in read_pull(tmp_path / "pulls", 1).files if file.path in (".env", "yarn.lock")
    )
    found = documents(tmp_path / "pulls", tmp_path)
    (document,) = found.documents
    assert [line for line in document.text.split("\n") if line.startswith("File")] == [
        "File: big.py, Status: modified", "File: a.py, Status: modified",
    ]  # fmt: skip
    assert (document.answered, document.stripped) == ("--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-a\n+b\n", 2)
    assert found.left_out == {
        "diff too large": 1, "generated": 1, "lock file": 1, "secret by its name": 1, "vendored": 1,
    }  # fmt: skip


# Failures that pass


RESET_SOON = str(int(time.time()) + 1)


@pytest.mark.parametrize(
    ("count", "answer"),
    [
        (3, said({}, 500)),
        (2, said({}, 502)),
        (1, said({"message": "x"}, 429, Retry_After="1")),
        (2, said({"message": "x"}, 429)),
        (1, said({"message": "You have exceeded a secondary rate limit."}, 403, Retry_After="1")),
        (1, (200, {"Length": "400"}, b'[{"number": 1')),
        (1, (200, {}, b'{"number": 1, "tit')),
        (1, (200, {}, b"<html>proxy</html>")),
        (1, said({"unexpected": True})),
    ],
)
@pytest.mark.parametrize("path", ["/pulls?", "/pulls/1/files"])
def test_a_failure_that_passes_is_waited_out(count: int, answer: Answer, path: str, shop, fetch) -> None:
    there, _ = shop
    there.add(1)
    there.faults.append(times(count, answer, path))
    run = fetch()
    assert (run.kept, run.gathering.notices) == ([1], [])
    assert len(run.calls) > 5 - (path == "/pulls?")


def test_a_primary_limit_that_ends_soon_is_waited_out(shop, fetch) -> None:
    there, _ = shop
    there.add(1)
    soon = str(int(time.time()) + 1)
    limit = {"message": "API rate limit exceeded for x."}
    there.faults.append(times(1, said(limit, 403, X_RateLimit_Remaining="0", X_RateLimit_Reset=soon), "/pulls?"))
    assert (fetch().kept, there.calls[1][1]) == ([1], 403)


# Failures that do not


def later(hours: float = 1) -> str:
    return str(int(time.time() + 3600 * hours))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            said(
                {"message": "API rate limit exceeded for x."}, 403, X_RateLimit_Remaining="0", X_RateLimit_Reset=later()
            ),
            r"resume later: GitHub's rate limit until \d\d:\d\d UTC; a token \(GITHUB_TOKEN\) raises it",
        ),
        (
            said({"message": "x"}, 429, X_RateLimit_Remaining="0", X_RateLimit_Reset=later()),
            r"resume later: GitHub's rate limit until \d\d:\d\d UTC",
        ),
        (said({"message": "x"}, 429, Retry_After="3600"), r"resume later: GitHub's rate limit until \d\d:\d\d UTC"),
        (
            said({"message": "You have exceeded a secondary rate limit."}, 403),
            r"resume later: GitHub's rate limit until \d\d:\d\d UTC",
        ),
        (
            said({"message": "You have exceeded a secondary rate limit."}, 403, Retry_After="600"),
            r"resume later: GitHub's rate limit until \d\d:\d\d UTC",
        ),
        (said({"message": "x"}, 429), r"resume later: GitHub's rate limit \(429\)"),
        (said({"message": "x"}, 503), r"resume later: GitHub answers 503"),
        (said({"message": "Bad credentials"}, 401), r"does not accept the token \(it may have expired\)"),
        (
            said({"message": "Resource not accessible by personal access token"}, 403),
            r"refuses \(403\): Resource not acc",
        ),
    ],
)
def test_a_failure_that_stays_ends_at_once_and_the_next_run_goes_on(answer: Answer, text: str, shop, fetch) -> None:
    there, _ = shop
    for number in (1, 2, 3):
        there.add(number)
    there.faults.append(times(99, answer, "/pulls/2/files"))
    began = time.monotonic()
    run = fetch()
    assert time.monotonic() - began < 10
    assert run.kept == [3]
    (notice,) = run.gathering.notices
    assert re.search(text, notice), notice
    there.faults.clear()
    run = fetch()
    assert (run.kept, run.gathering.notices) == ([3, 2, 1], [])
    assert not [path for path, _ in run.calls if "/pulls/3" in path]


@pytest.mark.parametrize(
    "answer",
    [(200, {}, b'[{"number": 1'), said([{"no": "name"}])],
)
def test_a_broken_answer_for_one_does_not_keep_the_others_away(answer: Answer, shop, fetch) -> None:
    there, _ = shop
    for number in (1, 2, 3):
        there.add(number)
    there.faults.append(times(99, answer, "/pulls/2/files"))
    run = fetch()
    assert run.kept == [3, 1]
    (notice,) = run.gathering.notices
    assert notice.startswith(
        "pull request 2: resume later: GitHub's answer for /repos/acme/shop/pulls/2/files is broken"
    )
    there.faults.clear()
    assert fetch().kept == [3, 2, 1]


@pytest.mark.parametrize(
    ("token", "text"),
    [("", "it is private: set GITHUB_TOKEN"), (TOKEN, "the token may not read it")],
)
def test_a_repository_that_is_not_there_or_private_is_said(token: str, text: str, shop, fetch) -> None:
    there, _ = shop
    there.faults.append(times(9, said({"message": "Not Found"}, 404)))
    run = fetch(token=token)
    assert (run.numbers, run.kept, len(run.calls)) == (None, [], 1)
    (notice,) = run.gathering.notices
    assert notice.startswith("pull requests: GitHub shows no acme/shop: there is none of this name, or " + text)


def test_a_server_that_is_not_there_is_said(fetch, shop, tmp_path) -> None:
    gathering = Gathering()
    wanted = Wanted.by(TrainerSettings(), Quarantine())
    with GithubPulls("acme/shop", "http://127.0.0.1:9", TOKEN, QUICK) as github:
        assert fetch_pulls(github, tmp_path / "pulls", wanted, gathering, lambda *_: None) is None
    (notice,) = gathering.notices
    assert notice.startswith("pull requests: resume later: GitHub is not reached")


def test_a_renamed_repository_is_followed_on_every_page(shop, fetch) -> None:
    there, url = shop
    for number in range(1, 151):
        there.add(number, [], merged_at=None if number % 10 else "2026-10-01T12:00:00Z")

    def moved(path: str) -> Answer | None:
        if path == REPO:
            return said({"message": "Moved Permanently"}, 301, Location=f"{url}/repositories/7")
        return said({"full_name": "acme/shop"}) if path == "/repositories/7" else None

    there.faults.append(moved)
    run = fetch(count=500)
    assert run.numbers == list(range(150, 0, -10))
    assert "page=2" in run.calls[3][0]


def test_a_redirect_to_another_host_is_refused_and_the_token_stays(shop, fetch) -> None:
    there, _ = shop
    there.faults.append(times(9, said({}, 301, Location="http://localhost:1/elsewhere")))
    run = fetch(token=TOKEN)
    assert (run.numbers, len(run.calls)) == (None, 1)
    assert "GitHub sends us elsewhere, which is not followed" in run.gathering.notices[0]


def test_a_loop_of_redirects_ends(shop, fetch) -> None:
    there, url = shop
    there.faults.append(lambda path: said({}, 301, Location=f"{url}{path}x"[:900]))
    run = fetch()
    assert (len(run.calls), run.gathering.notices[0][:56]) == (
        3,
        "pull requests: GitHub sends us from place to place for a",
    )


def test_a_pull_request_that_is_gone_does_not_stop_the_others(shop, fetch) -> None:
    there, _ = shop
    for number in (1, 2, 3):
        there.add(number)
    there.faults.append(times(9, said({"message": "Gone"}, 410), "/pulls/2"))
    run = fetch()
    assert (run.kept, run.gathering.left_out["pull request gone"]) == ([3, 1], 1)


def test_the_token_is_sent_and_never_told(shop, fetch, tmp_path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    there, _ = shop
    there.add(1, title=f"Use {TOKEN}")
    there.faults.append(times(1, said({"message": f"Bad {TOKEN}"}, 500)))
    run = fetch(token=TOKEN)
    assert set(there.tokens) == {f"token {TOKEN}"}
    assert run.kept == [1]
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("trainer", "indexer"))]
    sent = [record.getMessage() for record in caplog.records if f"token {TOKEN}" in record.getMessage()]
    assert (sent, [line for line in ours if TOKEN in line]) == ([], [])
    assert not [file for file in (tmp_path / "pulls").iterdir() if TOKEN in file.read_text()]


def test_a_fetch_that_is_killed_goes_on_where_it_was(shop, fetch, tmp_path) -> None:
    there, url = shop
    for number in (1, 2, 3):
        there.add(number)
    reached, go_on = threading.Event(), threading.Event()

    def hold(path: str) -> None:
        if "/pulls/2/files" in path:
            reached.set()
            go_on.wait(30)

    there.faults.append(hold)
    code = (
        "from pathlib import Path; from trainer.settings import TrainerSettings\n"
        "from indexer.quarantine import Quarantine; from trainer.sources.gathering import Gathering\n"
        "from trainer.sources.fetching import Wanted, fetch_pulls; from trainer.sources.github import GithubPulls\n"
        f"github = GithubPulls('acme/shop', {url!r}); wanted = Wanted.by(TrainerSettings(), Quarantine())\n"
        f"fetch_pulls(github, Path({str(tmp_path / 'pulls')!r}), wanted, Gathering(), lambda *_: None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) as process:
        assert reached.wait(30)
        process.kill()
    there.faults.clear()
    go_on.set()
    run = fetch()
    assert (run.kept, run.gathering.notices) == ([3, 2, 1], [])
    assert not [path for path, _ in run.calls if "/pulls/3" in path]


def test_an_enterprise_server_is_asked_below_its_own_path(shop, tmp_path) -> None:
    there, url = shop
    there.add(1)

    def below(path: str) -> Answer | None:
        parts = urlsplit(path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        return there.answer(parts.path.removeprefix("/api/v3"), query, "") if path.startswith("/api/v3/") else None

    there.faults.append(below)
    with GithubPulls("acme/shop", f"{url}/api/v3", TOKEN, QUICK) as github:
        wanted = Wanted.by(TrainerSettings(), Quarantine())
        assert fetch_pulls(github, tmp_path / "pulls", wanted, Gathering(), lambda *_: None) == [1]
    assert {path.split("/")[1] for path, _ in there.calls} == {"api"}


# The token


def test_a_token_comes_from_the_environment_or_a_private_file(tmp_path: Path) -> None:
    assert read_token(TrainerSettings(), {}) == ""
    assert read_token(TrainerSettings(), {"GITHUB_TOKEN": f" {TOKEN}\n"}) == TOKEN
    assert read_token(TrainerSettings(github_token_variable="SHOP_TOKEN"), {"SHOP_TOKEN": TOKEN}) == TOKEN
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert read_token(TrainerSettings(github_token_file=str(file)), {}) == TOKEN
    file.chmod(0o640)
    with pytest.raises(BadToken, match="chmod 600"):
        read_token(TrainerSettings(github_token_file=str(file)), {})
    file.unlink()
    with pytest.raises(BadToken, match="cannot be read"):
        read_token(TrainerSettings(github_token_file=str(file)), {})


@pytest.mark.parametrize(
    ("url", "environment", "fault"),
    [
        ("https://evil.example/api/v3", {}, "only nightschool.toml names it"),
        ("https://github.corp.example/api/v3", {URL_VARIABLE: "https://github.corp.example/api/v3"}, ""),
        (
            "http://github.corp.example/api/v3",
            {URL_VARIABLE: "http://github.corp.example/api/v3"},
            "without encryption",
        ),
        ("http://api.github.com", {}, "without encryption"),
        ("https://api.acme.ghe.com", {}, ""),
        ("https://api.github.com.evil.example", {}, "only nightschool.toml names it"),
    ],
)
def test_a_token_goes_where_the_user_said_and_never_in_the_clear(url: str, environment: dict, fault: str) -> None:
    settings = TrainerSettings(github_url=url)
    if not fault:
        assert read_token(settings, {"GITHUB_TOKEN": TOKEN, **environment}) == TOKEN
        return
    with pytest.raises(BadToken, match=fault):
        read_token(settings, {"GITHUB_TOKEN": TOKEN, **environment})


def test_what_is_no_token_is_not_sent() -> None:
    with pytest.raises(BadToken, match="no token") as error:
        read_token(TrainerSettings(), {"GITHUB_TOKEN": "-----BEGIN KEY-----\nabc"})
    assert "abc" not in str(error.value)


# Kept on this machine


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 9}'])
def test_a_damaged_file_is_fetched_anew(text: str, shop, fetch, tmp_path) -> None:
    there, _ = shop
    there.add(1)
    there.add(2)
    fetch()
    (tmp_path / "pulls/1.json").write_text(text)
    (tmp_path / "pulls/listing.json").write_text(text)
    run = fetch()
    assert run.kept == [2, 1]
    assert not [path for path, _ in run.calls if "/pulls/2" in path]


def test_a_quarantined_pull_request_is_neither_fetched_nor_told(shop, tmp_path) -> None:
    there, url = shop
    there.add(1)
    there.add(2)
    place = Workspace(tmp_path)
    write_quarantine(place, Quarantine(sources={"pr:2": ""}))
    gathering = Gathering(Quarantine(sources={"pr:2": ""}))
    wanted = Wanted.by(TrainerSettings(), gathering.quarantine)
    with GithubPulls("acme/shop", url, "", QUICK) as github:
        assert fetch_pulls(github, place.pulls, wanted, gathering, lambda *_: None) == [1]
    assert gathering.left_out == {"pull request quarantined": 1}
    assert not (place.pulls / "2.json").exists()


def test_when_a_limit_ends_is_told_in_utc(shop, fetch) -> None:
    there, _ = shop
    there.add(1)
    there.faults.append(times(9, said({"message": "x"}, 429, Retry_After="7200"), "/pulls?"))
    (notice,) = fetch(token=TOKEN).gathering.notices
    times_near = {f"{datetime.now(UTC) + timedelta(seconds=7200 + off):%H:%M} UTC" for off in (-60, 0, 60)}
    assert any(when in notice for when in times_near), notice
    assert "GITHUB_TOKEN" not in notice


# Secrets, everywhere


def made_of(alphabet: str, count: int) -> str:
    return "".join(_DICE.choice(alphabet) for _ in range(count))


_DICE = random.Random(11)
LETTERS, HEX, DIGITS = string.ascii_letters + string.digits, "0123456789abcdef", string.digits
UPPER, LOWER = string.ascii_uppercase + "234567", string.ascii_letters
# Put together here, so that no scanner of this repository finds one. The part that must appear nowhere is the second.
CANARIES = {
    "aws-access-key": ("", "AK" + "IA" + made_of(UPPER, 16)),
    "aws-secret-key": ("aws_secret_access_key = ", made_of(LETTERS, 40)),
    "github-token": ("", "gh" + "p_" + made_of(LETTERS, 36)),
    "github-pat": ("", "github" + "_pat_" + made_of(LETTERS, 22) + "_" + made_of(LETTERS, 59)),
    "gitlab-token": ("", "gl" + "pat-" + made_of(LETTERS, 20)),
    "slack-token": ("", "xo" + "xb-" + made_of(DIGITS, 12) + "-" + made_of(LETTERS, 24)),
    "slack-webhook": ("https://hooks.slack.com/services/", f"T{made_of(UPPER, 8)}/B{made_of(LETTERS, 24)}"),
    "openai-key": ("", "sk-" + "proj-" + made_of(LETTERS, 60)),
    "anthropic-key": ("", "sk-" + "ant-api03-" + made_of(LETTERS, 60)),
    "huggingface-token": ("", "h" + "f_" + made_of(LOWER, 34)),
    "google-api-key": ("", "AI" + "za" + made_of(LETTERS, 35)),
    "google-oauth": ("", "GO" + "CSPX-" + made_of(LETTERS, 28)),
    "pypi-token": ("", "py" + "pi-AgEI" + made_of(LETTERS, 80)),
    "npm-token": ("", "np" + "m_" + made_of(LETTERS, 36)),
    "stripe-key": ("", "sk" + "_live_" + made_of(LETTERS, 24)),
    "sendgrid-key": ("", "S" + "G." + made_of(LETTERS, 22) + "." + made_of(LETTERS, 43)),
    "twilio-key": ("", "S" + "K" + made_of(HEX, 32)),
    "jwt": ("", "ey" + "J" + made_of(LETTERS, 20) + ".ey" + "J" + made_of(LETTERS, 30) + "." + made_of(LETTERS, 43)),
    "telegram-token": ("", made_of(DIGITS, 9) + ":A" + "A" + made_of(LETTERS, 33)),
    "azure-key": ("AccountKey=", made_of(LETTERS, 86) + "=="),
    "digitalocean-token": ("", "do" + "p_v1_" + made_of(HEX, 64)),
    "vault-token": ("", "hv" + "s." + made_of(LETTERS, 24)),
    "password": ("DB_PASSWORD=", "k3y" + "b0ard-C4t-99-" + made_of(DIGITS, 4)),
    "private-key": ("-----BEGIN RSA " + "PRIVATE KEY-----\n", made_of(LETTERS, 64)),
}  # fmt: skip


def test_no_canary_of_24_types_comes_into_a_document_or_onto_the_disk(shop, tmp_path, make_git) -> None:
    there, url = shop
    root = tmp_path / "work"
    wiki = tmp_path / "shop.wiki"
    (root / "docs").mkdir(parents=True)
    wiki.mkdir()
    for name, (before, secret) in CANARIES.items():
        text = f"Use {name}:\n\n{before}{secret}\n"
        (root / f"docs/{name}.md").write_text(text)
        (wiki / f"{name}.md").write_text(text)
    make_git(wiki)
    make_git(root)
    said = "\n".join(f"{before}{secret}" for before, secret in CANARIES.values())
    diff = "@@ -1 +1,99 @@\n" + "\n".join(f"+{line}" for line in said.split("\n"))
    (root / "keys.py").write_text(said)
    make_git.git(root, "add", "--all")
    make_git.git(root, "commit", "--quiet", "--message", f"Add all the keys\n\n{said}")
    there.add(1, [changed("keys.py", diff, "added")], title=said.split("\n")[0], body=said)
    at = {"path": "keys.py", "original_line": 3, "diff_hunk": diff, "original_commit_id": "old"}
    there.comment(1, "pulls", body=said, **at)
    there.comment(1, "issues", body=f"`{said}`")
    there.comment(1, "reviews", body=said)
    there.comparisons["old...head1"] = {"status": "ahead", "files": [changed("keys.py", diff)]}
    place = Workspace(root.resolve())
    settings = TrainerSettings(github="acme/shop", github_url=url, wiki=f"file://{wiki}")
    report = collect_documents(place, settings, take_snapshot(place, IndexerSettings()), lambda _: None)
    assert report.counts == {"commit": 1, "documentation": 24, "pull-request": 1, "review": 1, "wiki": 24}
    told = repr(report)
    assert [name for name, (_, secret) in CANARIES.items() if secret in told] == []
    kept = "".join(file.read_text() for file in place.pulls.iterdir())
    assert [name for name, (_, secret) in CANARIES.items() if secret in kept] == []
    assert len(report.masked) >= 20
