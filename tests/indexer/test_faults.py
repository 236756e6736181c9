"""What goes wrong around an index: kill -9, damage, a full disk, files that change while they are read."""

from __future__ import annotations

import importlib
import random
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from indexer.index import IndexUnavailable
from indexer.opening import next_generation, put_in_service

ROOT = Path(__file__).parents[2]
INDEXING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from freshness import Words
from indexer.index import open_index
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
with open_index(Workspace(Path(sys.argv[1])), IndexerSettings(), Words()) as index:
    print("open", flush=True)
    index.update(lambda progress: print(progress.stage, flush=True))
    print("done", flush=True)
"""


def start_indexing(root: Path, **more) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", INDEXING, str(root), str(ROOT / "benchmarks")]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def fill(write, files: int) -> None:
    for number in range(files):
        body = "".join(f"    value_{i} = {number * i}\n" for i in range(40))
        write(f"src/f{number}.py", f"def function_{number}():\n{body}\n\ndef other_{number}():\n{body}")


def test_killed_at_any_point_the_next_start_repairs_alone(tmp_path, monkeypatch):
    """Nothing acknowledged is lost, nothing kept is embedded twice. Longer: `./run bench kills --rounds 50`."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    attack = importlib.import_module("kills").run(tmp_path, rounds=5, seed=3)
    assert sum(attack.moments.values()) == 5


def test_what_was_embedded_before_a_kill_is_not_embedded_again(write, opened, embedder, workspace):
    fill(write, 150)
    embed, calls = embedder.embed, []

    def dies_on_the_third(texts):
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(texts)

    embedder.embed = dies_on_the_third
    with pytest.raises(KeyboardInterrupt), opened() as index:
        index.update()
    embedder.embed = embed
    with opened() as index:
        index.update()
        chunks = index.state().chunks
    assert len(embedder.texts) == len(set(embedder.texts)) == chunks


def damaged_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.is_file() and f.name != "lock" and "quarantine" not in f.parts)


def test_damage_in_any_file_of_the_index_is_found_or_harmless(write, workspace, opened, held, rebuilt):
    fill(write, 12)
    folder = workspace.state / "index"
    with opened() as index:
        index.update()
    names = [file.relative_to(folder) for file in damaged_files(folder)]
    groups: dict[str, Path] = {}
    for name in names:  # one of each kind: tantivy has a file a segment and kind
        groups.setdefault(name.suffix if name.parts[0] == "lexical" else str(name.name), name)
    dice = random.Random(11)
    for name in groups.values():
        file = folder / name
        if not file.exists():
            continue
        raw = bytearray(file.read_bytes())
        for _ in range(8):
            if raw:
                raw[dice.randrange(min(len(raw), 4096))] ^= 0xFF
        file.write_bytes(raw)
        repair(opened, held, rebuilt, name)


def repair(opened, held, rebuilt, name) -> None:
    """At most one start says that it is damaged; the one after works, and holds what a rebuild does."""
    with suppress(IndexUnavailable), opened() as index:
        index.update()
    with opened() as index:
        index.update()
        assert index.search("function_7", 3)[0].path == "src/f7.py", name
        assert held(index) == rebuilt(), name


def test_a_full_disk_is_said_in_one_line_and_nothing_is_lost(write, workspace, opened, held, rebuilt):
    fill(write, 40)
    process = start_indexing(
        workspace.root,
        preexec_fn=lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
        ),
    )
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "IndexUnavailable" in said.splitlines()[-1], said
    with opened() as index:
        index.update()
        assert held(index) == rebuilt()


def test_a_file_that_changes_while_it_is_read_is_right_in_the_end(write, opened, held, rebuilt):
    write("a.py", "def one():\n    pass\n")
    with opened() as index:
        index.update(lambda progress: write("a.py", f"def at_{progress.stage.split()[0]}():\n    pass\n"))
        for passage in index.search("at_reading one", 5):
            assert index.is_current(passage.path, passage.start_line, passage.end_line, passage.sha256)
        index.update()
        assert held(index) == rebuilt()


def test_too_much_that_is_dead_makes_a_new_collection_beside_the_old(write, opened, held, rebuilt, embedder):
    with opened() as index:
        fill(write, 4)
        index.update()
        index._parts.catalogue.set_fact("dead", "1000000")
        write("src/f1.py", "def fresh():\n    pass\n")
        before = len(embedder.texts)
        index.update()
        assert index._parts.store.name.endswith("g2")
        assert len(embedder.texts) == before + 1
        assert held(index) == rebuilt()
    with opened() as index:
        assert index.search("fresh", 1)[0].symbol == "fresh"
        assert index._parts.store.name.endswith("g2")


def test_a_collection_that_is_replaced_under_a_search_is_no_damage(write, workspace, opened):
    with opened() as index:
        fill(write, 4)
        index.update()
        parts, asked = index._parts, []

        def find():
            asked.append(parts.store)
            if len(asked) == 1:
                put_in_service(parts, next_generation(parts, asked[0]))
                asked[0].delete()
                return asked[0].search(parts.embedder.embed(["function"])[0], 3)
            return "found"

        assert index._storing.with_store(find) == "found"
        assert parts.store is asked[1] is not asked[0]
        assert not list(workspace.state.rglob("quarantine/*"))
