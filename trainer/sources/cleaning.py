"""What every text of a source goes through before it is kept: hidden characters go first, then secrets."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from indexer.secrets import mask_secrets

# What a reader does not see and a model does: zero width, bidi, tags, variation selectors in a row, control characters,
# halves of surrogate pairs (which no file can hold).
# Persian and the Indic scripts are written with (non-)joiners, emoji are put together with joiners: one there stays.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
    "|(?<![\u0600-\u0dff])\u200c"
    "|(?<![\u0600-\u0dff\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])\u200d"
    "|[\ufe00-\ufe0f]{2,}"
)
_HTML_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_FENCED = re.compile(r"(^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\2[`~]*[ \t]*$)", re.DOTALL | re.MULTILINE)
# A key that a diff shows half of has no end that the rules of indexer.secrets could find.
_KEY_MARK = re.compile(r"-----(?:BEGIN|END) (?:[A-Z0-9]+ )*PRIVATE KEY")
_KEY_LINE = re.compile(r"^([ +\-]?[ \t]*)[A-Za-z0-9+/]{16,}={0,2}[ \t]*(?=\r?$)", re.MULTILINE)
_BLOCK_LINES = re.compile(r"(?:^[ +\-]?[ \t]*[A-Za-z0-9+/]{60,76}={0,2}[ \t]*\r?\n){3,}", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Clean:
    """A text fit to keep. `masked` counts replaced secrets by type, `stripped` characters that no reader sees."""

    text: str
    masked: dict[str, int] = field(default_factory=dict)
    stripped: int = 0


def clean(text: str) -> Clean:
    """`text` without hidden characters and secrets. The hidden go first: one inside a token would save it."""
    visible = strip_hidden(text)
    found = mask_secrets(visible)
    counts = Counter(found.counts)
    masked = _mask_key_blocks(found.text, counts)
    return Clean(masked, dict(counts), len(text) - len(visible))


def strip_hidden(text: str) -> str:
    """`text` without the characters that no reader sees; its lines stay."""
    return _HIDDEN.sub("", text)


def clean_prose(text: str) -> Clean:
    """As `clean`, for Markdown that people see rendered: HTML comments are hidden too, outside of code blocks."""
    pieces = _FENCED.split(text)
    # Of three pieces the second is a fenced block and the third its fence.
    shown = "".join(
        piece if place % 3 == 1 else _HTML_COMMENT.sub("", piece)
        for place, piece in enumerate(pieces)
        if place % 3 != 2
    )
    done = clean(shown)
    return Clean(done.text, done.masked, done.stripped + len(text) - len(shown))


def _mask_key_blocks(text: str, counts: Counter[str]) -> str:
    """Lines of base64 beside half a private key, or three and more of them in a row."""

    def replace(match: re.Match[str]) -> str:
        counts["private-key"] += 1
        return f"{match[1]}<secret:private-key>"

    if _KEY_MARK.search(text):
        return _KEY_LINE.sub(replace, text)
    return _BLOCK_LINES.sub(lambda block: _KEY_LINE.sub(replace, block[0]), text)
