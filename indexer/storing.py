"""Catalogue -> embeddings -> Chroma, one thread at a time; what is damaged is mended, a server that is gone is left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from indexer.catalogue import Target
from indexer.opening import next_generation, open_store, put_in_service, renew_store_folder
from indexer.parts import Parts
from indexer.store import StoreDamaged
from indexer.update import Progress, say_nothing, sync_store

log = logging.getLogger(__name__)
_DEAD_SHARE = 0.4  # of what was ever put into Chroma: its graph never forgets, and loses 12 points of recall by five
_DEAD_AT_LEAST = 2_000
Found = TypeVar("Found")


class Storing:
    """The store of one index, kept up to its catalogue. `fault`: why a Chroma server is not asked now, "" when it is.

    `work` is set whenever there may be something to store; `stopping` ends a round early. While `is_watched`, a thread
    opens the store, and searches do not wait for it.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = threading.RLock()
        self.work, self.stopping = threading.Event(), threading.Event()
        self.is_watched = False
        self.fault = ""

    def store_all(self, tell: Callable[[Progress], None] = say_nothing) -> int:
        """Everything that waits, embedded and in the store; returns how many were embedded.

        A Chroma server that does not answer is noted, and what waits for it goes on waiting.
        """
        parts = self._parts
        with self._lock:
            if not parts.catalogue.waiting(Target.STORE):
                return 0
            try:
                return self._sync(tell)
            except StoreDamaged as error:
                if parts.settings.chroma:
                    self._leave_server(error)
                    return 0
                parts.store = None
                renew_store_folder(parts, str(error))
                return self._sync(tell)

    def _sync(self, tell: Callable[[Progress], None]) -> int:
        parts = self._parts
        store = parts.store = parts.store or open_store(parts)
        self._note_answers()
        embedded = sync_store(parts.catalogue, parts.cache, parts.embedder, store, tell, self.stopping.is_set)
        if self._is_mostly_dead():
            self._rebuild(tell)
        return embedded

    def _is_mostly_dead(self) -> bool:
        dead = int(self._parts.catalogue.fact("dead") or 0)
        return dead > max(_DEAD_AT_LEAST, _DEAD_SHARE * (dead + self._parts.catalogue.count_stored()))

    def _rebuild(self, tell: Callable[[Progress], None]) -> None:
        """A new collection beside the old one, filled from the embedding cache, then put in its place."""
        parts, old = self._parts, self._parts.store
        assert old is not None
        log.info("too much of %s is dead: built anew beside it", old.name)
        new = next_generation(parts, old)
        parts.catalogue.queue_all(Target.STORE)
        sync_store(parts.catalogue, parts.cache, parts.embedder, new, tell, self.stopping.is_set)
        if not parts.catalogue.waiting(Target.STORE):
            put_in_service(parts, new)
            parts.catalogue.set_fact("dead", "0")
            old.delete()
            old.close()

    def with_store(self, find: Callable[[], Found]) -> Found:
        """What `find` finds; while the store is opened by the watcher, or is damaged: by words only."""
        if not self.is_watched and not self.fault:
            self.open_now()
        asked = self._parts.store
        try:
            return find()
        except StoreDamaged as error:
            if self._parts.store is not asked:  # let go of meanwhile, for a new one or with its repository: no damage
                return self.with_store(find)
            self._mend(error)
            return find()

    def open_now(self) -> None:
        """Open the store where there are chunks and it is not open."""
        with self._lock:
            if self._parts.store is None and self._parts.catalogue.count()[1]:
                try:
                    self._parts.store = open_store(self._parts)
                    self._note_answers()
                except StoreDamaged as error:
                    if not self._parts.settings.chroma:
                        raise
                    self._leave_server(error)

    def _mend(self, error: StoreDamaged) -> None:
        if self._parts.settings.chroma:
            # Not under the lock: whoever writes may be waiting for the same server, and a search must not wait too.
            self._leave_server(error)
            return
        log.warning("searching by words only, Chroma is repaired meanwhile: %s", error)
        with self._lock:
            self._parts.store = None
            renew_store_folder(self._parts, str(error))
            self.work.set()

    def _leave_server(self, error: StoreDamaged) -> None:
        """Ask a Chroma server nothing more, until it was opened and counted anew."""
        store, self._parts.store = self._parts.store, None
        if not self.fault and self.is_watched:  # a command says it itself
            log.warning("searching by words only until Chroma answers: %s", error)
        address, said = self._parts.settings.chroma, str(error)
        self.fault = said if address in said else f"{address}: {said}"
        if store is not None:
            store.close()
            self.work.set()

    def _note_answers(self) -> None:
        if self.fault:
            log.info("Chroma answers again")
        self.fault = ""
