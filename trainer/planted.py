"""Secrets that stand in the repository itself: masked in everything we keep, so no adapter may write them. In memory
only: what is found here is never written down.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from indexer.lines import split_lines
from indexer.workspace import Workspace
from trainer.sources.snapshot import Snapshot

_PLACEHOLDER = re.compile(r"<secret:[\w-]+>")
_CONTEXT_CHARS = 300
_MIN_CHARS = 8


@dataclass(frozen=True, slots=True)
class Planted:
    """A secret of the working tree, and the masked text that stands before it. The value is not shown by `repr`."""

    context: str
    value: str = field(repr=False)


def find_planted(workspace: Workspace, snapshot: Snapshot, count: int) -> list[Planted]:
    """Up to `count` secrets of the files that `snapshot` has masked, as they stand in the working tree."""
    found: list[Planted] = []
    for file in snapshot.files:
        if len(found) >= count or not _PLACEHOLDER.search(file.text):
            continue
        try:
            raw = (workspace.root / file.path).read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            continue
        found += _in_file(file.text, raw)
    return list({planted.value: planted for planted in found}.values())[:count]


def _in_file(masked: str, raw: str) -> list[Planted]:
    """Line by line: what stands in `raw` where `masked` has a placeholder. A line that changed meanwhile is passed."""
    found: list[Planted] = []
    raw_lines = split_lines(raw)
    before = ""
    for line in split_lines(masked):
        if _PLACEHOLDER.search(line):
            rule = re.compile("(.+?)".join(map(re.escape, _PLACEHOLDER.split(line))), re.DOTALL)
            match = next((m for other in raw_lines if (m := rule.fullmatch(other))), None)
            if match and len(match[1]) >= _MIN_CHARS:
                context = (before + _PLACEHOLDER.split(line)[0])[-_CONTEXT_CHARS:]
                found.append(Planted(context, match[1]))
        before += line
    return found
