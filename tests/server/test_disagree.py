"""Prose and code that say different values for one name are told apart, with both places."""

import pytest

from server.disagree import disagreements, say_disagreement


@pytest.fixture
def both(passage):
    from dataclasses import replace

    def make(prose, code):
        return [replace(passage("docs/net.md", prose, 10), language="markdown"), passage("src/net.py", code, 3)]

    return make


@pytest.mark.parametrize(
    ("prose", "code"),
    [
        ("The `timeout` defaults to 30.", "def get(url, timeout=60):\n"),
        ("`timeout` (default: `30`) is in seconds", "    timeout: float = 60,\n"),
        ("The default of `net.timeout` is `30`", "timeout = 60\n"),
        ("| `timeout` | `30` | seconds |", "timeout = 60  # seconds\n"),
        ("Set `timeout=30` by hand", "const timeout = 60;\n"),
        ("`--dry-run` (default: false)", "dry_run: bool = True\n"),
    ],
)
def test_a_value_that_the_code_does_not_have_is_found(prose, code, both):
    [one] = disagreements(both(prose, code))
    assert (one.prose.path, one.prose.line, one.code.path, one.code.line) == ("docs/net.md", 10, "src/net.py", 3)


@pytest.mark.parametrize(
    ("prose", "code"),
    [
        ("The `timeout` defaults to 30.", "timeout = 30\n"),
        ("The `retries` defaults to 1000.", "retries = 1_000\n"),
        ("`mode` defaults to 'fast'.", 'mode = "fast"\n'),
        ("`debug` defaults to true.", "debug = True\n"),
        ("The `timeout` defaults to 30.", "timeout = 60\ntimeout = 30\n"),
        ("The `timeout` defaults to 30.", "read_timeout = 60\n"),
        ("The timeout of 30 seconds", "timeout = 60\n"),
        ("The `timeout` defaults to 30.", "timeout = compute()\n"),
        ("", ""),
    ],
)
def test_what_agrees_or_speaks_of_something_else_is_left_alone(prose, code, both):
    assert disagreements(both(prose, code)) == ()


def test_it_is_said_with_both_places_and_days_and_the_code_counts(both):
    [one] = disagreements(both("The `timeout` defaults to 30.", "timeout = 60\n"))
    assert say_disagreement(one) == (
        "Text and code disagree: docs/net.md:10 says `timeout` is 30 [1], src/net.py:3 says 60 [2]. The code counts."
    )
    assert say_disagreement(one, "2026-01-02", "2026-05-06") == (
        "Text and code disagree: docs/net.md:10 (2026-01-02) says `timeout` is 30 [1], "
        "src/net.py:3 (2026-05-06) says 60 [2]. The code counts."
    )
    assert "the text is the newer" in say_disagreement(one, "2026-05-06", "2026-01-02")
