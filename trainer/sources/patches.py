"""Diffs: which files' are learnt from, and how they are written down. The same for GitHub's and for git's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from indexer.files import IGNORE_FILE, Skipped, judge_content, judge_name
from indexer.ignores import IgnoreRules
from indexer.quarantine import Quarantine
from indexer.workspace import Workspace
from trainer.sources.cleaning import clean
from trainer.sources.gathering import Gathering

# A diff above is moved or generated code, or a whole new file, which the snapshot holds already.
_MAX_PATCH_CHARS = 20_000
_MAX_DOCUMENT_CHARS = 200_000
_FILE_START = re.compile(r"^diff --git (.*)\n", re.MULTILINE)
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_NAME_LINES = (
    ("rename from", "rename from ", ""), ("rename to", "rename to ", ""),
    ("+++ b", "+++ ", "b/"), ("--- a", "--- ", "a/"),
)  # fmt: skip
_QUOTED = re.compile(r'\\(["\\abtnvfr]|[0-7]{3})')
_ESCAPES = dict(zip('"\\abtnvfr', '"\\\a\b\t\n\v\f\r', strict=True))
NO_DIFF = "no diff (binary or too large)"


@dataclass(frozen=True, slots=True)
class FilePatch:
    """How a change altered one file. `status` is GitHub's word: added, removed, modified, renamed ...; `patch` hunks
    from the first `@@` on, None where there is none to show; `previous` the path before a renaming.
    """

    path: str
    status: str
    patch: str | None
    previous: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """The files of a change as text: `told` in words and hunks, `diff` as a unified diff; and what was cleaned."""

    told: str
    diff: str
    masked: dict[str, int]
    stripped: int


class DiffRules:
    """Whose diffs are learnt from: the file rules of the index, its ignore file and the quarantine."""

    def __init__(self, workspace: Workspace, quarantine: Quarantine) -> None:
        self._quarantine = quarantine
        self._ignores = IgnoreRules(workspace.root, (IGNORE_FILE,))

    def judge(self, file: FilePatch) -> str:
        """Why this file is not even named, "" when it is."""
        for path in filter(None, (file.path, file.previous)):
            if _HALF_PAIR.search(path):
                return "name is not UTF-8"
            if self._quarantine.holds_path(path):
                return "quarantined"
            if self._ignores.ignores(path):
                return IGNORE_FILE
            if reason := judge_name(path):
                return reason
        return ""


def tell_change(files: Iterable[FilePatch], rules: DiffRules, gathering: Gathering) -> Change:
    """The files that `rules` let through, those with a diff that is none to learn from without it."""
    told: list[str] = []
    diffs: list[str] = []
    masked: dict[str, int] = {}
    stripped = used = 0
    for file in files:
        if reason := rules.judge(file):
            gathering.leave_out(reason)
            continue
        shown = _without_bad_patch(file, _MAX_DOCUMENT_CHARS - used, gathering)
        done = clean(shown.patch or "")
        told.append(_tell(shown, done.text))
        diffs += [_head(shown) + done.text.rstrip("\n") + "\n"] if done.text else []
        masked = {kind: masked.get(kind, 0) + done.masked.get(kind, 0) for kind in {**masked, **done.masked}}
        stripped, used = stripped + done.stripped, used + len(done.text)
    return Change("".join(told), "".join(diffs), masked, stripped)


def _without_bad_patch(file: FilePatch, room: int, gathering: Gathering) -> FilePatch:
    reason = _judge_patch(file, room)
    if not reason:
        return file
    if file.status != "renamed" or file.patch:
        gathering.leave_out(reason)
    return replace(file, patch=None)


def _judge_patch(file: FilePatch, room: int) -> str:
    if not file.patch:
        return NO_DIFF
    if len(file.patch) > min(_MAX_PATCH_CHARS, room):
        return "diff too large"
    if _HALF_PAIR.search(file.patch):
        return "not UTF-8"
    lines = (line[1:] for line in file.patch.split("\n") if line[:1] in ("+", "-", " "))
    judged = judge_content(file.path, "\n".join(lines).encode())
    return judged.reason if isinstance(judged, Skipped) else ""


def _tell(file: FilePatch, patch: str) -> str:
    name = clean(file.path).text
    was = f" (from {clean(file.previous).text})" if file.previous and file.previous != file.path else ""
    changes = f"Changes: {patch.rstrip(chr(10))}\n" if patch else ""
    return f"File: {name}, Status: {file.status}{was}\n{changes}"


def _head(file: FilePatch) -> str:
    name = clean(file.path).text
    old = "/dev/null" if file.status == "added" else f"a/{clean(file.previous).text or name}"
    new = "/dev/null" if file.status == "removed" else f"b/{name}"
    return f"--- {old}\n+++ {new}\n"


def read_git_diff(text: str) -> list[FilePatch]:
    """The files of what `git diff` prints (prefixes a/ and b/, `core.quotepath=false`)."""
    pieces = _FILE_START.split(text)[1:]
    found = (_read_file(*pair) for pair in zip(pieces[::2], pieces[1::2], strict=True))
    return [file for file in found if file.path]


def _read_file(names: str, part: str) -> FilePatch:
    head, found, hunks = f"\n{part}".partition("\n@@ ")
    facts = dict(_facts(head.split("\n")))
    half = len(names) // 2  # "a/NAME b/NAME": an empty file, or a new mode, has no other line with its name
    same = names[2:half] if names[2:half] == names[half + 3 :] and not names.startswith('"') else ""
    path = facts.get("rename to") or facts.get("+++ b") or facts.get("--- a") or same
    return FilePatch(path, _status(facts), f"@@ {hunks}" if found else None, facts.get("rename from", ""))


def _facts(lines: Sequence[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        for name, start, prefix in _NAME_LINES:
            if line.startswith(start):
                path = _unquoted(line.removeprefix(start).rstrip("\t"))
                if path.startswith(prefix):
                    yield name, path.removeprefix(prefix)
        if line.startswith(("new file", "deleted file")):
            yield line.split(" ")[0], line
        if binary := re.match(r"Binary files (?:a/(.*) and /dev/null|.* and b/(.*)) differ$", line):
            yield ("+++ b", binary[2]) if binary[2] else ("--- a", binary[1])


def _unquoted(path: str) -> str:
    """A name as it is; git writes one that has quotes or control characters as C does."""
    if not path.startswith('"'):
        return path
    return _QUOTED.sub(lambda found: _ESCAPES.get(found[1]) or chr(int(found[1], 8)), path[1:-1])


def _status(facts: dict[str, str]) -> str:
    if "rename to" in facts:
        return "renamed"
    return "added" if "new" in facts else "removed" if "deleted" in facts else "modified"
