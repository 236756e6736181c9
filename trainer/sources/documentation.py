"""The repository's own documentation at the snapshot's commit (README, docs/, decision records): a document a page."""

from __future__ import annotations

import re
from datetime import datetime

from trainer.sources.cleaning import clean_prose
from trainer.sources.document import Document
from trainer.sources.gathering import Gathering
from trainer.sources.history import History, NoHistory
from trainer.sources.snapshot import Snapshot

# What GitHub renders, and plain text.
MARKUP = frozenset("md markdown mkd mdx rst adoc asciidoc asc org textile rdoc creole mediawiki wiki pod txt".split())
_FOLDERS = frozenset("doc docs documentation adr adrs rfc rfcs wiki guide guides manual".split())
_NAMES = re.compile(
    r"(?:readme|contributing|architecture|changelog|changes|history|news|install|design|hacking|upgrading|migration"
    r"|security|support|faq)\b",
    re.IGNORECASE,
)
# Text files that machines read.
_NO_PAGE = re.compile(r"(?:requirements.*|constraints.*|cmakelists|robots|licen[cs]e.*|sources|top_level)\.txt$", re.I)
_MARKDOWN_TITLE = re.compile(r"^#{1,2}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_UNDERLINED_TITLE = re.compile(r"^(?P<title>\S.{0,120})\r?\n(?P<line>([=\-~#*^])\3{2,})[ \t]*\r?$", re.MULTILINE)
_OTHER_TITLE = re.compile(r"^(?:= |#\+title:|h1\. )[ \t]*(.+?)[ \t=]*$", re.MULTILINE | re.IGNORECASE)


def gather_documentation(snapshot: Snapshot, history: History, gathering: Gathering) -> None:
    """A document for each page of `snapshot` with the date of its last change, the snapshot's where git knows none."""
    pages = [file for file in snapshot.files if is_documentation(file.path)]
    dates = last_changes(history, snapshot.commit, [page.path for page in pages])
    for page in pages:
        done = clean_prose(page.text)
        title, date = title_of(done.text, page.path), dates.get(page.path, snapshot.date)
        gathering.take(
            Document(
                f"doc:{page.path}", "documentation", title, done.text, date, masked=done.masked, stripped=done.stripped
            )
        )


def is_documentation(path: str) -> bool:
    """A page: written in a markup language, in a folder for documentation or with a name like README."""
    *folders, name = path.split("/")
    stem, dot, ending = name.rpartition(".")
    if (dot and ending.lower() not in MARKUP) or _NO_PAGE.match(name):
        return False
    if _NAMES.match(stem or name):
        return True
    return bool(dot) and any(folder.lower() in _FOLDERS for folder in folders)


def title_of(text: str, path: str) -> str:
    """The first heading near the top, in Markdown, reStructuredText, AsciiDoc, Org or Textile; else the file's name."""
    head = text[:2_000]
    found = [rule.search(head) for rule in (_MARKDOWN_TITLE, _UNDERLINED_TITLE, _OTHER_TITLE)]
    first = min((match for match in found if match), key=lambda match: match.start(), default=None)
    title = (first["title"] if first and "title" in first.re.groupindex else first[1]) if first else ""
    return title.strip(" \t\r*_") or path.rpartition("/")[2].rpartition(".")[0] or path


def last_changes(history: History, commit: str, paths: list[str]) -> dict[str, datetime]:
    """When each of `paths` was last changed on the main line up to `commit`; nothing without a history."""
    if not commit or not paths:
        return {}
    try:
        return history.last_changed(commit, paths)
    except NoHistory:
        return {}
