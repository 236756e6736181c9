"""The facade: one open index of one workspace. Synchronous, safe to use from several threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue import Target
from indexer.chunking import Chunk
from indexer.embedding import Embedder, find_embedder
from indexer.exact import find_exact, parse_exact
from indexer.explain import explain
from indexer.git import commit_and_dirty, day_of_last_change, head_commit
from indexer.lexical import LexicalDamaged
from indexer.lines import cut_lines
from indexer.lock import IndexUnavailable, NotReadable, own_folder
from indexer.missing import embed_missing
from indexer.named import find_named, is_known
from indexer.opening import (
    close_parts,
    index_folder,
    next_generation,
    open_parts,
    open_store,
    put_in_service,
    renew_lexical,
    renew_store_folder,
    translated_errors,
)
from indexer.overlays import WordCounts
from indexer.parts import Parts
from indexer.ranking import Candidate, Query, rank
from indexer.search import CurrentTexts, Passage, find_candidates, search, verify
from indexer.settings import IndexerSettings
from indexer.store import StoreDamaged
from indexer.update import Progress, Tally, read_tree, sync_lexical, sync_store
from indexer.watch import POLL_S, Changes, watching_or_polling
from indexer.workspace import Workspace

__all__ = ["Index", "IndexState", "IndexUnavailable", "NotReadable", "Progress", "UpdateReport", "open_index"]
log = logging.getLogger(__name__)
_DEAD_SHARE = 0.4  # of what was ever put into Chroma: its graph never forgets, and loses 12 points of recall by five
_DEAD_AT_LEAST = 2_000
Found = TypeVar("Found")
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0  # between attempts to reach a Chroma server that does not answer


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What an update found and did. `skipped`: reason -> files; `masked_secrets`: kind -> how many in all.

    `store_fault`: why the embeddings are not in a Chroma server yet, though all else is done; "" when they are.
    `failed`: repository of a fleet -> why it was not read.
    """

    files: int
    chunks: int
    embedded: int
    updated_files: int
    deleted_files: int
    skipped: dict[str, int]
    masked_secrets: dict[str, int]
    seconds: float
    store_fault: str = ""
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IndexState:
    """How fresh the index is. `commit`: None without git; `seconds_behind`: age of the oldest change not in it yet;
    `missing`: repositories of a fleet that cannot be asked, with the reason, one line each."""

    commit: str | None
    dirty_files: int
    files: int
    chunks: int
    waiting_files: int
    waiting_chunks: int
    seconds_behind: float
    missing: tuple[str, ...] = ()


