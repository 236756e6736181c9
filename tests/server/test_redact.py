"""No secret leaves in an answer, however it is cut into pieces; all else leaves as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.redact import Redactor

TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2
KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEow" * 20 + "\n-----END RSA PRIVATE KEY-----\n"


def redacted(text, size):
    redactor = Redactor()
    pieces = [redactor.feed(text[start : start + size]) for start in range(0, len(text), size)]
    return "".join([*pieces, redactor.close()])


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_token_is_replaced_however_it_is_cut(size):
    text = f'Use {TOKEN} here,\nthen `password = "hJ8$kq2Lm9x"` there.\n'
    shown = redacted(text, size)
    assert TOKEN not in shown
    assert "hJ8$kq2Lm9x" not in shown
    assert shown.startswith("Use <secret:github-token> here,\nthen `password = ")


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_private_key_never_shows_whole_or_broken_off(size):
    assert "MIIE" not in redacted(f"It is\n{KEY}that.", size)
    assert redacted(f"It is\n{KEY}that.", size).endswith("that.")
    assert redacted("It is\n" + KEY[:90], size) == "It is\n<secret:private-key>"


@given(st.text(alphabet="ab =:'\n\r\té🙂`[1]", max_size=60), st.integers(1, 9))
def test_a_text_without_secrets_stays_as_it_is(text, size):
    assert redacted(text, size) == text


def test_whole_words_are_shown_at_once():
    redactor = Redactor()
    assert [redactor.feed(piece) for piece in ("It ", "is he", "re.\n")] == ["It ", "is ", "here.\n"]
