"""Ignore files (`.gitignore`, `.nightschoolignore`) by git's rules: nested, the nearest and last word wins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec


class IgnoreRules:
    """What the ignore files of the given names say in a tree; each folder's files are read once."""

    def __init__(self, root: Path, names: tuple[str, ...]) -> None:
        self._root = root
        self._names = names
        self._specs: dict[str, GitIgnoreSpec | None] = {}
        self._folders: dict[str, bool] = {}

    def ignores(self, path: str) -> bool:
        """Is `path` (relative, "/"), or a folder above it, ignored?"""
        folder, slash, _ = path.rpartition("/")
        return (bool(slash) and self._ignores_folder(folder)) or self._ignores_itself(path)

    def _ignores_folder(self, folder: str) -> bool:
        if folder not in self._folders:
            self._folders[folder] = self.ignores(folder) or self._ignores_itself(f"{folder}/")
        return self._folders[folder]

    def walk(self, folder: str = "") -> Iterator[str]:
        """Every file below that is not ignored; links to folders are not followed, `.git` is not entered."""
        try:
            entries = sorted(os.scandir(self._root / folder), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            path = f"{folder}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if entry.name != ".git" and not self._ignores_itself(f"{path}/"):
                    yield from self.walk(f"{path}/")
            elif not self._ignores_itself(path):
                yield path

    def walk_only(self, tops: Iterable[str]) -> Iterator[str]:
        """What `walk` gives of these files and folders; nothing else is looked at, however large the tree is."""
        for top in tops:
            if self._is_walked_to(top) and not self.ignores(top):
                if not os.path.isdir(full := f"{self._root}/{top}") or os.path.islink(full):  # noqa: PTH112, PTH114
                    yield top
                elif not self._ignores_folder(top):
                    yield from self.walk(f"{top}/")

    def _is_walked_to(self, top: str) -> bool:
        """Is it there, and not below a link or in a `.git`?"""
        *folders, name = top.split("/")
        above = ["/".join(folders[:count]) for count in range(1, len(folders) + 1)]
        in_git = ".git" in folders or (name == ".git" and (self._root / top).is_dir())
        return os.path.lexists(self._root / top) and not in_git and not any(map(self._is_link, above))

    def _is_link(self, folder: str) -> bool:
        return (self._root / folder).is_symlink()

    def _ignores_itself(self, path: str) -> bool:
        folder = path.rstrip("/").rpartition("/")[0]
        while True:
            spec = self._spec(folder)
            if spec is not None:
                decided = spec.check_file(path[len(folder) + 1 :] if folder else path).include
                if decided is not None:
                    return decided
            if not folder:
                return False
            folder = folder.rpartition("/")[0]

    def _spec(self, folder: str) -> GitIgnoreSpec | None:
        if folder not in self._specs:
            lines: list[str] = []
            for name in self._names:
                try:
                    lines += (self._root / folder / name).read_text("utf-8", "replace").split("\n")
                except OSError:
                    continue
            self._specs[folder] = GitIgnoreSpec.from_lines(lines) if lines else None
        return self._specs[folder]
