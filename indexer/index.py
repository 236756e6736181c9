"""The facade: one open index of one workspace. Synchronous, safe to use from several threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue import Target
from indexer.chunking import Chunk
from indexer.embedding import Embedder, find_embedder
from indexer.exact import find_exact, parse_exact
from indexer.explain import explain
from indexer.following import Following
from indexer.git import commit_and_dirty, day_of_last_change, head_commit
from indexer.lexical import Weights
from indexer.lines import cut_lines
from indexer.lock import IndexUnavailable, NotReadable, own_folder
from indexer.missing import embed_missing
from indexer.named import find_named, is_known
from indexer.opening import close_parts, index_folder, open_parts, translated_errors
from indexer.parts import Parts
from indexer.ranking import Candidate, Query, rank
from indexer.reading import Reading
from indexer.reports import IndexState, UpdateReport
from indexer.search import CurrentTexts, Hits, Passage, find_hits, read_candidates, search, verify
from indexer.settings import IndexerSettings
from indexer.storing import Storing
from indexer.update import Progress, Tally, say_nothing
from indexer.watch import POLL_S
from indexer.word_counts import WordCounts
from indexer.workspace import Workspace

__all__ = ["Index", "IndexState", "IndexUnavailable", "NotReadable", "Progress", "UpdateReport", "open_index"]


@contextmanager
def open_index(workspace: Workspace, settings: IndexerSettings, embedder: Embedder | None = None) -> Iterator[Index]:
    """The index of `workspace`, owned until left; with `embedder` in place of the one that the settings name.

    Raises `IndexUnavailable`, at once when it is owned already.
    """
    with own_folder(index_folder(workspace)):
        with translated_errors(workspace):
            parts = open_parts(workspace, settings, embedder or find_embedder(settings.embedder))
        try:
            yield Index(parts)
        finally:
            close_parts(parts)


class Index:
    """See `open_index`. Every method raises `IndexUnavailable` when the index cannot be used."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._reading, self._storing = Reading(parts), Storing(parts)
        self._following = Following(parts, self._reading, self._storing)

    @property
    def workspace(self) -> Workspace:
        return self._parts.workspace

    # Bringing it up to date

    def update(self, on_progress: Callable[[Progress], None] = say_nothing, read: Tally | None = None) -> UpdateReport:
        """Bring the index up to the working tree. Interrupted or killed, the next call goes on; twice does nothing.

        `read`: what `prepare` has read just now, which is not read again.
        """
        started = time.monotonic()
        with translated_errors(self._parts.workspace):
            tally = self._reading.read(None, on_progress) if read is None else read
            tally.embedded = embed_missing([self._parts], on_progress, self._parts.workspace.logs)
            tally.embedded += self._storing.store_all(on_progress)
            files, chunks = self._parts.catalogue.count()
            masked = self._parts.catalogue.masked()
        seconds = time.monotonic() - started
        done = (files, chunks, tally.embedded, tally.updated_files, tally.deleted_files)
        return UpdateReport(*done, dict(sorted(tally.skipped.items())), masked, seconds, self._storing.fault)

    def prepare(self, on_progress: Callable[[Progress], None] = say_nothing) -> tuple[Parts, Tally]:
        """Read the tree. What the index is made of, for whoever embeds for many at once; and what was read."""
        with translated_errors(self._parts.workspace):
            return self._parts, self._reading.read(None, on_progress)

    # Asking

    def search(self, query: str, k: int = 10, overlays: Mapping[str, str] | None = None) -> list[Passage]:
        """The `k` best passages, verified. While an index that is being watched loads its embedder: by words only.

        A query in double quotes is looked for as it stands, one in slashes as a regular expression (raises `BadPattern`
        when it is none); then the passages are those around the first match in each file, in the order of paths.
        """
        with translated_errors(self._parts.workspace):
            if exact := parse_exact(query):
                return find_exact(exact, k, self._parts, overlays or {})
            return self._storing.with_store(lambda: search(query, k, self._parts, overlays or {}))

    def words_only(self) -> str:
        """Why searches find by words only for now, fit to show; "" when they find by meaning too."""
        return self._storing.fault

    def hits(self, query: Query, weights: Weights, embedding: NDArray[np.float32]) -> Hits:
        """What the searches find; `weights`: see `LexicalIndex.candidates`, `embedding` is the query's."""
        with translated_errors(self._parts.workspace):
            return self._storing.with_store(lambda: find_hits(query, self._parts, embedding, weights))

    def candidates(
        self, query: Query, hits: Hits, most: int, overlays: Mapping[str, str], every: WordCounts
    ) -> list[Candidate]:
        """The `most` best candidates of these hits and of what defines a name that is asked for, best first, not
        verified; open buffers are weighed by the words of `every` index."""
        with translated_errors(self._parts.workspace):
            found = read_candidates(query, hits, self._parts, overlays, every)
        by_id = {candidate.chunk.id: candidate for candidate in found}
        return [by_id[chunk.id] for chunk, _ in rank(query, found)[:most]]

    def verifier(self, overlays: Mapping[str, str]) -> Callable[[Chunk, float], Passage | None]:
        """What makes a chunk and its score a passage, or None when it is gone; each file is read once."""
        current = CurrentTexts(self._parts, overlays)

        def look(chunk: Chunk, score: float) -> Passage | None:
            with translated_errors(self._parts.workspace):
                return verify(chunk, score, current)

        return look

    @property
    def word_counts(self) -> WordCounts:
        """How rare each word is here."""
        return self._parts.lexical

    def is_current(self, path: str, start_line: int, end_line: int, sha256: str) -> bool:
        """Do these lines on disk (secrets masked) still have this hash?"""
        current = CurrentTexts(self._parts, {})
        source = current.source(path)
        if source is None:
            return False
        if _hash(cut_lines(source.text, start_line, end_line)) == sha256:
            return True
        return _hash(cut_lines(current.masked(path), start_line, end_line)) == sha256

    def state(self, with_git: bool = True) -> IndexState:
        """How fresh the index is, now. `with_git`: False leaves out what git must be asked for."""
        root, catalogue = self._parts.workspace.root, self._parts.catalogue
        with translated_errors(self._parts.workspace):
            files, chunks = catalogue.count()
            waiting_chunks = catalogue.waiting(Target.STORE)
            commit, dirty = commit_and_dirty(root) if with_git else (None, 0)
        waiting_files = self._following.waiting_files()
        behind = self._following.seconds_behind(waiting_files)
        return IndexState(commit, dirty, files, chunks, waiting_files, waiting_chunks, behind)

    def last_changed(self, path: str) -> str:
        """The day (ISO) of the last commit that changed `path`; "" when nobody knows."""
        return day_of_last_change(self._parts.workspace.root, path)

    def commit_of(self, repository: str) -> str:
        """The commit that is checked out; "" without git. There is one repository, whatever it is called."""
        return head_commit(self._parts.workspace.root) or ""

    def view(self, names: frozenset[str]) -> Index:
        """This index, for who may read the repository, which has the workspace folder's name. Raises `NotReadable`."""
        if self._parts.workspace.root.name not in names:
            raise NotReadable("you may read no repository here: ask who runs this server")
        return self

    def missing(self) -> tuple[str, ...]:
        """What cannot be searched now, one line each; an index of one workspace raises instead."""
        return ()

    def has_path(self, path: str) -> bool:
        """Is this file indexed?"""
        with translated_errors(self._parts.workspace):
            return self._parts.catalogue.file_hash(path) is not None

    def has_symbol(self, name: str) -> bool:
        """Is `name` defined in the tree? The last component of a dotted name is enough."""
        with translated_errors(self._parts.workspace):
            return self._parts.catalogue.has_symbol(name)

    def find_named(self, text: str, overlays: Mapping[str, str] | None = None) -> list[Passage]:
        """The passages of the files and symbols that `text` names outright, verified: a few of each."""
        with translated_errors(self._parts.workspace):
            return find_named(text, self._parts, overlays or {})

    def knows(self, name: str) -> bool:
        """Does this name of a file, symbol or option stand anywhere in the index?"""
        with translated_errors(self._parts.workspace):
            return is_known(name, self._parts)

    def read(self, path: str) -> str | None:
        """What the indexed file at `path` says now, secrets masked; None for a file that is not in the index."""
        with translated_errors(self._parts.workspace):
            if self._parts.catalogue.file_hash(path) is None:
                return None
        current = CurrentTexts(self._parts, {})
        return current.masked(path) if current.source(path) else None

    @property
    def embedder_name(self) -> str:
        """The embedding model of this index."""
        return self._parts.embedder.name

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Embeddings of `texts` as the index makes them: each of length 1, in the order of `texts`."""
        with translated_errors(self._parts.workspace):
            embedded: list[list[float]] = self._parts.embedder.embed(texts).tolist()
        return embedded

    def explain(self, path: str) -> str:
        """One line: why the file at `path` is, or is not, in the index."""
        with translated_errors(self._parts.workspace):
            return explain(path, self._parts)

    # Keeping it fresh

    @contextmanager
    def watch(self, poll_s: float = POLL_S) -> Iterator[None]:
        """Follow every change of the tree from now on, until left; `update` reads what was there before.

        Searches are never blocked by it. Where the system has no watches left the tree is read every `poll_s` seconds.
        """
        with self._following.watching(poll_s):
            yield


def _hash(text: str | None) -> str:
    return sha256(text.encode()).hexdigest() if text is not None else ""
