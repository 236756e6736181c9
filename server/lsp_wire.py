"""The bytes between the editor and the language server: framing, and stdin and stdout as threads of their own.

pygls 2.1.1 reads stdin on the pool its handlers share, writes stdout in the event loop (a client that does not read
freezes everything), and ends or loses its place at a header it does not know.
"""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

# No message of an editor comes near; a length beyond it is nonsense that must not be waited for. Bytes.
MAX_BODY = 64 << 20
# What may stand between two messages before the older half of it is thrown away. Bytes.
_MAX_HEADER = 16 << 10
_HEADER = re.compile(
    rb"(?:\A|\n)content-length[ \t]*:[ \t]*(\d{1,12})[ \t]*\r?\n(?:[^\r\n:]+:[^\r\n]*\r?\n)*\r?\n", re.IGNORECASE
)


class Framing:
    """Bytes in, message bodies out. Garbage between messages is skipped: the next good header is found again."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted: int | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while (body := self._next_body()) is not None:
            yield body

    def _next_body(self) -> bytes | None:
        if self._wanted is None and not self._read_header():
            return None
        assert self._wanted is not None
        if len(self._buffer) < self._wanted:
            return None
        body = bytes(self._buffer[: self._wanted])
        del self._buffer[: self._wanted]
        self._wanted = None
        return body

    def _read_header(self) -> bool:
        while (match := _HEADER.search(self._buffer)) is not None:
            length = int(match[1])
            del self._buffer[: match.end()]
            if length <= MAX_BODY:
                self._wanted = length
                return True
        if len(self._buffer) > _MAX_HEADER:
            del self._buffer[: -_MAX_HEADER // 2]
        return False


class StdinReader:
    """A daemon thread that hands each body to `handle` in the event loop, and calls `at_end` when stdin has ended.

    It reads the descriptor, not `sys.stdin`: a daemon thread that holds that lock breaks the interpreter's exit.
    """

    def __init__(
        self,
        descriptor: int,
        framing: Framing,
        loop: asyncio.AbstractEventLoop,
        handle: Callable[[bytes], None],
        at_end: Callable[[], None],
    ) -> None:
        self._descriptor, self._loop, self._handle, self._at_end = descriptor, loop, handle, at_end
        self._framing = framing
        # Bodies handed over and not yet handled: a client that floods us waits in its own pipe, not in our memory.
        self._free = threading.BoundedSemaphore(256)
        threading.Thread(target=self._run, name="stdin", daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError, RuntimeError):  # a pipe that broke has ended; so has a closed loop
            data = b""  # what came with the first message is in the framing already
            while True:
                for body in self._framing.feed(data):
                    self._free.acquire()
                    self._loop.call_soon_threadsafe(self._hand_over, body)
                data = os.read(self._descriptor, 1 << 16)
                if not data:
                    break
        with suppress(RuntimeError):  # the loop has gone before us
            self._loop.call_soon_threadsafe(self._at_end)

    def _hand_over(self, body: bytes) -> None:
        self._free.release()
        self._handle(body)


class StdoutWriter:
    """A daemon thread that writes; `write` never waits. `backlog` is the bytes that the client has not taken yet."""

    def __init__(self, descriptor: int, at_end: Callable[[], None]) -> None:
        self._descriptor, self._at_end = descriptor, at_end
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._written = self._queued = 0
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        return self._queued - self._written

    def write(self, data: bytes) -> None:
        self._queued += len(data)
        self._queue.put(data)

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, for at most `timeout_s`."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while (data := self._queue.get()) is not None:
                self._write_all(memoryview(data))
        except OSError:
            self._at_end()

    def _write_all(self, data: memoryview) -> None:
        while data:
            written = os.write(self._descriptor, data)
            self._written += written
            data = data[written:]


def claim_stdout() -> int:
    """The descriptor of the protocol. From now on `print` and whatever writes to descriptor 1 lands on stderr."""
    protocol = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return protocol
