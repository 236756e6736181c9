"""What of an answer can be found: names, values, quoted code, cited sentences; and what exists nowhere."""

import time
from dataclasses import replace

import pytest

from indexer.named import names_in
from server.claims import literals_of, names_of, read_claims
from server.disagree import disagreements
from server.extract import extract
from server.grounding import ELSEWHERE, Sources, measure

CODE = "def load(path, max_age=30):\n    if not path:\n        raise MissingPath(path)\n    return read_all(path)\n"
OTHER = "def connect(host):\n    return dial(host)\n"
QUESTION = "What does load raise for an empty path?"


@pytest.fixture
def found(passage):
    return [passage("src/app/load.py", CODE), passage("src/app/net.py", OTHER)]


def measured(answer, found, question=QUESTION, known=(), verified=(1, 2)):
    return measure(answer, question, Sources(found, extract(question, found), verified, lambda name: name in known))


def test_an_answer_that_says_what_the_lines_say_is_grounded_with_a_marker_or_without(found):
    for answer in ("It raises `MissingPath` in `src/app/load.py` [1].", "It raises `MissingPath`."):
        result = measured(answer, found)
        assert (result.names, result.supported_sentences, result.score) == (result.names_in_lines, 1, 1.0)


def test_invented_names_lower_it_and_are_named(found):
    result = measured("Call `open_safely()` of `src/app/safe.py`, then `MissingPath`. [1]", found)
    assert result.unknown == ("open_safely", "src/app/safe.py")
    assert (result.names, result.names_in_lines) == (3, 1)


def test_a_name_from_elsewhere_counts_a_little_and_is_not_flagged(found):
    result = measured("It raises `DialError`, calls `dial`.", found, known=["DialError"])
    assert (result.names_in_lines, result.names_elsewhere, result.unknown) == (0, 2, ())
    assert result.score == 2 * ELSEWHERE / 3


def test_a_value_must_stand_in_the_lines_that_answer(found):
    question = "What is the default max_age of load?"
    right, wrong = (measured(f"The default is {value}.", found, question) for value in (30, 3))
    assert (right.literals_in_lines, right.score) == (1, 1.0)
    assert (wrong.literals_in_lines, wrong.score) == (0, 0.0)


def test_what_the_question_gave_proves_nothing(found):
    result = measured("`open_safely` is 7.", found, "What does open_safely do with 7 of load?")
    assert (result.names, result.literals, result.unknown) == (0, 0, ())


@pytest.mark.parametrize(
    ("answer", "verified"),
    [("It reads all there is.", (1, 2)), ("It reads the path [1].", ()), ("Bananas ripen quickly [1].", (1,))],
)
def test_a_sentence_without_a_checked_marker_on_what_it_says_is_not_supported(answer, verified, found):
    assert measured(answer, found, verified=verified).supported_sentences == 0


def test_quoted_code_counts_line_by_line_whatever_its_indent(found):
    answer = "```python\nif not path:\n    raise MissingPath(path)\n    raise Boom()\n```\n"
    result = measured(answer, found)
    assert (result.code_lines, result.found_code_lines) == (3, 2)


def test_an_answer_that_says_nothing_has_no_score(found):
    assert [measured(text, found).score for text in ("", "Here it is:", "```\n```")] == [0, 0, 0]


def test_without_passages_only_the_index_speaks(found):
    result = measured("Use `dial`, not `ring`.", [], known=["dial"])
    assert (result.names_elsewhere, result.unknown) == (1, ("ring",))


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


def test_literals_are_numbers_constants_and_quoted_words():
    text = 'It is 30, 1_000 or 2.5; True, `\'utf-8\'`, "strict" or `b"x"`, not truly, v2, a1, x-9 or 3.11.2b.'
    assert literals_of(text) == ["30", "1_000", "2.5", "True", "'utf-8'", '"strict"', 'b"x"']
    assert literals_of('See lines 31-45, "a whole sentence", line 7 and 9 [1].') == ["1"]


@pytest.mark.parametrize("piece", ["a", "a ", "(", "a: ", "`a` ", "a.b", "a/", "-", "a= ", "`", "[1] ", "1_", "a(a "])
def test_no_text_however_odd_takes_long_to_read(piece, passage):
    text = piece * (30_000 // len(piece))
    started = time.process_time()
    read_claims(text)
    names_in(text)
    extract(text[:8_000], [passage(text=text)])
    disagreements([passage(text=text), replace(passage(text=text), language="markdown")])
    assert time.process_time() - started < 3


def test_lists_links_and_open_blocks_are_read():
    claims = read_claims("Two things:\n- first [1]\n2. second [link](x) [2]\n\n```py\nx = 1\n")
    assert [(s.text, s.markers) for s in claims.sentences] == [("first [1]", (1,)), ("second [link](x) [2]", (2,))]
    assert claims.code_lines == ("x = 1",)
