"""Answers as HTML: what is shown, and that whatever a model writes, nothing in it can act."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.markdown import HIGHLIGHTED_CHARACTERS, highlight_lines, render_markdown

# Every tag that may come out, and every attribute it may have.
ALLOWED = {
    "p": (), "br": (), "hr": (), "em": (), "strong": (), "s": (), "blockquote": (), "ul": (), "ol": ("start",),
    "li": (), "h1": (), "h2": (), "h3": (), "h4": (), "h5": (), "h6": (), "code": (), "pre": ("class", "tabindex"),
    "span": ("class",), "table": (), "thead": (), "tbody": (), "tr": (), "th": ("data-align",), "td": ("data-align",),
    "button": ("type", "class", "data-passage", "aria-label"),
}  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://evil/?a)",
    "[x](javascript:alert(1))",
    "[x](command:evil)",
    "[x][y]\n\n[y]: http://evil",
    "![x][y]\n\n[y]: http://evil",
    "<http://evil>",
    "<a@evil.example>",
    "[1](javascript:alert(1))",
    "![1](http://evil)",
    "[1]: http://evil\n\n[1]",
    "<svg/onload=alert(1)>",
    "<!-- x -->",
    '```py" onclick="alert(1)\nx\n```',
    '```"><img src=x>\nx\n```',
    "~~~<b>\n<b>\n~~~",
    "|a|b|\n|:-:|--:|\n|<b>|[1]|",
    "&lt;img src=x&gt;",
    "`<img src=x>`",
    "    <img src=x>",
    "# <b>x</b>",
    "> <iframe src=http://evil>",
    "\\<b>",
    "<b\n>",
    "[[1]](http://evil)",
    "[1[1]1]",
    "**[1]**",
    "<base href=http://evil>",
    "&#x3c;b&#x3e;",
    "\u202e<b>\u200b",
    "x\x00<b>",
]


class Judge(HTMLParser):
    """Says what in a page is not allowed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.bad: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ALLOWED or not {name for name, _ in attrs} <= set(ALLOWED[tag]):
            self.bad.append(f"<{tag} {attrs}>")
        if tag not in ("br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("br", "hr") and (not self.open or self.open.pop() != tag):
            self.bad.append(f"</{tag}>")

    def handle_comment(self, data: str) -> None:
        self.bad.append(f"<!--{data}-->")

    handle_decl = handle_pi = unknown_decl = handle_comment


def what_can_act(html: str) -> list[str]:
    judge = Judge()
    judge.feed(html)
    judge.close()
    return judge.bad + judge.open


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_markdown_cannot_act(text: str) -> None:
    assert what_can_act(render_markdown(text, 8)) == []
    assert all(what_can_act(line) == [] for line in highlight_lines(text, "a.py"))


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.sampled_from([*HOSTILE, "\n", "\n\n", "`", "```", "[", "](", "|", "    ", "é🌍", "\r\n"]), max_size=8),
    st.text(),
)
def test_no_mixture_of_hostile_pieces_can_act(pieces: list[str], text: str) -> None:
    assert what_can_act(render_markdown("".join([*pieces, text, *pieces]), 8)) == []


def test_the_judge_sees_what_acts() -> None:
    assert what_can_act('<p><img src="x"></p>')
    assert what_can_act('<p onclick="x">a</p>')
    assert what_can_act("<p>")


def test_markers_of_passages_are_buttons_and_others_stay_words() -> None:
    button = '<button type="button" class="citation" data-passage="2" aria-label="source 2">2</button>'
    html = render_markdown("See [2], [3], `[2]`.", 2)
    assert html == f'<p>See <span class="cited">{button},</span> [3], <code>[2]</code>.</p>\n'


def test_code_is_highlighted_by_its_language_and_plain_without_one() -> None:
    html = render_markdown("```python\ndef f(): pass\n```", 0)
    assert '<span class="k">def</span>' in html
    assert (
        render_markdown("```nolanguage\n<b>\n```", 0)
        == '<pre class="code" tabindex="0"><code>&lt;b&gt;\n</code></pre>\n\n'
    )


def test_each_line_of_a_passage_is_whole_by_itself() -> None:
    lines = highlight_lines('def f():\r\n    """é 🌍\r\n    two"""\r\n\r\n    return "<b>"\r\n', "shop/cart.py")
    assert len(lines) == 5
    assert all(what_can_act(line) == [] for line in lines)
    assert lines[1] == '<span class="w">    </span><span class="sd">"""é 🌍</span>'
    assert highlight_lines("a < b\n", "LICENSE") == ["a &lt; b"]
    assert highlight_lines("", "a.py") == [""]


def test_very_long_code_is_shown_plain() -> None:
    long = "x = 1\n" * HIGHLIGHTED_CHARACTERS
    assert highlight_lines(long, "a.py")[0] == "x = 1"
