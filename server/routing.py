"""Which of several engines answers, and with which adapter. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from indexer.search import Passage
from server.backoff import READY, EngineState
from server.prompt import Turn

# Of a completion's prompt: what stays the same while an editor writes on below it.
_OPENING_CHARS = 256


def rank_engines(key: str, urls: Iterable[str]) -> list[str]:
    """`urls`, first the one that `key` belongs to (rendezvous hashing, Thaler and Ravishankar 1998).

    When one goes away only its own keys move, to the next in their own order; when it comes back they move back.
    """
    return sorted(urls, key=lambda url: sha256(f"{url}\0{key}".encode()).digest(), reverse=True)


def conversation_key(messages: Sequence[Turn]) -> str:
    """What all prompts of one conversation have in common: its first question, without the passages found for it.

    A question with its passages ends in "Question: ..."; told again as an earlier turn it is that text alone.
    """
    first = next((turn.content for turn in messages if turn.role == "user"), "")
    return first.rpartition("Question: ")[2]


def opening_key(prompt: str) -> str:
    """The same for a text completion: how the file begins."""
    return prompt[:_OPENING_CHARS]


def taken_together(states: Mapping[str, EngineState]) -> EngineState:
    """The state of several engines as one: ready when all are, degraded while any answers."""
    down = {url: state for url, state in states.items() if state != READY}
    if not down:
        return READY
    reasons = "; ".join(f"{url} ({state.name}): {state.reason}" for url, state in down.items())
    if any(state.is_answering for state in states.values()):
        return EngineState("degraded", f"{len(down)} of {len(states)} engines are not well: {reasons}")
    return EngineState(next(iter(down.values())).name, f"none of {len(states)} engines answers: {reasons}")


def shown_url(url: str) -> str:
    """`url` without a user and password."""
    return re.sub(r"//[^/@]*@", "//", url)


def choose_adapter(
    repositories: Sequence[str], adapters: Mapping[str, str], groups: Mapping[str, str] | None = None
) -> str | None:
    """The model that `adapters` (repository or group -> model) names for what an answer stands on; None for none.

    `repositories[i]` is that of the passage in place `i`, best first; `groups` the group of each repository. The
    repository whose passages weigh most (1 / place) decides, and its own name before its group's.
    """
    weights: dict[str, float] = {}
    for place, repository in enumerate(repositories, 1):
        weights[repository] = weights.get(repository, 0.0) + 1 / place
    if not weights:
        return None
    best = max(weights, key=lambda name: weights[name])
    return adapters.get(best) or adapters.get((groups or {}).get(best, ""))


def open_adapters(
    adapters: Mapping[str, str], groups: Mapping[str, str], may_read: frozenset[str] | None
) -> dict[str, str]:
    """Those of `adapters` (as in `choose_adapter`) that may answer somebody who may read `may_read`; None: everything.

    `groups` has every repository of the fleet ("": in no group). An adapter repeats what it has learnt: one that stands
    for several repositories is open to those alone who may read them all.
    """
    if may_read is None:
        return dict(adapters)
    learnt: dict[str, set[str]] = {}
    for name, model in adapters.items():
        learnt.setdefault(model, set()).update(one for one, group in groups.items() if name in (one, group))
    return {name: model for name, model in adapters.items() if learnt[model] and learnt[model] <= may_read}


@dataclass(frozen=True, slots=True)
class AdapterChoice:
    """Which adapter answers somebody: `adapters` are open to them, `groups` has each repository that they may read."""

    adapters: Mapping[str, str]
    groups: Mapping[str, str]

    def of(self, passages: Sequence[Passage]) -> str | None:
        """The one for an answer from `passages`; whoever has one repository is answered by its own."""
        one = list(self.groups) if len(self.groups) == 1 else []
        return choose_adapter(one or [p.path.partition("/")[0] for p in passages], self.adapters, self.groups)


def adapters_for(
    adapters: Mapping[str, str], groups: Mapping[str, str], may_read: frozenset[str] | None
) -> AdapterChoice:
    """The choice among `adapters` of somebody who may read `may_read`; `groups` as in `open_adapters`."""
    read = {name: group for name, group in groups.items() if may_read is None or name in may_read}
    return AdapterChoice(open_adapters(adapters, groups, may_read), read)
