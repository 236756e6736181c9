"""The files of a change, in the text of a pull request or a commit: found, and taken out where they say nothing new.

Two forms: `File: <path>, Status: <status>` with `Changes:`, and git's own `diff --git a/<path> b/<path>`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_HEAD = re.compile(r"^(?:File: (.+?), Status: .*|diff --git a/.+ b/(.+))$")
_TOUCHED = re.compile(r"^(?:File: (.+?), Status: |diff --git a/.+ b/(.+)$|\+\+\+ b/(.+)$|--- a/(.+)$)", re.MULTILINE)
_PATCH_LINE = re.compile(
    r"^(?:[@+\- \\]|Changes:|index |new file|deleted file|old mode|new mode|similarity |rename |copy |Binary files |$)"
)


@dataclass(frozen=True, slots=True)
class Patch:
    """What a change does to the file at `path`: lines `[start, end)` (0-based) of its text, `added` without the `+`."""

    path: str
    start: int
    end: int
    text: str
    added: str


def patches_of(text: str) -> list[Patch]:
    """The patches in a change's text, in order."""
    lines = text.split("\n")
    heads = [(number, match) for number, line in enumerate(lines) if (match := _HEAD.match(line.rstrip("\r")))]
    found: list[Patch] = []
    for place, (start, match) in enumerate(heads):
        limit = heads[place + 1][0] if place + 1 < len(heads) else len(lines)
        end = start + 1
        while end < limit and _PATCH_LINE.match(lines[end]):
            end += 1
        while end > start + 1 and not lines[end - 1]:
            end -= 1
        body = [line.removeprefix("Changes: ") for line in lines[start + 1 : end]]
        added = "\n".join(line[1:] for line in body if line.startswith("+") and not line.startswith("+++"))
        found.append(Patch(match[1] or match[2], start, end, "\n".join(lines[start:end]), added))
    return found


def touched_paths(text: str) -> set[str]:
    """The files that a diff of any form is about."""
    return {next(filter(None, match)) for match in _TOUCHED.findall(text)}


def take_out(text: str, why: Callable[[Patch], str]) -> tuple[str, list[str]]:
    """`text` without the patches that `why` gives a reason for, and those reasons."""
    lines = text.split("\n")
    reasons: list[str] = []
    for patch in reversed(patches_of(text)):
        if reason := why(patch):
            lines[patch.start : patch.end] = []
            reasons.append(reason)
    return "\n".join(lines) if reasons else text, reasons
