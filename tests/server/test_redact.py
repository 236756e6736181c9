"""No secret leaves in an answer, however it is cut into pieces; all else leaves as it is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.secrets import mask_secrets
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


def test_a_line_begins_before_its_first_word_is_whole():
    redactor = Redactor()
    pieces = ("The", " signature", " is\n", "  re", "turn", "ed", " here")
    assert [redactor.feed(piece) for piece in pieces] == ["The", " ", "signature is\n", "  re", "", "", "turned "]
    assert redactor.close() == "here"


ALONE = (TOKEN, "xoxb-" + "1a2B3c4D5e" * 2, "hf_" + "abCD" * 8, "dapi" + "0a1b2c3d" * 4, "kqwzpvL3m9Xt7Rb2Vn8Yd4Hs6")


@pytest.mark.parametrize("secret", ALONE)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_of_a_secret_that_begins_a_line_at_most_four_letters_are_shown(secret, size):
    for text in (secret, f"{secret} is the key", f"The keys:\n  {secret}\n"):
        shown = redacted(text, size)
        assert "<secret:" in shown
        assert not any(secret[n : n + 5] in shown for n in range(len(secret) - 4))


def test_behind_a_word_that_tells_of_a_secret_no_letter_is_shown_early():
    redactor = Redactor()
    assert [redactor.feed(piece) for piece in ("password = ", "hunt", "er2")] == ["password = ", "", ""]


class WholeLines(Redactor):
    """The same, with the whole line masked again for each piece: slow, and surely right."""

    def _remember(self, ready):
        self._shown = (self._shown + ready).rsplit("\n", 1)[-1]

    def _mask(self, text):
        whole = mask_secrets(self._shown + text).text
        return whole[len(self._shown) :] if whole.startswith(self._shown) else mask_secrets(text).text


WORDS = ("the", "signature", "is", "=", "token", "in Signer.verify_signature", ",", "\n", "  ", ")", TOKEN, "AB" * 20)
MORE = ("password = 'hJ8$kq2Lm9x'", "api_key: 'q7$Wz2pL'", "see https://joe:s3cr3t9@example.org", "a1B2c3D4e5" * 4)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(WORDS + MORE), max_size=40), st.integers(1, 9))
def test_looking_at_less_finds_the_same_secrets(words, size):
    def pieces(redactor, text):
        return [redactor.feed(text[n : n + size]) for n in range(0, len(text), size)] + [redactor.close()]

    text = " ".join(words)
    assert pieces(Redactor(), text) == pieces(WholeLines(), text)


def test_a_secret_far_from_the_word_that_tells_of_it_is_found():
    secret = "wJalrXUtnFEMIKxMDENGbPxRfiCYzzabQRstuVwX"  # no digit: only "aws" and "secret" tell
    text = f"{'a ' * 500}aws {'b ' * 13}secret {'c ' * 13}{secret} and so on"
    assert secret not in redacted(text, 3)
    assert secret not in redacted(f"password ={' ' * 2000}'hJ8$kq2Lm9x' ", 3)


def test_a_long_line_costs_no_more_a_word_than_a_short_one(monkeypatch):
    seen = []
    monkeypatch.setattr("server.redact.mask_secrets", lambda text: seen.append(len(text)) or mask_secrets(text))
    redacted("The signature is checked in Signer.verify_signature, " * 200, 4)
    assert max(seen) < 1_000
    assert len(seen) < 200 * 3
