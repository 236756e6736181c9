"""What a file's name and its other chunks add to its best one."""

from dataclasses import fields, replace

import pytest

from indexer.chunking import Chunk
from indexer.file_rank import FileWeights, file_features
from indexer.ranking import DEFAULT_WEIGHTS, Candidate, Query, rank

NONE = replace(DEFAULT_WEIGHTS, file=FileWeights(*[0.0] * len(fields(FileWeights))))


def candidate(path, bm25, start_line=1):
    return Candidate(Chunk(path, start_line, start_line + 9, "python", "", (), "text"), bm25)


def test_the_features_of_each_file():
    fused = [("a/layout.py", 0.5), ("a/layout.py", 0.9), ("a/layout.py", 0.2), ("b/__init__.py", 1.0)]
    places = Query("window layout redraw").places
    assert file_features(places, fused) == {
        "a/layout.py": (0.5, 0.2, pytest.approx(1 - 1 / 3), 0.0, 0.0),
        "b/__init__.py": (0.0, 0.0, 0.0, 1.0, 1.0),
    }


def test_the_file_that_the_question_begins_with_comes_before_the_one_that_it_ends_with():
    found = [candidate("layout.py", 10), candidate("window.py", 10)]

    def first(weights):
        return rank(Query("window refresh after a layout"), found, weights)[0][0].path

    assert (first(NONE), first(DEFAULT_WEIGHTS)) == ("layout.py", "window.py")


def test_a_file_with_several_good_chunks_comes_before_one_with_a_single_one():
    one = [candidate("a.py", 10), candidate("far.py", 1)]
    several = [candidate("b.py", 9.5, line) for line in (1, 11, 21)]
    without_coherence = replace(DEFAULT_WEIGHTS, coherence=0.0)
    off = replace(NONE, coherence=0.0)
    assert rank(Query("something"), [*one, *several], off)[0][0].path == "a.py"
    assert rank(Query("something"), [*one, *several], without_coherence)[0][0].path == "b.py"
