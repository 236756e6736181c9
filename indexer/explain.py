"""Why a file is, or is not, in the index: one line for a person."""

from __future__ import annotations

import os
from pathlib import Path

from indexer.files import IGNORE_FILE, Skipped, SourceFile, list_files, read_source
from indexer.git import ignored_by
from indexer.ignores import IgnoreRules
from indexer.parts import Parts


def explain(path: str, parts: Parts) -> str:
    """`path` absolute or relative to the workspace."""
    root = parts.workspace.root
    # Not resolved: a link is judged as what it is. But no `..` may ask about what is outside.
    full = Path(os.path.normpath(root / path))
    try:
        relative = full.relative_to(root).as_posix()
    except ValueError:
        return f"{path}: not in the index: it is outside of {root}"
    if not full.exists() and not full.is_symlink():
        return f"{relative}: not in the index: there is no such file"
    if full.is_dir() and not full.is_symlink():
        return f"{relative}: a folder: ask for a file in it"
    return f"{relative}: {_judge(relative, parts)}"


def _judge(relative: str, parts: Parts) -> str:
    if IgnoreRules(parts.workspace.root, (IGNORE_FILE,)).ignores(relative):
        return f"not in the index: {IGNORE_FILE} leaves it out"
    if relative not in list_files(parts.workspace, [relative]):
        rule = ignored_by(parts.workspace.root, relative)
        return f"not in the index: git ignores it{f' ({rule})' if rule else ''}"
    source = read_source(parts.workspace, relative, parts.settings)
    if not isinstance(source, SourceFile):
        return f"not in the index: {source.reason if isinstance(source, Skipped) else 'it is gone'}"
    if parts.catalogue.file_hash(relative) != source.sha256:
        return "source, but not read yet since it changed: run `nightschool index`"
    return f"in the index: {source.language}, {len(parts.catalogue.chunks_of(relative))} chunks"
