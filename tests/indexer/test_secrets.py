"""Secrets are found in every place they are written, and next to nothing else is."""

from __future__ import annotations

import random
import string

import pytest

from indexer.lines import split_lines
from indexer.secrets import mask_secrets

_DICE = random.Random(7)


def made_of(alphabet: str, count: int) -> str:
    return "".join(_DICE.choice(alphabet) for _ in range(count))


LETTERS, WORD = string.ascii_letters + string.digits, string.ascii_letters + string.digits + "_-"
HEX, UPPER = "0123456789abcdef", string.ascii_uppercase + "234567"
# Put together here, so that no scanner of this repository finds one.
TOKENS = {
    "aws-access-key": "AK" + "IA" + made_of(UPPER, 16),
    "github-token": "gh" + "p_" + made_of(LETTERS, 36),
    "github-pat": "github" + "_pat_" + made_of(LETTERS, 22) + "_" + made_of(LETTERS, 59),
    "gitlab-token": "gl" + "pat-" + made_of(LETTERS, 20),
    "slack-token": "xo" + "xb-" + made_of("0123456789", 12) + "-" + made_of(LETTERS, 24),
    "openai-key": "sk-" + "proj-" + made_of(WORD, 60),
    "anthropic-key": "sk-" + "ant-api03-" + made_of(WORD, 60),
    "huggingface-token": "h" + "f_" + made_of(string.ascii_letters, 34),
    "google-api-key": "AI" + "za" + made_of(WORD, 35),
    "pypi-token": "py" + "pi-AgEI" + made_of(WORD, 80),
    "npm-token": "np" + "m_" + made_of(LETTERS, 36),
    "stripe-key": "sk" + "_live_" + made_of(LETTERS, 24),
    "sendgrid-key": "S" + "G." + made_of(WORD, 22) + "." + made_of(WORD, 43),
    "twilio-key": "S" + "K" + made_of(HEX, 32),
    "jwt": "ey" + "J" + made_of(WORD, 20) + ".ey" + "J" + made_of(WORD, 30) + "." + made_of(WORD, 43),
    "digitalocean-token": "do" + "p_v1_" + made_of(HEX, 64),
    "vault-token": "hv" + "s." + made_of(WORD, 24),
    "high-entropy": "aZ3" + made_of(LETTERS, 37) + "9kQ7",
}
CONTEXTS = (
    'token = "{}"', "{}", "use {} to log in", "# {}", "+    key: {}", "curl -H 'Authorization: Bearer {}' x",
    "export KEY={}", "| `{}` |", '{{"k": "{}"}}', "é 🎓 {}\r", "\t{},",
)  # fmt: skip


@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_is_masked_wherever_it_stands(kind):
    missed = [context for context in CONTEXTS if TOKENS[kind] in mask_secrets(context.format(TOKENS[kind])).text]
    assert missed == []


@pytest.mark.parametrize(
    "line",
    [
        'password = "' + "hunter2" + 'horse!"',
        "DB_PASSWORD=" + "k3yb0ard-C4t-99",
        "postgres://admin:" + "s3cr3tpw" + "@db.internal/x",
        "aws_secret_access_key = " + made_of(LETTERS + "/+", 40),
        'client_secret: "' + made_of(LETTERS, 16) + '1a"',
        "AccountKey=" + made_of(LETTERS, 86) + "==",
    ],
)
def test_what_is_assigned_to_a_secret_name_is_masked(line):
    assert mask_secrets(line).counts


def test_a_private_key_is_masked_and_its_lines_stay():
    body = "".join(made_of(LETTERS, 64) + "\r\n" for _ in range(5))
    text = "a\r\n-----BEGIN RSA " + "PRIVATE KEY-----\r\n" + body + "-----END RSA " + "PRIVATE KEY-----\r\nb\r\n"
    masked = mask_secrets(text)
    assert masked.counts == {"private-key": 1}
    assert masked.text == "a\r\n<secret:private-key>" + "\r\n" * 6 + "\r\nb\r\n"


CLEAN = """\
password = "changeme"
PASSWORD_FIELD = "password"
token = get_token(request)
api_key = os.environ["API_KEY"]
sha1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
uuid = "123e4567-e89b-12d3-a456-426614174000"
def test_validate_json_schema_of_http2_request_with_utf8_body_v3(): ...
from package.sub_package.module_name import VeryLongClassNameFactoryBuilder2
url = "https://user:password@example.org/"
path = "src/components/Button/__tests__/Button.snapshot.test.tsx"
secret: Optional[str] = None
token: str = Field(default=None)
integrity sha512-see-lock-file
alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
é 🎓 \x0c \u2028 auth_token = auth_token or default
"""


def test_clean_code_stays_as_it_is():
    assert mask_secrets(CLEAN).text == CLEAN
    assert mask_secrets("").text == ""


def test_the_number_of_lines_never_changes():
    text = "\n".join(context.format(token) for token in TOKENS.values() for context in CONTEXTS) + "\r\n\x0c\u2028\r"
    assert len(split_lines(mask_secrets(text).text)) == len(split_lines(text))
