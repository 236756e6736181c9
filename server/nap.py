"""The engine's sleep while a night trains: until when it was asked for, and whether that night still runs.

On disk, so that a backend which is started in the middle of a night starts no engine into its memory. It holds no
longer than the night's lock: a night that was killed keeps no engine asleep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from indexer.workspace import write_atomically
from server.backoff import EngineState

log = logging.getLogger(__name__)

ASLEEP = "asleep"
NAP_FILE = "engine_sleep"


class Nap:
    """The sleep that was asked for, in `file`, for as long as `is_night`. `has_room` is set while no engine of ours
    holds memory."""

    def __init__(self, file: Path, is_night: Callable[[], bool]) -> None:
        self.has_room = asyncio.Event()
        self._file = file
        self._is_night = is_night

    def ask(self, until: datetime) -> None:
        """Ask for sleep until about `until`: what users are told, and no alarm clock."""
        write_atomically(self._file, until.astimezone(UTC).isoformat(timespec="minutes"))

    def end(self) -> None:
        """The night is over, or needs the memory no more."""
        self._file.unlink(missing_ok=True)

    def state(self) -> EngineState | None:
        """What the engine's state is to be; None when it is to be awake."""
        try:
            until = datetime.fromisoformat(self._file.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("%s is no time until which to sleep: %s", self._file, error)
            self.end()
            return None
        if not self._is_night():
            self.end()
            return None
        return EngineState(ASLEEP, f"the engine sleeps while a night trains, until about {until:%H:%M} UTC")
