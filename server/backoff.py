"""How long to leave a broken engine alone, and what state that is. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

# So many failures in a row and nobody is sent there any more: questions get passages at once instead of waiting.
OPENS_AFTER = 3
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class EngineState:
    """`name` is starting, ready, swapping, degraded, backoff, failed or asleep; `reason` says what is missing; when
    ready what its owner should know of how it is served, or "".

    degraded: it answers, but the last question failed. backoff: it is left alone for a while. failed: that did not
    help, and it is tried every minute. asleep: a night has its memory (`server/nap.py`).
    """

    name: str
    reason: str = ""

    @property
    def is_answering(self) -> bool:
        """Is a question sent there?"""
        return self.name in ("ready", "swapping", "degraded")


READY = EngineState("ready")


def wait_s(failures: int) -> float:
    """Seconds until the next try after so many in a row failed: doubling, up to a minute, a little of it by chance.

    By chance, so that many backends of one endpoint do not come back all at once.
    """
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures, 16))
    return longest * random.uniform(0.75, 1.0)  # noqa: S311 - nothing to guess here


def down(failures: int, reason: str) -> EngineState:
    """The state of an engine that has failed to come up so many times in a row."""
    return EngineState("failed" if failures > OPENS_AFTER else "backoff", reason)
