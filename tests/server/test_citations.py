"""Markers are tied to passages by code, and nothing else is."""

from hypothesis import given
from hypothesis import strategies as st

from server.citations import check, cited, remove_unknown_markers, standing_behind


def test_a_marker_for_nothing_is_removed_with_its_space():
    assert remove_unknown_markers("So it is [1] and [7][2] [99].", 2) == "So it is [1] and[2]."


def test_links_and_code_are_left_alone():
    assert remove_unknown_markers("see [9](url) and a[i] and x[0:2]", 1) == "see [9](url) and a[i] and x[0:2]"


@given(st.text(alphabet="[]0123456789 ab\né🙂", max_size=60), st.integers(0, 5))
def test_after_cleaning_every_marker_has_a_passage_and_cleaning_again_changes_nothing(text, passages):
    clean = remove_unknown_markers(text, passages)
    assert remove_unknown_markers(clean, passages) == clean or "[" in clean
    assert all(1 <= n <= passages for n in cited(clean, [None] * passages))


def test_citations_come_in_the_order_of_their_first_marker_and_are_checked(passage):
    found = [passage("a.py"), passage("b.py")]
    numbers = cited("x [2] y [1] z [2]", found)
    assert numbers == [2, 1]
    checked = check(numbers, found, {"": "c0ffee"}, lambda p: p.path == "a.py")
    assert [(c.index, c.path, c.verified) for c in checked] == [(2, "b.py", False), (1, "a.py", True)]


def test_an_answer_without_markers_is_tied_to_the_passages_that_share_its_rare_words(passage):
    found = [
        passage("a.py", "def alpha(): ..."),
        passage("b.py", "def beta_gamma(): return retry"),
        passage("c.py", "def c"),
    ]
    assert standing_behind("It is done in `beta_gamma` with a retry.", found) == [2]
    assert standing_behind("I do not know.", found) == []
    assert standing_behind("", found) == []
