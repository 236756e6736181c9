"""Door to the terminal: progress on stderr, answers on stdout, and nothing of either in a pipe that did not ask."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from server.client import Json

# Outside a terminal one line now and then instead of a bar that redraws itself: sooner when there is news.
NEWS_EVERY_S = 5.0
LINE_EVERY_S = 30.0

Advance = Callable[[str, float, float | None], None]

err = Console(stderr=True, highlight=False)
out = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line for the user, on stderr."""
    err.print(escape(text), style="dim", soft_wrap=True)


def fail(text: str) -> None:
    """One line that says what went wrong and what to do, on stderr."""
    err.print(f"[red]nightschool:[/] {escape(text)}", soft_wrap=True)


@contextmanager
def progress(title: str) -> Iterator[Advance]:
    """Show how far something is: call what you are given with (text, done, total or None when nobody knows)."""
    if err.is_terminal:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda text, done, total: bar.update(
                task, description=f"{title}: {escape(text)}" if text else title, completed=int(done), total=total
            )
    else:
        yield _Lines(title)


class _Lines:
    """Progress as lines, at most one every `NEWS_EVERY_S`, and the same one again only after `LINE_EVERY_S`."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._last = time.monotonic()
        self._said = ""

    def __call__(self, text: str, done: float, total: float | None) -> None:
        of = f" {done:.0f}/{total:.0f}" if total else ""
        line = f"{self._title}:{of} {text}".rstrip()
        if time.monotonic() - self._last < (LINE_EVERY_S if line == self._said else NEWS_EVERY_S):
            return
        self._last, self._said = time.monotonic(), line
        print(line, file=sys.stderr, flush=True)  # noqa: T201


def print_passages(passages: Sequence[Json], with_text: bool = True) -> None:
    """Passages as people read them: path and lines, then the first lines of text."""
    for number, passage in enumerate(passages, 1):
        place = f"{passage['path']}:{passage['start_line']}-{passage['end_line']}"
        symbol = f"  {escape(passage['symbol'])}" if passage["symbol"] else ""
        out.print(f"[bold]\\[{number}] {escape(place)}[/]{symbol}  [dim]{passage['score']:.3f}[/]")
        if with_text:
            lines = passage["text"].splitlines()
            out.print(escape("\n".join(f"    {line}" for line in lines[:6])), style="dim")


def print_answer(answer: Json, written: bool) -> None:
    """A whole answer with what it stands on; `written`: its text stands on the terminal already."""
    if not written and answer["answer"]:
        out.print(escape(answer["answer"]))
    if answer["citations"]:
        out.print("\n[bold]Sources[/]")
    for citation in answer["citations"]:
        place = f"{citation['path']}:{citation['start_line']}-{citation['end_line']}"
        checked = "[green]checked[/]" if citation["verified"] else "[red]changed since[/]"
        out.print(f"  \\[{citation['index']}] {escape(place)}  @{(citation['commit'] or 'no commit')[:12]}  {checked}")
    if answer["passages"]:
        out.print("\n[bold]Passages read[/]")
        print_passages(answer["passages"], with_text=not answer["answer"])
    for notice in answer["notices"]:
        out.print(f"[yellow]note:[/] {escape(notice)}")
    out.print(f"[dim]{escape(freshness_line(answer))}[/]")


def freshness_line(answer: Json) -> str:
    """How fresh, on what weights, how fast: one line."""
    fresh = answer["freshness"]
    commit = (fresh["commit"] or "no commit")[:12]
    dirty = f", {fresh['dirty_files']} changed file(s)" if fresh["dirty_files"] else ""
    behind = f"{fresh['seconds_behind']:.1f} s behind" if fresh["waiting_files"] else "current"
    model = f"{answer['base_model'] or 'no model'} + adapter {answer['adapter'] or 'none'}"
    grounded = f"grounded {answer['groundedness']:.2f}" if answer.get("groundedness") is not None else "not measured"
    seconds = answer["timings_ms"].get("total", 0) / 1000
    return f"index at {commit}{dirty}, {behind} | {model} | {grounded} | {seconds:.1f} s"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    out.print(table)
