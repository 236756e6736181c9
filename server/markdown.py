"""Door to markdown-it and Pygments: answers and code as HTML that is safe to show. Pure.

Assume that what the model read told it what to write. No HTML of its own, no link and no image comes through; the only
thing to click are the citation markers, which become buttons of ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.util import ClassNotFound

from server.lsp_markdown import HIDDEN

# Longer code is shown plain: some of Pygments' lexers take seconds on what was made to be slow.
HIGHLIGHTED_CHARACTERS = 20_000
_MARKER = re.compile(r"\[(\d{1,3})\]([.,;:!?)]*)")
_FORMAT = HtmlFormatter(nowrap=True)  # classes, not styles: the page's policy forbids those


def render_markdown(text: str, passages: int) -> str:
    """`text` as HTML; its markers `[1]` to `[passages]` as buttons with the number in `data-passage`."""
    html: str = _MARKDOWN.render(HIDDEN.sub("", text), {"passages": passages})
    return html


def highlight_lines(text: str, path: str) -> list[str]:
    """The lines of `text` as HTML, coloured as the file name `path` asks for; each is whole by itself."""
    try:
        lexer = get_lexer_for_filename(path, stripnl=False, ensurenl=False)
    except ClassNotFound:
        lexer = None
    lines = HIDDEN.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _coloured(lines.removesuffix("\n"), lexer).split("\n")


def _coloured(code: str, lexer: Lexer | None) -> str:
    if lexer is None or len(code) > HIGHLIGHTED_CHARACTERS:
        return escape(code)
    html: str = highlight(code, lexer, _FORMAT)
    # Pygments ends its text with a line end whatever it was given.
    return html if code.endswith("\n") else html.removesuffix("\n")


def _fence(code: str, language: str, _: str) -> str:
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False) if language else None
    except ClassNotFound:
        lexer = None
    # In the tab order: what scrolls sideways must scroll with the keyboard too.
    return f'<pre class="code" tabindex="0"><code>{_coloured(code, lexer)}</code></pre>\n'


def _text(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, env: Any) -> str:
    def button(marker: re.Match[str]) -> str:
        number = int(marker[1])
        if not 1 <= number <= env["passages"]:
            return marker[0]
        attributes = f'type="button" class="citation" data-passage="{number}" aria-label="source {number}"'
        # With what follows it, so that no line begins with a full stop.
        return f'<span class="cited"><button {attributes}>{number}</button>{marker[2]}</span>'

    return _MARKER.sub(button, escape(tokens[at].content))


def _cell(markdown: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    """A table's cell: its alignment as an attribute of ours, because the page's policy forbids styles in the text."""
    align = str(tokens[at].attrs.pop("style", "")).removeprefix("text-align:")
    if align:
        tokens[at].attrs["data-align"] = align
    return markdown.renderToken(tokens, at, options, env)


def _indented(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, ___: Any) -> str:
    return _fence(tokens[at].content, "", "")


def _make_markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "highlight": _fence}).enable(["table", "strikethrough"])
    markdown.disable(["link", "image", "autolink", "reference"])
    for name, rule in {"text": _text, "th_open": _cell, "td_open": _cell, "code_block": _indented}.items():
        markdown.add_render_rule(name, rule)
    return markdown


_MARKDOWN = _make_markdown()
