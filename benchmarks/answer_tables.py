"""The tables of benchmarks/answers.py: what was written, measured by the product's own rules, as Markdown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from answer_questions import KINDS, Task, holds, names_first, rivals_of

from indexer.search import Passage
from server.assist import CODES_WORDS, MODELS_WORDS
from server.citations import renumber
from server.doors import Doors
from server.extract import extract, spelled_out, write_extract
from server.grounding import MIN_GROUNDEDNESS, Groundedness, Sources, measure
from server.prompt import Question
from server.retrieval import MIN_SUPPORT, Found, retrieve

PASSAGES = 5
Rivals = dict[tuple[str, str], frozenset[str]]


@dataclass(frozen=True, slots=True)
class Written:
    """One completion of one configuration, and what the product makes of it.

    `pointing`: a marker stands where a name should; what it marks is spelled out, which is no merit of the words.
    `right`: the model's words hold the right answer; `first`: they name it before any other of its kind; `shown`: the
    whole answer that a user sees holds it: with the code first, after, or after only where the words do not stand on it
    (as of models of three billion parameters and more).
    """

    task: Task
    stopped: bool
    pointing: bool
    measured: Groundedness
    right: bool
    first: bool
    quoted: bool
    shown_code_first: bool
    shown_model_first: bool
    shown_as_if_large: bool
    seconds: float


async def print_report(tasks: Sequence[Task], doors: dict[str, Doors], folder: Path) -> None:
    """Every table, on standard output."""
    real = [task for task in tasks if task.kind != "nothing"]
    rivals = rivals_of(real)
    found = {task.number: await retrieve(Question(task.text), PASSAGES, doors[task.repository]) for task in tasks}
    print_floor("The floor: extractive alone", real, found, rivals)
    runs = {
        _title(file): _read(file, real, doors, rivals)
        for file in sorted(await asyncio.to_thread(lambda: [*folder.glob("*.jsonl")]))
    }
    print_answers(runs)
    print_thresholds(runs)
    print_repetition(runs)
    print_nothing(tasks, found)


async def print_generated(tasks: Sequence[Task], doors: dict[str, Doors]) -> None:
    """Extractive alone on questions that a program made."""
    found = {task.number: await retrieve(Question(task.text), PASSAGES, doors[task.repository]) for task in tasks}
    name = tasks[0].repository
    print_floor(f"Extractive alone, questions by program: {name}", tasks, found, rivals_of(list(tasks)))
    refused = [not found[task.number].is_enough for task in tasks]
    print(f"\nRefused as being about nothing: {_share(refused)}")


def print_floor(title: str, tasks: Sequence[Task], found: dict[int, Found], rivals: Rivals) -> None:
    """Extractive alone, by kind."""
    rows = []
    for kind in (*KINDS, "all"):
        asked = [task for task in tasks if kind in (task.kind, "all")]
        texts = {task.number: _extracted(task, found[task.number].passages) for task in asked}
        right = [holds(task, texts[task.number]) for task in asked]
        first = [names_first(task, texts[task.number], rivals[task.repository, task.kind]) for task in asked]
        there = [any(holds(task, _whole(p)) for p in found[task.number].passages) for task in asked]
        lines = [texts[task.number].count("\n") + 1 for task in asked]
        rows.append([kind, str(len(asked)), *map(_share, (right, first, there)), f"{fmean(lines):.0f}"])
    _table(title, "kind n holds first in_passages lines", rows)


def print_answers(runs: dict[str, list[Written]]) -> None:
    rows = []
    for name, every in runs.items():
        n = [str(len(every)), f"{fmean(w.seconds for w in every):.1f}"]
        shares = [_share([getattr(w, field) for w in every]) for field in ("pointing", "right", "first", "quoted")]
        shown = [
            _share([getattr(w, field) for w in every])
            for field in ("shown_code_first", "shown_model_first", "shown_as_if_large")
        ]
        rows.append([name, *n, *shares, *shown])
    _table(
        "The model's words, and what is shown",
        "configuration n seconds pointing right first extract shown_code shown_model as_if_large",
        rows,
    )


def print_thresholds(runs: dict[str, list[Written]]) -> None:
    """The least groundedness that sets right from wrong best on the calibrating half, judged on the other half."""
    pooled = [w for every in runs.values() for w in every if not w.pointing]
    best = max(
        (n / 20 for n in range(1, 20)), key=lambda t: (_balance([w for w in pooled if w.task.calibrates], t), -t)
    )
    print(f"\nWhat parts right from wrong best on the calibrating half: {best:.2f} (in use {MIN_GROUNDEDNESS})")
    rows = []
    for name, every in [*runs.items(), ("all", pooled)]:
        judged = [w for w in every if not w.task.calibrates and not w.pointing]
        above = [w for w in judged if w.measured.score >= MIN_GROUNDEDNESS]
        below = [w for w in judged if w.measured.score < MIN_GROUNDEDNESS]
        scores = [_mean([w.measured.score for w in judged if w.right is right]) for right in (True, False)]
        rows.append(
            [
                name,
                str(len(judged)),
                *scores,
                _share([w in below for w in judged]),
                *(_share([w.right for w in part]) for part in (above, below)),
                f"{_balance(judged, MIN_GROUNDEDNESS):.2f}",
            ]
        )
    _table("Groundedness, judged half", "configuration n if_right if_wrong below right_above right_below balance", rows)


def print_repetition(runs: dict[str, list[Written]]) -> None:
    rows = []
    for name, every in runs.items():
        repeated = fmean(w.measured.repeated / max(1, w.measured.sentences) for w in every)
        score = fmean(w.measured.score for w in every)
        rows.append(
            [
                name,
                str(len(every)),
                _share([w.stopped for w in every]),
                f"{repeated:.2f}",
                f"{score:.2f}",
                _share([w.right for w in every]),
            ]
        )
    _table("Repetition", "configuration n stopped repeated groundedness right", rows)


def print_nothing(tasks: Sequence[Task], found: dict[int, Found]) -> None:
    """How many questions are refused, by what they are about."""
    rows = []
    for half in (True, False):
        for about, is_real in (("what is there", True), ("nothing", False)):
            asked = [t for t in tasks if t.calibrates is half and (t.kind != "nothing") is is_real]
            refused = [not found[t.number].is_enough for t in asked]
            support = [found[t.number].support for t in asked]
            rows.append(
                [
                    "calibrating" if half else "judged",
                    about,
                    str(len(asked)),
                    _share(refused),
                    f"{min(support):.2f}",
                    f"{fmean(support):.2f}",
                    f"{max(support):.2f}",
                ]
            )
    print(f"\nMIN_SUPPORT {MIN_SUPPORT}")
    _table("About nothing", "half about n refused least mean most", rows)


def _title(file: Path) -> str:
    model, adapter, reads, how = file.stem.split("__")
    return ", ".join((model, "base" if adapter == "none" else "adapter", reads, how))


def _read(file: Path, tasks: Sequence[Task], doors: dict[str, Doors], rivals: Rivals) -> list[Written]:
    by_number = {task.number: task for task in tasks}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [_judge(row, by_number[row["number"]], doors, rivals) for row in rows]


def _judge(row: dict[str, Any], task: Task, doors: dict[str, Doors], rivals: Rivals) -> Written:
    passages = [Passage(**one) for one in row["passages"]]
    text = renumber(row["text"], dict(enumerate(row["read"], 1)))
    quotes = extract(task.text, passages)
    verified = range(1, len(passages) + 1)
    measured = measure(text, task.text, Sources(passages, quotes, verified, doors[task.repository].knows))
    text += (pointed := spelled_out(text, passages))
    is_grounded = bool(pointed) or measured.score >= MIN_GROUNDEDNESS
    quoted = write_extract(quotes)
    return Written(
        task,
        row["finish"]["reason"] == "stop",
        bool(pointed),
        measured,
        holds(task, text),
        names_first(task, text, rivals[task.repository, task.kind]),
        holds(task, quoted),
        holds(task, quoted + (MODELS_WORDS + text if is_grounded else "") if quoted else text),
        holds(task, text + CODES_WORDS + quoted),
        holds(task, text if is_grounded and measured.cited_sentences and not pointed else text + CODES_WORDS + quoted),
        row["seconds"],
    )


def _extracted(task: Task, passages: Sequence[Passage]) -> str:
    return write_extract(extract(task.text, passages))


def _whole(passage: Passage) -> str:
    return f"`{passage.path}` {passage.symbol}\n{passage.text}"


def _balance(every: Sequence[Written], threshold: float) -> float:
    """Balanced accuracy of "grounded, so right": the mean of the shares of right and of wrong answers told so."""
    told = [[(w.measured.score >= threshold) is right for w in every if w.right is right] for right in (True, False)]
    return fmean(fmean(part) for part in told if part) if any(told) else 0.0


def _share(marks: Sequence[bool]) -> str:
    return f"{100 * fmean(marks):.0f}%" if marks else "-"


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f}" if values else "-"


def _table(title: str, columns: str, rows: Sequence[Sequence[str]]) -> None:
    names = columns.split()
    print(f"\n## {title}\n\n| {' | '.join(names).replace('_', ' ')} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
