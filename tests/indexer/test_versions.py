"""An index that another version made: an older one is read anew and keeps its embeddings, a newer one is left alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from indexer.chunking import CHUNKER_VERSION
from indexer.index import IndexUnavailable, open_index
from indexer.settings import IndexerSettings

BODY = "".join(f"    value_{i} = {i}\n" for i in range(40))
OLDER_CHUNKER, NEWER_CHUNKER = f"1.{CHUNKER_VERSION - 1}", f"1.{CHUNKER_VERSION + 1}"


@pytest.fixture
def facts(workspace):
    """Writes facts of the catalogue, as another version would have left them."""

    def write(**values: str) -> None:
        with closing(sqlite3.connect(workspace.state / "index/catalogue.sqlite")) as database, database:
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", values.items())

    return write


@pytest.fixture
def filled(write, opened):
    for number in range(3):
        write(f"src/f{number}.py", f"def function_{number}():\n{BODY}")
    with opened() as index:
        index.update()


def bytes_of(folder: Path) -> dict[Path, bytes]:
    """What is in an index, but for the lock and what SQLite makes when it is only read."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {path: path.read_bytes() for path in files if not path.name.endswith(("-shm", "-wal"))}


@pytest.mark.parametrize("version", ["0.0", OLDER_CHUNKER, "not a version"])
def test_an_index_of_an_older_version_is_read_anew_and_keeps_its_embeddings(
    version, filled, facts, opened, embedder, held, rebuilt
):
    facts(version=version)
    before = len(embedder.texts)
    with opened() as index:
        report = index.update()
        assert (report.updated_files, report.embedded, len(embedder.texts)) == (3, 0, before)
        assert index.search("function_2", 1)[0].path == "src/f2.py"
        assert held(index) == rebuilt()


def test_chunks_that_an_older_chunker_cut_otherwise_are_gone_and_only_new_texts_are_embedded(
    filled, facts, workspace, opened, embedder, held, rebuilt
):
    with closing(sqlite3.connect(workspace.state / "index/catalogue.sqlite")) as database, database:
        database.execute("UPDATE chunks SET text = 'def older():\n    pass\n', id = 'older' WHERE path = 'src/f1.py'")
    facts(version=OLDER_CHUNKER)
    with opened() as index:
        assert index.update().embedded == 0
        assert [passage.symbol for passage in index.search("older")].count("older") == 0
        assert held(index) == rebuilt()


def test_another_embedder_embeds_everything_and_going_back_nothing(filled, opened, embedder, held, rebuilt):
    mine = embedder.name
    embedder.name = "words-64-of-tomorrow"
    with opened() as index:
        assert index.update().embedded == 3
        index.search("function_1")
        assert "tomorrow" in index._parts.store.name
        assert held(index) == rebuilt()
    embedder.name = mine
    with opened() as index:
        assert index.update().embedded == 0
        assert index.search("function_1", 1)[0].path == "src/f1.py"
        assert held(index) == rebuilt()


@pytest.mark.parametrize("version", [NEWER_CHUNKER, "2.1", "1.100.3"])
def test_an_index_of_a_newer_version_is_refused_in_one_line_and_not_touched(
    version, filled, facts, workspace, opened, embedder
):
    facts(version=version)
    before = bytes_of(workspace.state / "index")
    with pytest.raises(IndexUnavailable, match=f"made by a newer nightschool .version {version}") as error, opened():
        pass
    assert "\n" not in str(error.value)
    assert bytes_of(workspace.state / "index") == before
    facts(version=f"1.{CHUNKER_VERSION}")
    count = len(embedder.texts)
    with opened() as index:
        assert (index.update().updated_files, len(embedder.texts)) == (0, count)


def test_a_newer_catalogue_with_other_tables_is_refused_before_any_table_of_ours_is_put_into_it(workspace, opened):
    folder = workspace.make_state_folder() / "index"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "catalogue.sqlite")) as database, database:
        database.execute("CREATE TABLE facts(name TEXT, value TEXT)")
        database.execute("CREATE TABLE chunks(something INTEGER)")
        database.execute("INSERT INTO facts VALUES ('version', '7.1')")
    before = (folder / "catalogue.sqlite").read_bytes()
    with pytest.raises(IndexUnavailable, match=r"version 7\.1"), opened():
        pass
    assert (folder / "catalogue.sqlite").read_bytes() == before


def test_moving_the_newer_index_away_is_what_helps(filled, facts, workspace, embedder):
    facts(version="9.9")
    (workspace.state / "index").rename(workspace.state / "index-of-tomorrow")
    with open_index(workspace, IndexerSettings(), embedder) as index:
        assert index.update().files == 3
