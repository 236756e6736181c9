"""Tree -> catalogue -> lexical index, one thread at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from indexer.lexical import LexicalDamaged
from indexer.opening import renew_lexical
from indexer.parts import Parts
from indexer.update import Progress, Tally, read_tree, say_nothing, show_lexical, sync_lexical

log = logging.getLogger(__name__)


class Reading:
    """The tree of one index, read into its catalogue and its lexical index."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock, self._settling = threading.RLock(), threading.Lock()

    def read(self, paths: Sequence[str] | None, tell: Callable[[Progress], None] = say_nothing) -> Tally:
        """The tree, or these paths of it, into the catalogue and the lexical index, both on disk."""
        with self._lock:
            tally = self._read(paths, tell)
            self.settle(tell)
        return tally

    def show(self, paths: Sequence[str] | None) -> Tally:
        """The same, but a few new chunks are only found from now on: on disk they are after the next `settle`."""
        with self._lock:
            tally = self._read(paths, say_nothing)
            if not show_lexical(self._parts.catalogue, self._parts.lexical):
                self.settle()
        return tally

    def settle(self, tell: Callable[[Progress], None] = say_nothing) -> None:
        """Bring the lexical index on disk up to the catalogue; nothing to do, nothing is written."""
        parts = self._parts
        with self._settling:
            try:
                sync_lexical(parts.catalogue, parts.lexical, tell)
            except LexicalDamaged as error:
                log.warning("%s: built anew", error)
                renew_lexical(parts)
                sync_lexical(parts.catalogue, parts.lexical, tell)
            if parts.commons is not None:
                parts.lexical.close()  # a hundred repositories hold no hundred writers, each with 32 MB and threads

    def _read(self, paths: Sequence[str] | None, tell: Callable[[Progress], None]) -> Tally:
        parts = self._parts
        tally = read_tree(parts.workspace, parts.settings, parts.catalogue, tell, paths or ())
        if tally.updated_files or tally.deleted_files:
            log.info("updated %d files, %d are gone", tally.updated_files, tally.deleted_files)
        return tally
