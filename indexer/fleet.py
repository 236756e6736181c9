"""Many repositories as one index: what `indexer.index.Index` offers, with paths that begin with a repository's name."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import TypeVar

from indexer.chunking import Chunk
from indexer.embedding import Embedder
from indexer.exact import parse_exact
from indexer.fleet_members import Members, open_members
from indexer.fleet_search import Answered, Placed, best_of_all, fuse, in_turn
from indexer.fleet_settings import RepositorySettings
from indexer.index import Index, IndexState, Progress, UpdateReport
from indexer.lock import IndexUnavailable
from indexer.missing import embed_missing
from indexer.opening import translated_errors
from indexer.ranking import Query
from indexer.search import Hits, Passage
from indexer.settings import IndexerSettings
from indexer.update import Tally
from indexer.word_counts import Remembered, all_words, weights_among
from indexer.workspace import Workspace

log = logging.getLogger(__name__)
_MOST_NAMED = 24  # passages of what a question names: as many as one repository gives for three files or symbols
_GIT_S = 10.0  # how old what git says of a repository may be: asking a hundred of them takes seconds
Answer = TypeVar("Answer")


@contextmanager
def open_fleet(
    workspace: Workspace, settings: IndexerSettings, embedder: Embedder | None = None
) -> Iterator[FleetIndex]:
    """The index of all repositories in [fleet], owned until left. Raises `IndexUnavailable`, `BadSettings`."""
    with open_members(workspace, settings, embedder) as members:
        pool = ThreadPoolExecutor(members.settings.search_threads, thread_name_prefix="fleet")
        try:
            yield FleetIndex(members, pool)
        finally:
            pool.shutdown(cancel_futures=True)


class FleetIndex:
    """See `open_fleet`. A repository that fails is left out and named by `missing`; the others answer.

    With `only` (see `view`) no other repository exists.
    """

    def __init__(self, members: Members, pool: ThreadPoolExecutor, only: frozenset[str] | None = None) -> None:
        self._members, self._pool, self._only = members, pool, only
        self._git: dict[str, tuple[float, str | None, int]] = {}

    def view(self, names: frozenset[str]) -> FleetIndex:
        """The same, narrowed to these repositories: what is not in it is found, read and counted by nothing."""
        only = names if self._only is None else names & self._only
        narrowed = FleetIndex(self._members, self._pool, only)
        narrowed._git = self._git
        return narrowed

    @property
    def names(self) -> tuple[str, ...]:
        """The repositories, in the order of the settings."""
        return tuple(name for name in self._members.names if self._only is None or name in self._only)

    @property
    def repositories(self) -> tuple[RepositorySettings, ...]:
        """Their settings, in the same order."""
        every = self._members.settings.repositories
        return tuple(one for one in every if self._only is None or one.name in self._only)

    def missing(self) -> tuple[str, ...]:
        """The repositories that could not be asked last time, each with the reason, one line each."""
        faults = dict(self._members.faults)
        return tuple(f"{name}: {faults[name]}" for name in self.names if name in faults)

    def words_only(self) -> str:
        """Why the search finds by words only for now, of the first repository of which it does; "" where none."""
        said = self._ask_all(lambda _, index: index.words_only())
        return next((fault for _, fault in said if fault), "")

    # Bringing it up to date

    def update(self, on_progress: Callable[[Progress], None] = lambda _: None) -> UpdateReport:
        """Bring every index up to its tree, one after the other; one that fails is in `failed`, the rest is done.

        The settings are read anew: repositories that were added come in, those that are gone from them are deleted.
        """
        started = time.monotonic()
        self.reload()
        embedded, read = self._embed_together(on_progress)
        reports: list[UpdateReport] = []
        failed: dict[str, str] = {}
        for number, name in enumerate(self.names, 1):
            title = f"{name} ({number} of {len(self.names)})"
            try:
                reports.append(self._update_one(name, title, on_progress, read.get(name)))
            except IndexUnavailable as error:
                failed[name] = str(error)
        summed = _summed(reports, failed, time.monotonic() - started)
        return replace(summed, embedded=summed.embedded + embedded)

    def _embed_together(self, tell: Callable[[Progress], None]) -> tuple[int, dict[str, Tally]]:
        """With [indexer] ray: what all of them miss, by the cluster in one go, and what forks have in common once.

        How many were embedded, and what was read of each repository.
        """
        if not self._members.has_cluster:
            return 0, {}
        prepared = dict(self._ask_all(lambda name, index: index.prepare(_titled(name, tell))))
        read = {name: tally for name, (_, tally) in prepared.items()}
        try:
            with translated_errors(self._members.fleet):
                return embed_missing([parts for parts, _ in prepared.values()], tell, self._members.fleet.logs), read
        except IndexUnavailable as error:
            log.warning("%s", error)  # whoever cannot do without it says so in `failed`
            return 0, read

    def reload(self, all_may_go: bool = False) -> None:
        """Read [fleet] anew; what is gone from it is deleted, all of it only with `all_may_go`. A view does nothing.

        Raises `IndexUnavailable`.
        """
        if self._only is None:
            self._members.reload(all_may_go)
            self._git.clear()

    def group_of(self, name: str) -> str:
        """The group of the repository `name`; "" where it has none."""
        repository = self._members.find(name) if name in self.names else None
        return repository.group if repository else ""

    def update_one(self, name: str, on_progress: Callable[[Progress], None] = lambda _: None) -> UpdateReport:
        """Bring the index of one repository up to its tree. Raises `IndexUnavailable`."""
        if name not in self.names:
            raise IndexUnavailable(f"there is no repository {name}")
        return self._update_one(name, name, on_progress)

    def _update_one(
        self, name: str, title: str, tell: Callable[[Progress], None], read: Tally | None = None
    ) -> UpdateReport:
        self._git.pop(name, None)
        return self._members.ask(name, lambda index: index.update(_titled(title, tell), read))

    def watch(self) -> AbstractContextManager[None]:
        """Follow every folder until left. What we cloned changes only by `nightschool fleet sync`, which updates it."""
        return self._members.watching()

    # Asking

    def search(self, query: str, k: int = 10, overlays: Mapping[str, str] | None = None) -> list[Passage]:
        """The `k` best passages of all repositories, fused by rank and verified; see `Index.search`."""
        laid = self._overlays(overlays)
        if parse_exact(query):
            found = self._ask_all(lambda name, index: _named(name, index.search(query, k, laid.get(name, {}))))
            return [passage for _, passages in found for passage in passages][:k]
        asked = Query(query)
        return self._verified(fuse(asked, self._answered(asked, k, laid)), k, laid)

    def _answered(self, asked: Query, k: int, laid: Mapping[str, Mapping[str, str]]) -> list[Answered]:
        """The `k` best of each repository that has something among the best of all, or open buffers."""
        with translated_errors(self._members.fleet):
            embedding = self._members.embedder.embed([asked.text])[0]
        counts = {name: Remembered(of) for name, of in self._ask_all(lambda _, index: index.word_counts)}
        every = all_words(list(counts.values()))
        weights = {name: weights_among(asked.tokens, here, every) for name, here in counts.items()}
        found = dict(self._ask_all(lambda name, index: index.hits(asked, weights[name], embedding), tuple(counts)))
        best = best_of_all(found)
        nothing = Hits({}, {}, {})
        # What defines a name that is asked for may stand in any of them.
        names = tuple(name for name in found if name in best or laid.get(name) or asked.identifiers)

        def read(name: str, index: Index) -> Answered:
            candidates = index.candidates(asked, best.get(name, nothing), k, laid.get(name, {}), every)
            return Answered(name, candidates)

        return [answer for _, answer in self._ask_all(read, names)]

    def _verified(self, placed: Sequence[Placed], k: int, laid: Mapping[str, Mapping[str, str]]) -> list[Passage]:
        """The first `k` that are still there, compared with what is on disk or in the open buffers."""
        verify: dict[str, Callable[[Chunk, float], Passage | None]] = {}
        passages: dict[tuple[str, int], Passage] = {}

        def look(index: Index, one: Placed) -> Passage | None:
            if one.repository not in verify:
                verify[one.repository] = index.verifier(laid.get(one.repository, {}))
            return verify[one.repository](one.chunk, one.score)

        for one in placed:
            if len(passages) == k:
                break
            with suppress(IndexUnavailable):  # it is among the missing now
                if found := self._members.ask(one.repository, lambda index, one=one: look(index, one)):  # type: ignore[misc]
                    passages.setdefault((one.repository + found.path, found.start_line), _in(one.repository, found))
        return list(passages.values())

    def find_named(self, text: str, overlays: Mapping[str, str] | None = None) -> list[Passage]:
        """The passages of the files and symbols that `text` names outright, of each repository in turn.

        A path that begins with a repository's name is looked for in that repository only.
        """
        laid = self._overlays(overlays)
        found = self._ask_all(
            lambda name, index: _named(name, index.find_named(self._without_names(text, name), laid.get(name, {})))
        )
        first = sorted(found, key=lambda pair: not re.search(rf"(?<![\w./-]){re.escape(pair[0])}/", text))
        return in_turn([passages for _, passages in first], _MOST_NAMED)

    def knows(self, name: str) -> bool:
        """Does this name of a file, symbol or option stand anywhere in a repository?"""
        return any(known for _, known in self._ask_all(lambda repository, index: self._knows(name, repository, index)))

    def _knows(self, name: str, repository: str, index: Index) -> bool:
        return name == repository or index.knows(self._without_names(name, repository) or name)

    def _without_names(self, text: str, repository: str) -> str:
        """`text` as `repository` reads it: its own name in front of a path is left out, paths of others are no path."""
        names = "|".join(map(re.escape, sorted(self.names, key=len, reverse=True)))

        def cut(match: re.Match[str]) -> str:
            return match[2] if match[1] == repository else ""

        return re.sub(rf"(?<![\w./-])({names})/([\w@+./-]+)", cut, text) if names else text

    def has_path(self, path: str) -> bool:
        """Is this file indexed?"""
        return bool(self._of(path, lambda index, rest: index.has_path(rest), False))

    def has_symbol(self, name: str) -> bool:
        """Is `name` defined in any repository?"""
        return any(there for _, there in self._ask_all(lambda _, index: index.has_symbol(name)))

    def is_current(self, path: str, start_line: int, end_line: int, sha256: str) -> bool:
        """Do these lines on disk (secrets masked) still have this hash?"""
        return self._of(path, lambda index, rest: index.is_current(rest, start_line, end_line, sha256), False)

    def read(self, path: str) -> str | None:
        """What the indexed file at `path` says now, secrets masked; None for a file that is not in an index."""
        return self._of(path, lambda index, rest: index.read(rest), None)

    def explain(self, path: str) -> str:
        """One line: why the file at `path` is, or is not, in the index."""
        nothing = f"{path}: not in the index: give a path that begins with a repository's name"
        repository = path.partition("/")[0]
        said = self._of(path, lambda index, rest: f"{repository}/{index.explain(rest)}", nothing)
        return said if repository in self.names else nothing

    def last_changed(self, path: str) -> str:
        """The day (ISO) of the last commit that changed `path`; "" when nobody knows, as in a clone without history."""
        repository = self._members.find(path.partition("/")[0])
        if repository is None or repository.is_cloned:
            return ""
        return self._of(path, lambda index, rest: index.last_changed(rest), "")

    def commit_of(self, repository: str) -> str:
        """The commit of `repository` that is checked out; "" without git."""
        if repository not in self.names:
            return ""
        try:
            return self._git_of(repository)[0] or ""
        except IndexUnavailable:  # it is among the missing now
            return ""

    @property
    def embedder_name(self) -> str:
        return self._members.embedder.name

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Embeddings of `texts` as the indexes make them."""
        with translated_errors(self._members.fleet):
            embedded: list[list[float]] = self._members.embedder.embed(texts).tolist()
        return embedded

    def state(self) -> IndexState:
        """How fresh all of it is: counts summed, the lag of the oldest change; `commit` where there is one repository.

        What git says may be 10 seconds old.
        """
        states = [state for _, state in self._ask_all(lambda name, index: self._state_of(name, index))]
        commit = states[0].commit if len(states) == 1 and len(self.names) == 1 else None
        numbers = ("dirty_files", "files", "chunks", "waiting_files", "waiting_chunks")
        summed = {number: sum(getattr(state, number) for state in states) for number in numbers}
        behind = max((state.seconds_behind for state in states), default=0.0)
        return IndexState(commit, **summed, seconds_behind=behind, missing=self.missing())

    def states(self) -> dict[str, IndexState | str]:
        """Each repository's own state, or why it has none."""
        found: dict[str, IndexState | str] = dict(self._ask_all(lambda name, index: self._state_of(name, index)))
        return {name: found.get(name, self._members.faults.get(name, "")) for name in self.names}

    def _state_of(self, name: str, index: Index) -> IndexState:
        counted = index.state(with_git=False)
        commit, dirty = self._git_of(name, index)
        return replace(counted, commit=commit, dirty_files=dirty)

    def _git_of(self, name: str, index: Index | None = None) -> tuple[str | None, int]:
        known = self._git.get(name)
        if known is None or time.monotonic() - known[0] > _GIT_S:
            state = self._members.ask(name, lambda index: index.state()) if index is None else index.state()
            known = self._git[name] = (time.monotonic(), state.commit, state.dirty_files)
        return known[1:]

    # To one, to all

    def _ask_all(
        self, question: Callable[[str, Index], Answer], names: Sequence[str] | None = None
    ) -> list[tuple[str, Answer]]:
        """What each repository (or each of `names`) answers, in order; those that fail are left out, and `missing`."""

        def ask(name: str) -> tuple[str, Answer] | None:
            try:
                return name, self._members.ask(name, lambda index: question(name, index))
            except IndexUnavailable as error:
                if isinstance(error, ValueError):  # a pattern that cannot be used: the caller's mistake
                    raise
                return None

        return [answer for answer in self._pool.map(ask, self.names if names is None else names) if answer is not None]

    def _of(self, path: str, question: Callable[[Index, str], Answer], otherwise: Answer) -> Answer:
        """What the repository of `path` answers; `otherwise` where there is none, or it fails."""
        name, _, rest = path.partition("/")
        if name not in self.names or not rest:
            return otherwise
        try:
            return self._members.ask(name, lambda index: question(index, rest))
        except IndexUnavailable:
            return otherwise

    def _overlays(self, overlays: Mapping[str, str] | None) -> dict[str, dict[str, str]]:
        """The open buffers of each repository, by its own paths."""
        laid: dict[str, dict[str, str]] = {name: {} for name in self.names}
        for path, text in (overlays or {}).items():
            name, _, rest = path.partition("/")
            if name in laid and rest:
                laid[name][rest] = text
        return laid


def _titled(title: str, tell: Callable[[Progress], None]) -> Callable[[Progress], None]:
    return lambda step: tell(replace(step, stage=f"{title}: {step.stage}"))


def _in(repository: str, passage: Passage) -> Passage:
    return replace(passage, path=f"{repository}/{passage.path}", repository=repository)


def _named(repository: str, passages: Sequence[Passage]) -> list[Passage]:
    return [_in(repository, passage) for passage in passages]


def _summed(reports: Sequence[UpdateReport], failed: dict[str, str], seconds: float) -> UpdateReport:
    numbers = ("files", "chunks", "embedded", "updated_files", "deleted_files")
    skipped: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    for report in reports:
        skipped.update(report.skipped)
        masked.update(report.masked_secrets)
    summed = {number: sum(getattr(report, number) for report in reports) for number in numbers}
    fault = next((report.store_fault for report in reports if report.store_fault), "")
    return UpdateReport(
        **summed,
        skipped=dict(skipped),
        masked_secrets=dict(masked),
        seconds=seconds,
        store_fault=fault,
        failed=failed,
    )
