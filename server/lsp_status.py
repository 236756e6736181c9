"""What stands behind the editor: read from a running backend, said to the editor when it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from server.client import BackendUnavailable, Json
from server.lsp_ask import freshness_of
from server.lsp_backends import Link
from server.lsp_progress import training_line
from server.lsp_types import InlineState, Night, StatusResult, Training

log = logging.getLogger(__name__)

POLL_S = 2.0
NO_BACKEND = "no backend runs"


async def read_status(link: Link, inline: InlineState) -> StatusResult:
    """The status of one workspace now. Starts nothing and raises nothing: not running is a status."""
    try:
        ready, freshness, adapters, nights = await asyncio.gather(
            *map(link.get, ("/readyz", "/freshness", "/adapters", "/nights/last")), return_exceptions=True
        )
        if isinstance(ready, BaseException):
            raise ready
    except BackendUnavailable as error:
        return _not_running(link, str(error), inline)
    link.accepts = frozenset(map(str, ready.get("accepts") or ()))
    reasons = [*ready["reasons"], *(str(e) for e in (freshness, adapters, nights) if isinstance(e, BaseException))]
    night, training = _nights(nights, adapters)
    return StatusResult(
        workspace=str(link.workspace.root),
        backend=link.kind,
        engine=_name(ready.get("engine")),
        ready=bool(ready["ready"]),
        reasons=tuple(dict.fromkeys(reasons)),
        adapter=ready.get("adapter"),
        base_model=ready.get("base_model") or "",
        freshness=None if isinstance(freshness, BaseException) else freshness_of(freshness),
        night=night,
        training=training,
        inline_completion=inline_state(ready, inline),
    )


def inline_state(ready: Mapping[str, Any], wanted: InlineState) -> InlineState:
    """Whether ghost text can be offered: the editor wants it, and the base model can fill in the middle."""
    if not wanted.enabled:
        return wanted
    if not ready.get("fim"):
        model = ready.get("base_model") or "the base model"
        return InlineState(False, f"{model} cannot fill in the middle; take a model that can (Qwen2.5-Coder)")
    return InlineState(True, "")


def _not_running(link: Link, why: str, inline: InlineState) -> StatusResult:
    off = InlineState(False, inline.reason or NO_BACKEND)
    reason = link.problem or why
    return StatusResult(str(link.workspace.root), link.kind, "", False, (reason,), None, "", None, None, None, off)


def _name(engine: Any) -> str:
    return str(engine.get("name", "") if isinstance(engine, Mapping) else engine or "")


def _nights(nights: Json | BaseException, adapters: Json | BaseException) -> tuple[Night | None, Training | None]:
    """The night that ended last and the one that runs, as far as the backend told."""
    if isinstance(nights, BaseException):
        return None, None
    last = None if isinstance(adapters, BaseException) else _last_night(nights["last"], adapters)
    return last, _training(nights["running"])


def _last_night(last: Mapping[str, Any] | None, adapters: Mapping[str, Any]) -> Night | None:
    kept = {manifest["version"]: manifest for manifest in adapters["adapters"]}
    if last is None and kept:
        newest = max(kept.values(), key=lambda manifest: str(manifest["created_at"]))
        last = {"outcome": "trained", "version": newest["version"], "ended_at": newest["created_at"], "reason": ""}
    if last is None:
        return None
    version = last["version"]
    losses = kept.get(version, {}).get("losses") or {}
    before, after = losses.get("held_out_before"), losses.get("held_out_after")
    in_service = bool(version) and version == adapters["in_service"]
    verdict = _verdict(last, in_service, before, after)
    return Night(last["outcome"], version, last["ended_at"], verdict, in_service, before, after)


def _verdict(last: Mapping[str, Any], in_service: bool, before: float | None, after: float | None) -> str:
    outcome = f"{last['outcome']}: {last['reason']}" if last["reason"] else str(last["outcome"])
    losses = "" if before is None or after is None else f"held-out loss {before:.2f} -> {after:.2f}"
    served = "" if not last["version"] else "in service" if in_service else "not in service"
    return ", ".join(filter(None, (outcome, losses, served)))


def _training(running: Mapping[str, Any] | None) -> Training | None:
    if running is None:
        return None
    return Training(running["version"], running["step"], running["steps"], running["left_s"])


class Watch:
    """Looks at one workspace's backend every `POLL_S` (or when poked) and tells what has changed."""

    def __init__(
        self, look: Callable[[], Awaitable[StatusResult]], tell: Callable[[StatusResult, StatusResult | None], None]
    ) -> None:
        self._look, self._tell = look, tell
        self._poke = asyncio.Event()
        self._last: StatusResult | None = None
        self._task = asyncio.create_task(self._run())

    def poke(self) -> None:
        """Look now: something has just happened."""
        self._poke.set()

    def stop(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                status = await self._look()
            except Exception:  # an edge's last line: a watch that dies is a status bar that lies
                log.exception("the status could not be read")
            else:
                if status != self._last:
                    self._tell(status, self._last)
                    self._last = status
            with suppress(TimeoutError):
                await asyncio.wait_for(self._poke.wait(), POLL_S)
            self._poke.clear()


def as_lines(status: StatusResult) -> list[str]:
    """The status in words, for editors that only show messages."""
    lines = [f"backend: {status.backend}", f"engine: {status.engine or 'none'}", f"adapter: {status.adapter or 'none'}"]
    if status.freshness is not None:
        index = status.freshness
        lines.append(f"index: {index.files} files, {index.chunks} chunks, {index.seconds_behind:.0f} s behind")
    if status.night is not None:
        lines.append(f"last night: {' '.join(filter(None, (status.night.version, status.night.verdict)))}")
    if status.training is not None:
        lines.append(f"training: {training_line(status.training)}")
    ghost = status.inline_completion
    return [*lines, f"inline completion: {'on' if ghost.enabled else f'off ({ghost.reason})'}", *status.reasons]


__all__ = ["Json", "Watch", "as_lines", "read_status"]
