"""Door to watchdog: the tree changed -> these paths, or all of it. Events are hints; a re-scan is the truth."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from indexer.files import IGNORE_FILE
from indexer.quarantine import QUARANTINE_FILE
from indexer.workspace import STATE_FOLDER

# What changes a file, and no "opened" or "closed": watchdog walks the whole tree after an overflow, which opens every
# folder in it. Beside an environment of a hundred thousand files that overflowed the queue again, without end.
_CHANGES = (
    DirCreatedEvent, DirDeletedEvent, DirMovedEvent,
    FileClosedEvent, FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent,
)  # fmt: skip

log = logging.getLogger(__name__)
QUIET_S = 0.03  # a save is over when nothing has come for this long
_LONGEST_S = 0.25  # but an edit is not kept waiting by a checkout longer than this
_MANY_PATHS = 200  # from here on one look at everything is cheaper
RESCAN_S = 300.0  # a lost event is repaired after this long, at the latest
POLL_S = 2.0  # where the system gives us no watches
_NOISE = frozenset({"opened", "closed_no_write"})


class Changes(FileSystemEventHandler):
    """Collects what changed until somebody takes it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._condition = threading.Condition()
        self._paths: set[str] = set()
        self._everything = False
        self._last_event = 0.0
        self.first_event = 0.0

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _NOISE or (event.is_directory and event.event_type == "modified"):
            return
        # An atomic save is a `moved`: the file that counts is its target.
        for raw in (event.src_path, event.dest_path):
            if raw:
                self._note(Path(str(raw)))

    def note_everything(self) -> None:
        """Something was lost: look at all of it."""
        self._add(None)

    def _note(self, path: Path) -> None:
        try:
            relative = path.relative_to(self._root).as_posix()
        except ValueError:
            return
        top, _, rest = relative.partition("/")
        if relative == f"{STATE_FOLDER}/{QUARANTINE_FILE}":
            self._add(None)
            return
        if top == STATE_FOLDER or (top == ".git" and rest != "info/exclude"):
            return
        rules_changed = path.name in (".gitignore", IGNORE_FILE) or relative == ".git/info/exclude" or relative == "."
        self._add(None if rules_changed else relative)

    def _add(self, path: str | None) -> None:
        with self._condition:
            self._last_event = time.monotonic()
            self.first_event = self.first_event or self._last_event
            self._everything = self._everything or path is None
            if path is not None:
                self._paths.add(path)
            self._condition.notify_all()

    def pending(self) -> int:
        """Paths that changed and were not taken yet."""
        with self._condition:
            return len(self._paths) + self._everything

    def take(self, timeout_s: float) -> tuple[Sequence[str] | None, bool]:
        """What changed, once it is quiet (None: all of it), and whether anything did within `timeout_s`."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._paths or self._everything, timeout_s):
                return None, False
            while (now := time.monotonic()) - self._last_event < QUIET_S and now - self.first_event < _LONGEST_S:
                self._condition.wait(QUIET_S)
            paths = None if self._everything or len(self._paths) > _MANY_PATHS else sorted(self._paths)
            self._paths.clear()
            self._everything, self.first_event = False, 0.0
            return paths, True


class _OverflowNote(logging.Handler):
    """watchdog says only in its log that the kernel's queue overflowed and events are lost."""

    def __init__(self, changes: Changes) -> None:
        super().__init__(logging.WARNING)
        self._changes = changes

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage():
            self._changes.note_everything()


@contextmanager
def watching(root: Path, changes: Changes) -> Iterator[None]:
    """`changes` hears of everything below `root` until left. Raises `OSError` when the system has no watches left."""
    note = _OverflowNote(changes)
    logger = logging.getLogger("watchdog")
    # Its text is the whole table of watches, for each new folder (watchdog 7.1).
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\..*")
    observer = Observer()
    observer.schedule(changes, str(root), recursive=True, event_filter=list(_CHANGES))
    observer.start()
    logger.addHandler(note)
    try:
        yield
    finally:
        logger.removeHandler(note)
        observer.stop()
        observer.join(10)


@contextmanager
def watching_or_polling(root: Path, changes: Changes, poll_s: float = POLL_S) -> Iterator[float]:
    """As `watching`; yields after how many seconds without an event to look at everything all the same: `poll_s`
    where the system has no watches left."""
    entered = watching(root, changes)
    try:
        entered.__enter__()
    except OSError as error:  # ENOSPC or EMFILE: fs.inotify.max_user_watches, max_user_instances
        log.warning("no watches to be had (%s): looking at the whole tree every %.0f s instead", error, poll_s)
        yield poll_s
        return
    try:
        yield RESCAN_S
    finally:
        entered.__exit__(None, None, None)
