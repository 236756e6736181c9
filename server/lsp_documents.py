"""Open documents and the folders they lie in: from a URI to a workspace and a path in it, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from indexer import fleet_paths
from indexer.fleet_paths import file_of
from indexer.workspace import SETTINGS_FILE, Workspace
from server.lsp_text import Point, Text


@dataclass(slots=True)
class Document:
    """A document that the editor has open; `text` is what it shows, saved or not."""

    uri: str
    language: str
    version: int
    text: Text

    def set_text(self, source: str) -> None:
        self.text = Text.of(source, self.text.encoding)

    def edited(self, start: Point, end: Point, new: str) -> Document:
        """This document as it would be with `new` from `start` to `end`; itself it stays as it is."""
        text = Text(list(self.text.lines), self.text.encoding)
        text.replace(start, end, new)
        return Document(self.uri, self.language, self.version, text)


@dataclass(frozen=True, slots=True)
class Place:
    """A file of a workspace: `path` is relative to its root, with "/"."""

    workspace: Workspace
    path: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that the editor has open. `spelled` is how the editor writes it (it may lead through a symlink)."""

    workspace: Workspace
    spelled: Path


class Documents:
    """What the editor has open. URIs are compared decoded: editors differ in what they percent-encode."""

    def __init__(self) -> None:
        self._open: dict[str, Document] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Document]:
        return iter(list(self._open.values()))

    def open(self, uri: str, language: str, version: int, source: str, encoding: str) -> None:
        self._open[unquote(uri)] = Document(uri, language, version, Text.of(source, encoding))

    def get(self, uri: str) -> Document | None:
        return self._open.get(unquote(uri))

    def close(self, uri: str) -> None:
        self._open.pop(unquote(uri), None)


class Folders:
    """The open folders, one workspace each; a file belongs to the longest one that holds it."""

    def __init__(self) -> None:
        self._by_uri: dict[str, Folder] = {}

    def __iter__(self) -> Iterator[Folder]:
        return iter(list(self._by_uri.values()))

    def add(self, path: Path) -> Folder:
        folder = Folder(Workspace(root_of(path)), path)
        self._by_uri[str(path)] = folder
        return folder

    def remove(self, path: Path) -> None:
        self._by_uri.pop(str(path), None)

    def workspaces(self) -> list[Workspace]:
        """Each open workspace once, in the order that the editor named them."""
        return list(dict.fromkeys(folder.workspace for folder in self._by_uri.values()))

    def locate(self, uri: str) -> Place | None:
        """Where `uri` lies; None for what is no file (`untitled:`, a remote scheme) or in no open folder."""
        path = path_of(uri)
        if path is None:
            return None
        # The real path: a symlink that leads out of the workspace is not in it.
        real = Path(os.path.realpath(path))
        found = [(workspace, fleet_paths.path_of(workspace, real)) for workspace in self.workspaces()]
        places = [Place(workspace, inside) for workspace, inside in found if inside is not None]
        return min(places, key=lambda place: len(place.path), default=None)

    def uri(self, workspace: Workspace, path: str) -> str:
        """The URI of a file of `workspace`, under the folder's name as the editor spells it."""
        for folder in self._by_uri.values():
            if folder.workspace == workspace and Path(os.path.realpath(folder.spelled)) == workspace.root:
                real = file_of(workspace, path)
                inside = real.relative_to(workspace.root) if real.is_relative_to(workspace.root) else real
                return file_uri(folder.spelled / inside)
        return file_uri(file_of(workspace, path))


def root_of(folder: Path) -> Path:
    """The workspace root that `folder` lies in: the nearest folder upwards with `nightschool.toml` or `.git`, or it."""
    real = Path(os.path.realpath(folder))
    for candidate in (real, *real.parents):
        if (candidate / SETTINGS_FILE).is_file() or (candidate / ".git").exists():
            return candidate
    return real


def path_of(uri: str) -> Path | None:
    """The absolute path that a `file:` URI of this machine names; None for any other URI."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        return None
    path = unquote(parts.path)
    return Path(path) if path.startswith("/") and "\0" not in path else None


def file_uri(path: Path) -> str:
    # Parentheses too: the URI stands in a Markdown link.
    return "file://" + quote(str(path), safe="/~:@!$,;=+")
