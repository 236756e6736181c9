"""The facade: question -> verified passages; the tree -> the index, as one diff."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from indexer.index import IndexUnavailable, open_index
from indexer.ranking import Query
from indexer.search import find_candidates
from indexer.settings import IndexerSettings

CODE = """\
def parse_header(line):
    \"\"\"Split a header line (café ☕).\"\"\"
    return line.split(":", 1)


def render_page(page):
    return page.html
"""


def test_what_is_in_the_tree_is_found_and_what_left_it_is_not(write, index, workspace):
    file = write("src/http.py", CODE)
    index.update()
    found = index.search("parse a header line")
    assert (found[0].path, found[0].symbol, found[0].start_line, found[0].end_line) == (
        "src/http.py",
        "parse_header",
        1,
        7,
    )
    assert found[0].text == CODE
    assert index.is_current("src/http.py", 1, 7, found[0].sha256)
    file.unlink()
    assert not index.is_current("src/http.py", 1, 7, found[0].sha256)
    assert index.search("parse a header line") == []
    index.update()
    assert index.state().chunks == 0


def test_an_update_without_a_change_does_nothing(write, opened, embedder, held, rebuilt):
    write("a.py", CODE)
    with opened() as index:
        first = index.update()
    with opened() as index:
        second = index.update()
        index.search("anything")
        assert held(index) == rebuilt()
    assert (first.embedded, first.updated_files) == (1, 1)
    assert (second.embedded, second.updated_files, second.deleted_files) == (0, 0, 0)


def test_a_line_inserted_on_top_of_a_long_file_embeds_one_or_two_chunks(write, index, embedder, held, rebuilt):
    body = "\n\n".join(
        f"def function_{n}(argument):\n" + "".join(f"    value_{n}_{i} = argument + {i * n}\n" for i in range(n % 23))
        for n in range(170)
    )
    assert body.count("\n") > 2000
    write("long.py", body)
    index.update()
    before = len(embedder.texts)
    write("long.py", "import os\n" + body)
    index.update()
    assert 1 <= len(embedder.texts) - before <= 2
    assert held(index) == rebuilt()


def test_a_branch_that_is_switched_back_to_embeds_nothing(write, git, index, embedder, held, rebuilt):
    write("a.py", CODE)
    git("add", "."), git("commit", "-qm", "one")
    index.update()
    git("checkout", "-qb", "other")
    write("a.py", CODE.replace("render_page", "render_other"))
    write("b.py", "def added():\n    return 1\n")
    git("add", "."), git("commit", "-qm", "two")
    index.update()
    before = len(embedder.texts)
    git("checkout", "-q", "main")
    report = index.update()
    assert (report.embedded, len(embedder.texts)) == (0, before)
    assert held(index) == rebuilt()


def test_a_passage_is_cut_anew_when_its_file_changed_since(write, index):
    write("a.py", CODE)
    index.update()
    write("a.py", "# one line more\n" + CODE.replace("page.html", "page.text"))
    (passage,) = index.search("render_page", 1)
    assert "page.text" in passage.text
    assert index.is_current(passage.path, passage.start_line, passage.end_line, passage.sha256)


def test_an_open_buffer_stands_in_for_its_file(write, index):
    write("a.py", CODE)
    write("b.py", "def other():\n    return 2\n")
    index.update()
    buffer = "def brand_new_thing():\n    return 'unsaved é 🎓'\r\n"
    started = time.perf_counter()
    found = index.search("brand_new_thing", 3, {"a.py": buffer})
    assert time.perf_counter() - started < 0.1
    assert (found[0].path, found[0].text) == ("a.py", buffer)
    assert all(passage.symbol != "parse_header" for passage in found)


def test_secrets_never_reach_a_passage_or_the_disk(write, index, workspace):
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2
    write("deploy.py", f"import os\n\ndef deploy_token():\n    return '{secret}'\n")
    report = index.update()
    (passage,) = index.search("deploy_token", 1)
    assert report.masked_secrets == {"github-token": 1}
    assert "return '<secret:github-token>'" in passage.text
    assert index.is_current(passage.path, passage.start_line, passage.end_line, passage.sha256)
    files = [file for file in workspace.state.rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if secret.encode() in file.read_bytes()]


def test_state_says_how_fresh_the_index_is(write, git, index):
    write("a.py", CODE)
    git("add", "."), git("commit", "-qm", "one")
    write("b.py", "x = 1\n")
    index.update()
    state = index.state()
    assert (state.commit, state.dirty_files) == (git("rev-parse", "HEAD").strip(), 1)
    assert (state.files, state.chunks, state.waiting_files, state.waiting_chunks) == (2, 2, 0, 0)
    assert state.seconds_behind == 0


def test_paths_and_symbols_can_be_looked_up(write, index):
    write("a.py", "class Router:\n    def add_route(self):\n        pass\n")
    index.update()
    assert index.has_path("a.py")
    assert not index.has_path("b.py")
    assert [index.has_symbol(name) for name in ("Router", "add_route", "Router.add_route")] == [True] * 3
    assert not index.has_symbol("Router.nothing")


def test_a_second_owner_gets_one_clear_line_at_once(opened, workspace, index):
    started = time.perf_counter()
    with pytest.raises(IndexUnavailable, match="open already"), opened():
        pass
    child = (
        "import sys, time\nfrom pathlib import Path\nfrom indexer.index import *\n"
        "from indexer.settings import IndexerSettings\nfrom indexer.workspace import Workspace\n"
        "started = time.perf_counter()\n"
        "try:\n    with open_index(Workspace(Path(sys.argv[1])), IndexerSettings()): pass\n"
        "except IndexUnavailable as error: print(error, time.perf_counter() - started < 1)\n"
    )
    assert time.perf_counter() - started < 1
    said = subprocess.run(
        [sys.executable, "-c", child, str(workspace.root)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith(f"process {os.getpid()} is using the index")
    assert said.endswith("True\n")


def test_a_folder_that_cannot_be_written_is_said(workspace):
    workspace.state.write_text("a file where the folder should be")
    with pytest.raises(IndexUnavailable, match="cannot be kept"), open_index(workspace, IndexerSettings()):
        pass


def test_explain_says_why_a_file_is_in_or_out(write, git, index):
    write("a.py", CODE)
    write(".gitignore", "*.tmp\n")
    write("b.tmp", "x\n")
    write(".nightschoolignore", "private/\n")
    write("private/c.py", "x = 1\n")
    write("node_modules/d.js", "x = 1\n")
    index.update()
    said = {path: index.explain(path) for path in ("a.py", "b.tmp", "private/c.py", "node_modules/d.js", "e.py")}
    assert said == {
        "a.py": "a.py: in the index: python, 1 chunks",
        "b.tmp": "b.tmp: not in the index: git ignores it (.gitignore:1:*.tmp)",
        "private/c.py": "private/c.py: not in the index: .nightschoolignore leaves it out",
        "node_modules/d.js": "node_modules/d.js: not in the index: vendored",
        "e.py": "e.py: not in the index: there is no such file",
    }


def test_nothing_heavy_is_imported_before_it_is_needed():
    heavy = ["torch", "chromadb", "sentence_transformers", "detect_secrets"]
    code = f"import sys, indexer.index; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_an_empty_workspace_and_an_empty_query_find_nothing(index):
    assert index.update().files == 0
    assert index.search("anything") == []
    assert index.search("") == []


def test_the_real_embedder_finds_by_meaning(write, workspace):
    write("auth.py", "def verify_password(user, password):\n    return bcrypt.check(password, user.digest)\n")
    write("mail.py", "def send_newsletter(people):\n    for person in people:\n        smtp.deliver(person)\n")
    with open_index(workspace, IndexerSettings()) as index:
        index.update()
        (passage,) = index.search("are the login credentials right", 1)
    assert passage.path == "auth.py"


def test_many_tests_and_guides_do_not_crowd_the_code_out(write, index):
    for number in range(120):
        write(f"tests/test_router_{number}.py", f"def test_router_adds_route_{number}():\n    router.add_route('/')\n")
        write(f"docs/router_{number}.md", f"# Router {number}\n\nAdd a route to the router: router.add_route\n")
    write("src/table.py", "class Table:\n    def insert(self, route, handler):\n        self.rows[route] = handler\n")
    index.update()
    found = find_candidates(Query("add a route to the router"), index._parts, {})
    assert "src/table.py" in {candidate.chunk.path for candidate in found if candidate.bm25}
    assert index.search("the test that router adds a route", 1)[0].path.startswith("tests/")
