"""What of an answer can be found: names, quoted code, cited sentences; and what exists nowhere."""

import pytest

from server.claims import names_of, read_claims
from server.grounding import measure

CODE = "def load(path, max_age=30):\n    if not path:\n        raise MissingPath(path)\n    return read_all(path)\n"


@pytest.fixture
def found(passage):
    return [passage("src/app/load.py", CODE), passage("src/app/net.py", "def connect(host):\n    return host\n")]


def measured(answer, found, question="What does it do?", known=(), verified=(1, 2)):
    return measure(answer, question, found, verified, lambda name: name in known)


def test_an_answer_that_says_what_the_passages_say_is_grounded(found):
    result = measured("`load` in `src/app/load.py` raises `MissingPath` for an empty path [1].", found)
    assert (result.names, result.found_names, result.cited_sentences, result.unknown) == (3, 3, 1, ())
    assert result.score == 1.0


def test_invented_names_lower_it_and_are_named(found):
    result = measured("Call `open_safely()` of `src/app/safe.py`, then read_all(). [1]", found)
    assert result.unknown == ("open_safely", "src/app/safe.py")
    assert (result.names, result.found_names) == (3, 1)


def test_a_name_that_only_the_index_knows_is_not_found_and_not_flagged(found):
    result = measured("It calls `retry_later`.", found, known=["retry_later"])
    assert (result.found_names, result.unknown) == (0, ())


def test_names_that_the_question_gave_prove_nothing(found):
    result = measured("`open_safely` is a function.", found, "What does open_safely do?")
    assert (result.names, result.unknown) == (0, ())


@pytest.mark.parametrize(
    ("answer", "verified"),
    [("It reads the whole path.", (1, 2)), ("It reads the whole path [1].", ()), ("Bananas ripen quickly [1].", (1,))],
)
def test_a_sentence_without_a_checked_marker_on_what_it_says_is_not_cited(answer, verified, found):
    assert measured(answer, found, verified=verified).cited_sentences == 0


def test_quoted_code_counts_line_by_line_whatever_its_indent(found):
    answer = "```python\nif not path:\n    raise MissingPath(path)\n    raise Boom()\n```\n"
    result = measured(answer, found)
    assert (result.code_lines, result.found_code_lines) == (3, 2)


def test_an_answer_that_says_nothing_has_no_score(found):
    assert [measured(text, found).score for text in ("", "Here it is:", "```\n```")] == [0, 0, 0]


def test_what_is_said_twice_is_counted_as_repeated(found):
    assert measured("It loads. It loads. It loads.", found).repeated == 2


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Use `load(path)` and `max_age`.", ["load", "path", "max_age"]),
        ("See src/app/load.py and `package.json`, or setup.py.", ["package.json", "src/app/load.py", "setup.py"]),
        ("Pass --dry-run and/or wait, e.g. for input/output.", ["--dry-run"]),
        ("The TimestampSigner.unsign method and getUserName, connect() too.",
         ["TimestampSigner.unsign", "getUserName", "connect"]),
        ("It returns `None` or `self` and 'some_text' and \"other_text\".", []),
        ("Plain English. Nothing else, i.e. words; é 🙂", []),
        ("Read https://example.org/a_b/c.html for more.", []),
    ],
)  # fmt: skip
def test_names_are_what_no_english_word_looks_like(text, names):
    assert names_of(text) == names


def test_lists_links_and_open_blocks_are_read():
    claims = read_claims("Two things:\n- first [1]\n2. second [link](x) [2]\n\n```py\nx = 1\n")
    assert [(s.text, s.markers) for s in claims.sentences] == [("first [1]", (1,)), ("second [link](x) [2]", (2,))]
    assert claims.code_lines == ("x = 1",)