def _say_nothing(progress: Progress) -> None:
    pass


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
        self._reading = threading.RLock()  # tree -> catalogue -> lexical index
        self._storing = threading.RLock()  # catalogue -> embeddings -> store
        self._changes: Changes | None = None
        self._stopping = threading.Event()
        self._work = threading.Event()
        self._behind_since = 0.0
        self._unread_files = 0
        self._store_fault = ""

    # Bringing it up to date

    def update(self, on_progress: Callable[[Progress], None] = _say_nothing) -> UpdateReport:
        """Bring the index up to the working tree. Interrupted or killed, the next call goes on; twice does nothing."""
        started = time.monotonic()
        with translated_errors(self._parts.workspace):
            tally = self._read(None, on_progress)
            tally.embedded = embed_missing([self._parts], on_progress, self._parts.workspace.logs)
            tally.embedded += self._store_all(on_progress)
            files, chunks = self._parts.catalogue.count()
            masked = self._parts.catalogue.masked()
        seconds = time.monotonic() - started
        done = (files, chunks, tally.embedded, tally.updated_files, tally.deleted_files)
        return UpdateReport(*done, dict(sorted(tally.skipped.items())), masked, seconds, self._store_fault)

    def prepare(self) -> Parts:
        """Read the tree, and give what the index is made of to whoever embeds for many at once."""
        with translated_errors(self._parts.workspace):
            self._read(None)
        return self._parts

    def _read(self, paths: Sequence[str] | None, tell: Callable[[Progress], None] = _say_nothing) -> Tally:
        """The tree, or these paths of it, into the catalogue and the lexical index."""
        parts = self._parts
        with self._reading:
            tally = read_tree(parts.workspace, parts.settings, parts.catalogue, tell, paths or ())
            try:
                sync_lexical(parts.catalogue, parts.lexical, tell)
            except LexicalDamaged as error:
                log.warning("%s: built anew", error)
                renew_lexical(parts)
                sync_lexical(parts.catalogue, parts.lexical, tell)
            if parts.commons is not None:
                parts.lexical.close()  # a hundred repositories hold no hundred writers, each with 32 MB and threads
        if tally.updated_files or tally.deleted_files:
            log.info("updated %d files, %d are gone", tally.updated_files, tally.deleted_files)
        return tally

    def _store_all(self, tell: Callable[[Progress], None] = _say_nothing) -> int:
        """Everything that waits, embedded and in the store; returns how many were embedded.

        A Chroma server that does not answer is noted, and what waits for it goes on waiting.
        """
        parts = self._parts
        with self._storing:
            if not parts.catalogue.waiting(Target.STORE):
                return 0
            try:
                return self._sync_store(tell)
            except StoreDamaged as error:
                if parts.settings.chroma:
                    self._leave_server(error)
                    return 0
                parts.store = None
                renew_store_folder(parts, str(error))
                return self._sync_store(tell)

    def _sync_store(self, tell: Callable[[Progress], None]) -> int:
        parts = self._parts
        store = parts.store = parts.store or open_store(parts)
        self._note_store_answers()
        stop = self._stopping.is_set
        embedded = sync_store(parts.catalogue, parts.cache, parts.embedder, store, tell, stop)
        if self._is_mostly_dead():
            self._rebuild_store(tell)
        return embedded

    def _is_mostly_dead(self) -> bool:
        dead = int(self._parts.catalogue.fact("dead") or 0)
        return dead > max(_DEAD_AT_LEAST, _DEAD_SHARE * (dead + self._parts.catalogue.count_stored()))

    def _rebuild_store(self, tell: Callable[[Progress], None]) -> None:
        """A new collection beside the old one, filled from the embedding cache, then put in its place."""
        parts, old = self._parts, self._parts.store
        assert old is not None
        log.info("too much of %s is dead: built anew beside it", old.name)
        new = next_generation(parts, old)
        parts.catalogue.queue_all(Target.STORE)
        sync_store(parts.catalogue, parts.cache, parts.embedder, new, tell, self._stopping.is_set)
        if not parts.catalogue.waiting(Target.STORE):
            put_in_service(parts, new)
            parts.catalogue.set_fact("dead", "0")
            old.delete()
            old.close()

    # Asking

    def search(self, query: str, k: int = 10, overlays: Mapping[str, str] | None = None) -> list[Passage]:
        """The `k` best passages, verified. While an index that is being watched loads its embedder: by words only.

        A query in double quotes is looked for as it stands, one in slashes as a regular expression (raises `BadPattern`
        when it is none); then the passages are those around the first match in each file, in the order of paths.
        """
        with translated_errors(self._parts.workspace):
            if exact := parse_exact(query):
                return find_exact(exact, k, self._parts, overlays or {})
            return self._with_store(lambda: search(query, k, self._parts, overlays or {}))

    def words_only(self) -> str:
        """Why searches find by words only for now, fit to show; "" when they find by meaning too."""
        return self._store_fault

    def _with_store(self, find: Callable[[], list[Found]]) -> list[Found]:
        """What `find` finds; while the store is opened by the watcher, or is damaged: by words only."""
        if self._changes is None and not self._store_fault:
            self._open_store_now()
        try:
            return find()
        except StoreDamaged as error:
            self._mend_store(error)
            return find()

    def _open_store_now(self) -> None:
        with self._storing:
            if self._parts.store is None and self._parts.catalogue.count()[1]:
                try:
                    self._parts.store = open_store(self._parts)
                    self._note_store_answers()
                except StoreDamaged as error:
                    if not self._parts.settings.chroma:
                        raise
                    self._leave_server(error)

    def _mend_store(self, error: StoreDamaged) -> None:
        if self._parts.settings.chroma:
            # Not under the lock: whoever writes may be waiting for the same server, and a search must not wait too.
            self._leave_server(error)
            return
        log.warning("searching by words only, Chroma is repaired meanwhile: %s", error)
        with self._storing:
            self._parts.store = None
            renew_store_folder(self._parts, str(error))
            self._work.set()

    def _leave_server(self, error: StoreDamaged) -> None:
        """Ask a Chroma server nothing more, until it was opened and counted anew."""
        store, self._parts.store = self._parts.store, None
        if not self._store_fault and self._changes is not None:  # a command says it itself
            log.warning("searching by words only until Chroma answers: %s", error)
        address, said = self._parts.settings.chroma, str(error)
        self._store_fault = said if address in said else f"{address}: {said}"
        if store is not None:
            store.close()
            self._work.set()

    def _note_store_answers(self) -> None:
        if self._store_fault:
            log.info("Chroma answers again")
        self._store_fault = ""

    def candidates(
        self, query: Query, most: int, overlays: Mapping[str, str], embedding: NDArray[np.float32]
    ) -> list[Candidate]:
        """The `most` best candidates for `query`, best first, not verified; `embedding` is the query's."""
        with translated_errors(self._parts.workspace):
            found = self._with_store(lambda: find_candidates(query, self._parts, overlays, embedding))
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
        waiting_files = self._unread_files + (self._changes.pending() if self._changes else 0)
        return IndexState(
            commit, dirty, files, chunks, waiting_files, waiting_chunks, self._seconds_behind(waiting_files)
        )

    def _seconds_behind(self, waiting_files: int) -> float:
        first = (self._changes.first_event if self._changes else 0.0) or self._behind_since
        return max(0.0, time.monotonic() - first) if first and waiting_files else 0.0

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
        changes = Changes(self._parts.workspace.root)
        with watching_or_polling(self._parts.workspace.root, changes, poll_s) as rescan_s:
            self._changes = changes
            self._stopping.clear()
            self._work.set()
            threads = [
                threading.Thread(target=self._keep_reading, args=(changes, rescan_s), name="index-read", daemon=True),
                threading.Thread(target=self._keep_storing, name="index-store", daemon=True),
            ]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                self._stopping.set()
                self._work.set()
                changes.note_everything()
                for thread in threads:
                    thread.join()
                self._changes = None
                self._stopping.clear()

    def _keep_reading(self, changes: Changes, rescan_s: float) -> None:
        while not self._stopping.is_set():
            paths, _ = changes.take(rescan_s)
            if self._stopping.is_set():
                return
            self._unread_files, self._behind_since = len(paths or [""]), time.monotonic()
            try:
                with translated_errors(self._parts.workspace):
                    self._read(paths)
            except IndexUnavailable as error:
                log.error("the tree changed but cannot be read: %s", error)
            self._unread_files = 0
            self._work.set()

    def _keep_storing(self) -> None:
        wait_s = _FIRST_WAIT_S
        while not self._stopping.is_set():
            self._work.wait(wait_s if self._store_fault else None)
            self._work.clear()
            try:
                with translated_errors(self._parts.workspace):
                    self._open_store_now()
                    self._store_all()
            except IndexUnavailable as error:
                log.error("embeddings cannot be kept: %s", error)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S) if self._store_fault else _FIRST_WAIT_S


def _hash(text: str | None) -> str:
    return sha256(text.encode()).hexdigest() if text is not None else ""
