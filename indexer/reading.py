"""Tree -> catalogue -> lexical index, one thread at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from indexer.lexical import LexicalDamaged
from indexer.opening import renew_lexical
from indexer.parts import Parts
from indexer.update import Progress, Tally, read_tree, say_nothing, sync_lexical

log = logging.getLogger(__name__)


class Reading:
    """The tree of one index, read into its catalogue and its lexical index."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = threading.RLock()

    def read(self, paths: Sequence[str] | None, tell: Callable[[Progress], None] = say_nothing) -> Tally:
        """The tree, or these paths of it, into the catalogue and the lexical index."""
        parts = self._parts
        with self._lock:
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
