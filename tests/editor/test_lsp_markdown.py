"""Safe Markdown, judged by a real renderer: markdown-it with HTML, tables and autolinks on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from server.lsp_markdown import safe_markdown

LINKS = {1: "file:///w/a%20b.py#L3", 2: "file:///w/%C3%A9.py#L1"}
RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def acted_on(markdown: str) -> list[str]:
    """Everything in `markdown` that a renderer would fetch, link or treat as HTML, but for our own links."""
    found = []
    for block in RENDERER.parse(markdown):
        for token in [block, *(block.children or [])]:
            if token.type in ("image", "html_block", "html_inline"):
                found.append(f"{token.type} {token.content}")
            if token.type == "link_open" and token.attrs["href"] not in LINKS.values():
                found.append(f"link {token.attrs['href']}")
    return found


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("", ""),
        (
            "Reads [1] and [2]: é😀\r\n",
            "Reads [&#91;1&#93;](file:///w/a%20b.py#L3) and [&#91;2&#93;](file:///w/%C3%A9.py#L1): é😀\r\n",
        ),
        ("No such [9]", "No such &#91;9]"),
        ("`x[1]` and `Vec<T>`", "`x[1]` and `Vec<T>`"),
        ("```rust\nVec<T> [1]\n```\n[1]", "```rust\nVec<T> [1]\n```\n[&#91;1&#93;](file:///w/a%20b.py#L3)"),
        ("```\nopen", "```\nopen\n```\n"),
        ("![1] \\[1]", "!&#91;1] \\&#91;1]"),
        ("a \u202eb\u200b c", "a b c"),
        ("a < b", "a &lt; b"),
    ],
)
def test_only_citations_become_links_and_code_stays_code(answer, shown):
    assert safe_markdown(answer, LINKS) == shown


@pytest.mark.parametrize(
    "answer",
    [
        "![x](http://attacker/?q)",
        "[x](command:evil)",
        "<img src=x>",
        "<http://attacker>",
        "![x][r]\n\n[r]: http://attacker",
        "`a\n`<img src=x>`",
        "`a\n# <img src=x>`",
        "`a | <img src=x>`\n---|---\n`b | <img src=x>`",
        "| `a | <img src=x>` |\n|---|---|\n| `a | <img src=x>` | b |",
        "- x\n  ```\n<img src=x>",
        "> ```\n<img src=x>\n> ```",
        "   ```\n   x\n   ```\n<img src=x>",
        "```a`b\n<img src=x>\n```",
        "\\`<img src=x>`",
        "`` a ` <img src=x> ``",
        "~~~\nx\n   ~~~   \n<img src=x>",
        "````\n```\n<img src=x>\n````\n<img src=x>",
        "```\n\x0b```\n<img src=x>",
        "&lt;img src=x&gt; &#91;x](http://a)",
        "[1][1] [[1]](http://a) [![1]](http://a)",
        "\t<img src=x>",
        "<!-- [1] --> <?php ?> <![CDATA[x]]>",
        "*`*<img src=x>`",
        "    `\n<img src=x>`",
    ],
)
def test_what_a_model_was_told_to_write_is_only_text(answer):
    assert acted_on(safe_markdown(answer, LINKS)) == []


MARKS = "` `` ``` ~~~ | |-|-| \\ ! > < ( ) * _ <!-- --> [1] [2] [r] &lt; x é😀".split()
HOSTILE = ["<img src=x>", "<a href='x'>", "![a](http://e)", "[a](command:x)", "[r]: http://e"]
SPACES = ["\n", "\n\n", "\r\n", "\r", " ", "    ", "\t", "> ", "- ", "1. ", "# "]
PIECES = st.sampled_from([*MARKS, *HOSTILE, *SPACES])


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_nothing_is_acted_on_whatever_the_pieces(answer):
    assert acted_on(safe_markdown(answer, LINKS)) == []
