"""What answering needs of the world, opened at the edge and handed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from indexer.index import IndexState
from indexer.search import Passage
from server.generation import Model
from server.grounding import MIN_GROUNDEDNESS

Search = Callable[[str, int, Mapping[str, str]], Awaitable[Sequence[Passage]]]
FindNamed = Callable[[str, Mapping[str, str]], Awaitable[Sequence[Passage]]]


async def _find_none(text: str, overlays: Mapping[str, str]) -> Sequence[Passage]:
    return ()


async def _know_no_day(path: str) -> str:
    return ""


async def _know_no_commit(repository: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Doors:
    """The index and a model by version (None: in service).

    `find_named`: the passages of the files and symbols that a text names outright. `knows`: whether a name stands
    anywhere in the index. `last_changed`: the day of a file's last commit (ISO), "" when nobody knows.
    `commit_of`: the commit of a repository of a fleet that is checked out. `missing`: those that could not be
    asked last time, with the reason, one line each. `words_only`: why the search finds by words only for now, "" when
    it finds by meaning too. `adapter_for`: the adapter that answers from these passages, where the engine has one for
    each repository; None: what is in service. `not_read`: how far the tree is read since the start, "" when all of it.

    How far the model is trusted: `code_first` quotes the lines that answer at once and holds the model's words back
    until they are checked; words below `min_groundedness` are never shown alone, and none are without `words_alone`.
    """

    search: Search
    still_there: Callable[[Passage], bool]
    freshness: Callable[[], Awaitable[IndexState]]
    borrow: Callable[[str | None], AbstractAsyncContextManager[Model]]
    find_named: FindNamed = _find_none
    knows: Callable[[str], bool] = lambda name: True
    last_changed: Callable[[str], Awaitable[str]] = _know_no_day
    commit_of: Callable[[str], Awaitable[str]] = _know_no_commit
    missing: Callable[[], Sequence[str]] = tuple
    words_only: Callable[[], str] = lambda: ""
    adapter_for: Callable[[Sequence[Passage]], str | None] = lambda passages: None
    not_read: Callable[[], str] = lambda: ""
    code_first: bool = False
    min_groundedness: float = MIN_GROUNDEDNESS
    words_alone: bool = True
