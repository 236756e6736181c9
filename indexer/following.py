"""A watched tree: one thread reads what changed, another stores the embeddings; searches wait for neither."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from indexer.lock import IndexUnavailable
from indexer.opening import translated_errors
from indexer.parts import Parts
from indexer.reading import Reading
from indexer.storing import Storing
from indexer.watch import Changes, watching_or_polling

log = logging.getLogger(__name__)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0  # between attempts to reach a Chroma server that does not answer


class Following:
    """Follows the tree of one index while `watching` is entered."""

    def __init__(self, parts: Parts, reading: Reading, storing: Storing) -> None:
        self._parts, self._reading, self._storing = parts, reading, storing
        self._changes: Changes | None = None
        self._behind_since = 0.0
        self._unread_files = 0

    @contextmanager
    def watching(self, poll_s: float) -> Iterator[None]:
        """See `Index.watch`."""
        changes, storing = Changes(self._parts.workspace.root), self._storing
        with watching_or_polling(self._parts.workspace.root, changes, poll_s) as rescan_s:
            self._changes, storing.is_watched = changes, True
            storing.stopping.clear()
            storing.work.set()
            threads = [
                threading.Thread(target=self._keep_reading, args=(changes, rescan_s), name="index-read", daemon=True),
                threading.Thread(target=self._keep_storing, name="index-store", daemon=True),
            ]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                storing.stopping.set()
                storing.work.set()
                changes.note_everything()
                for thread in threads:
                    thread.join()
                self._changes, storing.is_watched = None, False
                storing.stopping.clear()

    def waiting_files(self) -> int:
        """Files that changed and are not in the catalogue yet."""
        return self._unread_files + (self._changes.pending() if self._changes else 0)

    def seconds_behind(self, waiting_files: int) -> float:
        """The age of the oldest change that is not read; 0 when none waits."""
        first = (self._changes.first_event if self._changes else 0.0) or self._behind_since
        return max(0.0, time.monotonic() - first) if first and waiting_files else 0.0

    def _keep_reading(self, changes: Changes, rescan_s: float) -> None:
        while not self._storing.stopping.is_set():
            paths, _ = changes.take(rescan_s)
            if self._storing.stopping.is_set():
                return
            self._unread_files, self._behind_since = len(paths or [""]), time.monotonic()
            try:
                with translated_errors(self._parts.workspace):
                    self._reading.show(paths)
            except IndexUnavailable as error:
                log.error("the tree changed but cannot be read: %s", error)
            self._unread_files = 0
            self._storing.work.set()

    def _keep_storing(self) -> None:
        storing, wait_s = self._storing, _FIRST_WAIT_S
        while not storing.stopping.is_set():
            storing.work.wait(wait_s if storing.fault else None)
            storing.work.clear()
            try:
                with translated_errors(self._parts.workspace):
                    self._reading.settle()  # here: it waits for the disk, and the next save must not
                    storing.open_now()
                    storing.store_all()
            except IndexUnavailable as error:
                log.error("embeddings cannot be kept: %s", error)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S) if storing.fault else _FIRST_WAIT_S
