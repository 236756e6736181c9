"""Workspaces, and an embedder small enough for every test: words hashed into 64 dimensions."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.files import SourceFile, source_files
from indexer.index import Index, open_index
from indexer.settings import IndexerSettings
from indexer.tokens import tokens
from indexer.update import describe
from indexer.workspace import Workspace


class WordEmbedder:
    """Texts with the same words are near each other. Counts what it embeds."""

    name = "words-64"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += texts
        vectors = np.zeros((len(texts), 64), np.float32)
        for row, text in enumerate(texts):
            vectors[row, 0] = 0.1
            for token in tokens(text):
                vectors[row, crc32(token.encode()) % 64] += 1
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty folder without git."""
    (tmp_path / "work").mkdir()
    return Workspace((tmp_path / "work").resolve())


@pytest.fixture
def git(workspace: Workspace) -> Callable[..., str]:
    """Runs git in the workspace, which it makes a repository."""

    def run(*arguments: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
        done = subprocess.run(["git", *who, *arguments], cwd=workspace.root, check=True, capture_output=True, text=True)
        return done.stdout

    run("init", "-q")
    return run


@pytest.fixture
def write(workspace: Workspace) -> Callable[[str, str | bytes], Path]:
    """Writes a file of the workspace, with the folders it needs."""

    def run(path: str, content: str | bytes) -> Path:
        file = workspace.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return run


@pytest.fixture
def opened(workspace: Workspace, embedder: WordEmbedder) -> Callable[[], AbstractContextManager[Index]]:
    """Opens the workspace's index with the word embedder."""
    return lambda: open_index(workspace, IndexerSettings(), embedder)


@pytest.fixture
def index(opened: Callable[[], AbstractContextManager[Index]]) -> Iterator[Index]:
    with opened() as one:
        yield one


@pytest.fixture
def rebuilt(workspace: Workspace) -> Callable[[], set[tuple[str, int, int, str, str]]]:
    """What an index of the tree as it is now must hold: (path, start, end, symbol, text) of every chunk."""

    def run() -> set[tuple[str, int, int, str, str]]:
        sources = [one for one in source_files(workspace, IndexerSettings()) if isinstance(one, SourceFile)]
        chunks = [chunk for source in sources for chunk in describe(source).chunks]
        return {(c.path, c.start_line, c.end_line, c.symbol, c.text) for c in chunks}

    return run


@pytest.fixture
def held() -> Callable[[Index], set[tuple[str, int, int, str, str]]]:
    """What an index holds, after asserting that catalogue, lexical index and store hold the same."""

    def run(index: Index) -> set[tuple[str, int, int, str, str]]:
        parts = index._parts
        chunks = list(parts.catalogue.every_chunk())
        assert parts.lexical.count() == len(chunks)
        if parts.store is not None:
            stored = {id: (c.text, c.path, c.start_line, c.end_line) for id, c in ((c.id, c) for c in chunks)}
            assert parts.store.rows() == stored
        return {(c.path, c.start_line, c.end_line, c.symbol, c.text) for c in chunks}

    return run
