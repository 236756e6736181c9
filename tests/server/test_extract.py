"""The lines that answer, quoted as they stand, with where they stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.search import Passage
from server.extract import extract, spelled_out, write_extract

SIGNER = '''class Signer:
    """Signs text."""

    def __init__(
        self,
        key,
        salt=b"pepper",
        sep=".",
    ):
        if sep in ALPHABET:
            raise ValueError(
                "the separator cannot be used"
            )
        self.key = key

    def unsign(self, value):
        if self.sep not in value:
            raise BadSignature("no separator")
        return value.rsplit(self.sep, 1)[0]
'''
CONFIG = "MAX_RETRIES = 5\nTIMEOUT_S = 30\n\n\ndef other():\n    return None\n"


@pytest.fixture
def found(passage):
    return [passage("src/sign.py", SIGNER, 11), passage("src/config.py", CONFIG)]


def first(question, found):
    return extract(question, found)[0]


@pytest.mark.parametrize(
    ("question", "path", "line"),
    [
        ("What is MAX_RETRIES set to?", "src/config.py", "MAX_RETRIES = 5"),
        ("What is the default salt of Signer?", "src/sign.py", '        salt=b"pepper",'),
        ("Which exception does unsign raise?", "src/sign.py", '            raise BadSignature("no separator")'),
        ("Which class signs text?", "src/sign.py", "class Signer:"),
        ("What does other return?", "src/config.py", "    return None"),
    ],
)
def test_the_line_that_answers_is_quoted_from_the_passage_that_has_it(question, path, line, found):
    quote = first(question, found)
    assert quote.passage.path == path
    assert line in quote.lines


def test_a_quote_holds_the_whole_statement_and_the_head_of_what_it_is_in(found):
    lines = first("What does Signer raise when the separator cannot be used?", found).lines
    assert "            raise ValueError(" in lines
    assert '                "the separator cannot be used"' in lines
    assert "    def __init__(" in lines
    assert "    ):" in lines


def test_it_is_written_with_its_place_its_marker_and_real_line_numbers(found):
    text = write_extract(extract("What is TIMEOUT_S?", found)[:1])
    assert text.startswith("`run` in `src/config.py`, line 2 [2]:\n\n```python\nTIMEOUT_S = 30\n```")
    quote = first("Which exception does unsign raise?", found)
    whole = SIGNER.splitlines()
    for start, end in quote.spans:
        assert "\n".join(whole[start - 11 : end - 10]) in "\n".join(quote.lines)


@pytest.mark.parametrize(
    ("code", "head"),
    [
        ('func (s *Server) Listen(addr string) error {\n\treturn errors.New("no address")\n}\n', 0),
        ("export const listen = async (addr: string) => {\n  throw new Error('no address')\n}\n", 0),
        ("class Server {\n  listen(addr) {\n    if (!addr) {\n      throw new Error('no address')\n", 1),
        ('  public void listen(String addr) throws IOException {\n    throw new Error("no address");\n', 0),
        ('pub fn listen(addr: &str) -> Result<(), Error> {\n    return Err(Error::new("no address"))\n}\n', 0),
        ("static int listen(const char *addr) {\n    abort(); /* no address */\n}\n", 0),
    ],
)
def test_the_head_of_what_a_line_is_in_is_found_in_other_languages(code, head, passage):
    quote = first("What does listen raise when there is no address?", [passage("server", code)])
    assert code.splitlines()[head] in quote.lines
    assert quote.symbol.lower().endswith("listen")


def test_nothing_is_quoted_where_no_word_is_shared(found):
    assert extract("How do bananas ripen?", found) == ()
    assert extract("MAX_RETRIES?", []) == ()


def test_a_block_with_a_fence_in_it_is_fenced_longer(passage):
    text = write_extract(
        extract("How is install done?", [passage("README.md", "install:\n```sh\npip install x\n```\n")])
    )
    assert "````python\n" in text
    assert text.endswith("\n````")


def test_a_form_feed_ends_no_line(passage):
    [quote] = extract("What is TIMEOUT_S?", [passage(text="# page one\x0c page two\u2028\r\nTIMEOUT_S = 3\r\n")])
    assert (quote.spans, quote.lines) == (((2, 2),), ("TIMEOUT_S = 3",))


def test_a_file_that_is_named_comes_first(passage):
    quotes = extract(
        "What is the version in setup.cfg?", [passage("a.py", "version = 1\n"), passage("setup.cfg", "version = 2\n")]
    )
    assert [quote.passage.path for quote in quotes] == ["setup.cfg", "a.py"]


def test_what_a_reader_cannot_see_is_not_quoted_and_a_path_ends_no_code(passage):
    text = write_extract(extract("What is TIMEOUT_S?", [passage("a`b.py", "TIMEOUT_S = 3\u202e0\u200b\n")]))
    assert text == "`run` in `a'b.py`, line 1 [1]:\n\n```python\nTIMEOUT_S = 30\n```"


@given(st.text(alphabet="ab_=(){}\n\r\t é🙂#:", max_size=80), st.text(alphabet="ab_ é🙂?", max_size=20))
def test_whatever_the_text_quotes_are_lines_of_it(text, question):
    lines = text.splitlines()
    passage = Passage("a.py", 5, 5 + max(0, len(lines) - 1), 1.0, "", "python", text, "")
    for quote in extract(question, [passage]):
        assert set(quote.lines) <= {*lines, "…"}
        assert all(5 <= first <= last <= passage.end_line for first, last in quote.spans)


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        ("[2]", "\n\n`run` in `src/config.py`, lines 1-6 [2]"),
        (" [2].\n", "\n\n`run` in `src/config.py`, lines 1-6 [2]"),
        ("[2][1][9]", "\n\n`run` in `src/config.py`, lines 1-6 [2]; `run` in `src/sign.py`, lines 11-29 [1]"),
        ("In the file [2].", "\n\n`run` in `src/config.py`, lines 1-6 [2]"),
        ("The function that retries is [2].", "\n\n`run` in `src/config.py`, lines 1-6 [2]"),
        ("It retries with `run`, as is shown in [2].", ""),
        ("It retries five times.\nMore is in [2].", ""),
        ("It is in `config.py` [2].", ""),
        ("It retries five times [2]. Then it is", ""),
        ("1 [2]", ""),
        ("[9]", ""),
        ("", ""),
    ],
)
def test_a_marker_in_the_place_of_a_name_is_spelled_out_and_no_other(answer, missing, found):
    assert spelled_out(answer, found) == missing
