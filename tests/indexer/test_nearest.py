"""Small collections are looked through in memory: all is found, and what Chroma would say."""

import numpy as np
import pytest

from indexer import store as store_module
from indexer.chunking import Chunk
from indexer.nearest import Nearest
from indexer.store import forget_client, open_collection


def unit(count, seed=1, dim=32):
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def chunk(number):
    return Chunk(f"f{number}.py", 1, 1, "python", "", (), f"x = {number}\n")


def test_the_nearest_come_first_and_those_put_again_once():
    rows = unit(20)
    near = Nearest([str(n) for n in range(20)], rows)
    assert [id for id, _ in near.search(rows[7], 20)][:1] == ["7"]
    near.put(["7", "new"], np.stack([rows[3], rows[7]]))
    assert (len(near), near.search(rows[7], 1)[0][0]) == (21, "new")
    near.drop(["new", "never there"])
    assert sorted(id for id, _ in near.search(rows[7], 50)) == sorted(str(n) for n in range(20))
    cosines = [cosine for _, cosine in near.search(rows[5], 8)]
    assert (cosines, len(cosines)) == (sorted(cosines, reverse=True), 8)
    assert Nearest([], unit(0)).search(rows[0], 3) == []


@pytest.fixture
def filled(tmp_path):
    store = open_collection(tmp_path / "chroma", None, "collection-c1-g1")
    store.put([chunk(n) for n in range(60)], unit(60))
    yield store
    forget_client(tmp_path / "chroma")


def test_in_memory_is_found_what_chroma_finds(filled, monkeypatch):
    query = unit(1, seed=9)[0]
    exact = filled.search(query, 10)
    assert filled._near is not None
    filled._is_small, filled._near = False, None
    by_graph = filled.search(query, 10)
    assert [id for id, _ in exact] == [id for id, _ in by_graph]
    assert [cosine for _, cosine in exact] == pytest.approx([cosine for _, cosine in by_graph], abs=1e-5)


def test_what_is_put_and_dropped_later_is_found_and_gone(filled):
    query = unit(1, seed=5)[0]
    filled.search(query, 1)
    filled.put([chunk(99)], query[None])
    assert filled.search(query, 1)[0][0] == chunk(99).id
    filled.drop([chunk(99).id])
    assert filled.search(query, 100)[0][0] != chunk(99).id


def test_a_collection_that_grows_too_large_is_left_to_chroma(filled, monkeypatch):
    monkeypatch.setattr(store_module, "EXACT_UP_TO", 61)
    query = unit(1, seed=5)[0]
    filled.search(query, 1)
    filled.put([chunk(n) for n in (70, 71)], unit(2, seed=5))
    assert (filled._near, filled._is_small) == (None, False)
    assert filled.search(query, 1)[0][0] == chunk(70).id


def test_while_chroma_has_ids_without_embeddings_it_is_asked_itself(filled, monkeypatch):
    """Seen in 2 to 50 of 300 collections whose first `get` met their first `upsert` (chromadb 1.5.9)."""
    query, whole = unit(1, seed=9)[0], filled._collection.get
    monkeypatch.setattr(filled._collection, "get", lambda **asked: {**whole(**asked), "embeddings": np.empty(0)})
    assert (len(filled.search(query, 10)), filled._near) == (10, None)
    monkeypatch.undo()
    assert (len(filled.search(query, 10)), len(filled._near)) == (10, 60)
