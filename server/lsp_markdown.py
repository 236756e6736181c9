"""An answer as Markdown that is safe to show: the model's words can hold no link, image, HTML or command. Pure.

Assume that what the model read told it what to write. Every "[" and "<" outside code becomes an entity, so that
nothing but the citations that we add is a link. Code is only what every renderer takes for code: fences at column 0,
and code spans on one line while all lines before it in the paragraph were balanced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Bidirectional controls, zero-width spaces and tag characters: what a reader cannot see. Joiners stay: emoji need them.
HIDDEN = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
_OPENS = re.compile(r"(`{3,}(?=[^`\r\n]*[\r\n]*\Z)|~{3,})")
_RUN = re.compile(r"`+")
_MARKER = re.compile(r"\[(\d{1,3})\]")


def safe_markdown(answer: str, links: Mapping[int, str]) -> str:
    """`answer` with its markers `[n]` as links to `links[n]`, and nothing else that a renderer would act on."""
    fence = ""
    balanced = True
    safe = []
    for line in _LINE.findall(HIDDEN.sub("", answer)):
        if fence:
            fence = "" if _closes(line, fence) else fence
            safe.append(line)
        elif (opens := _OPENS.match(line)) is not None:
            fence, balanced = opens[1], True
            safe.append(line)
        else:
            balanced = balanced or not line.strip()
            text, balanced = _safe_line(line, links, balanced)
            safe.append(text)
    # An open fence would swallow what is shown after the answer.
    return "".join(safe) + (f"\n{fence}\n" if fence else "")


def _closes(line: str, fence: str) -> bool:
    # More than CommonMark lets close: what we take for closed and a renderer does not is only less pretty.
    word = line.strip()
    return len(word) >= len(fence) and set(word) == {fence[0]}


def _safe_line(line: str, links: Mapping[int, str], balanced: bool) -> tuple[str, bool]:
    """The line made safe, and whether a reader of the next one can still tell code from text."""
    spans = _code_spans(line) if balanced and "\\`" not in line else None
    if spans is None:
        return _safe_text(line, links), not _RUN.search(line) and balanced
    parts, at = [], 0
    for start, end in spans:
        parts += [_safe_text(line[at:start], links), line[start:end]]
        at = end
    return "".join([*parts, _safe_text(line[at:], links)]), True


def _code_spans(line: str) -> list[tuple[int, int]] | None:
    """Where the code spans of a line are; None when a run of backticks has no partner, or a table could cut one."""
    runs = list(_RUN.finditer(line))
    spans = []
    while runs:
        opening = runs.pop(0)
        partner = next((run for run in runs if len(run[0]) == len(opening[0])), None)
        if partner is None or "|" in line[opening.start() : partner.end()]:
            return None
        spans.append((opening.start(), partner.end()))
        runs = runs[runs.index(partner) + 1 :]
    return spans


def _safe_text(text: str, links: Mapping[int, str]) -> str:
    parts, at = [], 0
    for match in _MARKER.finditer(text):
        link = links.get(int(match[1]))
        before = text[: match.start()]
        # After a bang it would be an image, after a backslash no link; what comes after it follows our own "(...)".
        if link is not None and before[-1:] not in ("\\", "!"):
            parts += [_escaped(text[at : match.start()]), f"[&#91;{match[1]}&#93;]({link})"]
            at = match.end()
    return "".join([*parts, _escaped(text[at:])])


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("[", "&#91;")
