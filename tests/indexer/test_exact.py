"""Exact search finds the files that ripgrep finds."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest

from indexer.exact import BadPattern, exact_files, parse_exact

FILES = {
    "src/app.py": "import os\n\nclass Router:\n    def add_route(self, path):  # TODO(é): ☕\n        return path\n",
    "src/a b.py": "x = 'a (b) [c]'\r\nTODO = 1\r\n",
    "src/\u00fc\u4e2d.js": "const r\u00e9sum\u00e9 = `${naïve}`;\rlet b = 2;\r",
    "docs/page.md": "# Title\n\nRouter\n\n\tTODO: write\n",
    ".github/workflows/ci.yml": "on: push\njobs: {}\n",
    "package-lock.json": '{"name": "router"}\n',
    "empty.txt": "",
    "blank.txt": "\n",
    "no_end.txt": "last line Router",
    "bom.txt": "\ufefffirst word\n",
    "latin.txt": b"caf\xe9 Router\n",
    "wide.txt": "Router in UTF-16\n".encode("utf-16"),
    "binary.bin": b"Router\0Router\n",
    "ignored/skip.py": "Router\n",
    "form.py": "a\x0cRouter\u2028b\n",
}
QUERIES = [
    '"Router"', '"router"', '"(b) [c]"', '"TODO(é): ☕"', '"a \\"', '"résumé"', '"nothing like this"',
    "/Router/", "/^Router$/", "/^first/", "/route[rs]?\\b/", "/(?i)router/", "/TODO\\b.*write/", "/^$/", "/^\\s*$/",
    "/\\d+/", "/r\\wsum\\w/", "/[^\\x00-\\x7F]/", "/class\\s+\\w+/", "/x*/", "/\\p{Greek}/", "/\\p{Lu}[a-z]+/",
    "/[[:digit:]]$/", "/path\\):.*$/", "/self.*\\n/", "/import|push/", "/1\\s*$/", "/[a-z&&[^aeiou]]{4}/",
    "/=\\s+.\\$\\{/",
]  # fmt: skip


@pytest.fixture
def tree(write, git, workspace):
    for path, content in FILES.items():
        write(path, content)
    write(".gitignore", "ignored/\n")
    (workspace.root / "link.py").symlink_to("src/app.py")
    git("add", "-A")
    return workspace.root


@pytest.mark.skipif(not shutil.which("rg"), reason="ripgrep is not here to compare with")
@pytest.mark.parametrize("query", QUERIES)
def test_exact_search_finds_the_files_that_ripgrep_finds(tree, index, query):
    options = ["rg", "-l", "--hidden", "--no-config", "--glob", "!.git", "--glob", "!.nightschool"]
    kind = ["-F", "-e", query[1:-1].replace('\\"', '"')] if query[0] == '"' else ["-e", query[1:-1]]
    run = subprocess.run([*options, *kind, "./"], cwd=tree, capture_output=True, text=True, check=False)
    wanted = sorted(line.removeprefix("./") for line in run.stdout.splitlines())
    if "literal" in run.stderr and "\\n" in query:  # ripgrep refuses what our lines can never hold
        wanted = []
    pattern = parse_exact(query)
    assert [path for path, *_ in exact_files(pattern, index._parts, {})] == wanted, run.stderr


def test_a_passage_stands_around_the_first_match_and_is_what_the_file_says(tree, index):
    index.update()
    found = index.search('"add_route"')
    assert [(p.path, p.start_line) for p in found] == [("src/app.py", 1)]
    assert found[0].text == FILES["src/app.py"]
    (passage,) = index.search("/let b/")
    assert (passage.path, passage.start_line <= 2 <= passage.end_line) == ("src/üf中.js".replace("f", ""), True)


def test_what_was_written_since_the_index_was_made_is_found(tree, index, write):
    index.update()
    write("new.py", "def brand_new(): ...\n")
    assert [p.path for p in index.search('"brand_new"')] == ["new.py"]
    assert [p.path for p in index.search('"unsaved"', overlays={"new.py": "unsaved = 1\n"})] == ["new.py"]


def test_a_secret_that_is_asked_for_is_found_and_not_shown(index, write):
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2
    write("deploy.py", f"TOKEN = '{secret}'\n")
    (passage,) = index.search(f'"{secret}"')
    assert (passage.path, secret in passage.text) == ("deploy.py", False)


def test_a_bad_expression_is_said_and_one_that_never_ends_is_given_up(index, write):
    with pytest.raises(BadPattern, match="not a regular expression"):
        index.search("/a(b/")
    write("a.txt", "a" * 60_000 + "!\n")
    started = time.monotonic()
    with pytest.raises(BadPattern, match="takes too long"):
        index.search("/(a|aa)+$/")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("query", ["how are routes added", '"', '""', '"a" or "b"', "//", "/", "and/or"])
def test_other_queries_are_not_exact(query):
    assert parse_exact(query) is None


def test_a_fifo_and_an_unreadable_file_do_not_stop_it(index, write, workspace):
    write("a.py", "needle\n")
    os.mkfifo(workspace.root / "pipe.py")
    assert [p.path for p in index.search('"needle"')] == ["a.py"]
