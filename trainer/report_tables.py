"""The report of a night as tables of text: what Markdown and the page are both made of. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.proving import Row

if TYPE_CHECKING:
    from trainer.report import NightReport

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def headline(report: NightReport) -> str:
    what = {
        "promoted": f"{report.version} is in service{_gain(report)}.",
        "refused": f"{report.version} was refused; {report.in_service or 'the base model'} stays in service.",
        "skipped": "Nothing was done.",
    }[report.outcome]
    if report.outcome == "refused" and report.in_service is None:
        what += " Fine-tuning did not prove itself on this repository tonight: it is served with retrieval alone."
    return f"{what} {report.reason}".strip()


def _gain(report: NightReport) -> str:
    """What it gains, as the first line of the verdict has it."""
    if not report.verdict:
        return ""
    where = "newer code" if report.is_next_day else "held-out files"
    return f"; bits per byte on {where}, against the base model: {report.verdict[0].measured}"


def tables(report: NightReport) -> dict[str, Table]:
    if report.outcome == "skipped":
        return {}
    newer = "newer code" if report.is_next_day else "held-out files"
    head = ("arm", "retrieval", f"bits per byte, {newer}", "other people's code", *_ANSWER_HEAD)
    arms = [
        (
            row.arm,
            "on" if row.retrieval else "off",
            _number(row.newer_code),
            _number(row.elsewhere),
            *_answer_cells(row),
            _of(*row.holes) if row.holes else "",
        )
        for row in report.rows
    ]
    verdict = [(line.rule, line.measured, "passed" if line.passed else "NOT PASSED") for line in report.verdict]
    facts: dict[str, str] = {
        "trained on": report.commit[:12],
        "proved on": report.newer_commit[:12],
        "base model": report.base_model,
    }
    if report.tests:
        facts["functions for the repository's own tests"] = report.tests
    if (judged := report.judged) is not None:
        facts["the judge"] = judged.judge
        facts["answers that it finds better, worse, neither"] = f"{judged.better}, {judged.worse}, {judged.undecided}"
    hyper = report.manifest.get("hyper_parameters", {})
    losses = report.manifest.get("losses", {})
    return {
        "Verdict": (("rule", "measured", ""), verdict),
        "The arms": _without_empty_columns(head, arms),
        "Facts": (("", ""), [*facts.items(), *((f"loss, {k}", _number(v)) for k, v in losses.items())]),
        "Corpus": (("", ""), [(name.replace("_", " "), f"{value:,.0f}") for name, value in report.corpus.items()]),
        "Hyper-parameters": (("", ""), [(name, str(value)) for name, value in hyper.items()]),
        "Seconds by stage": (("", ""), [(name, f"{value:.1f}") for name, value in report.seconds.items()]),
    }


def _without_empty_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """What nobody was asked needs no column."""
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    return [head[column] for column in kept], [[row[column] for column in kept] for row in rows]


_ANSWER_HEAD = ("names that exist", "recall: exact, F1", "refused", "file: F1", "canaries", "stopped", "tests pass")


def _answer_cells(row: Row) -> tuple[str, ...]:
    """Counts and means of an arm's answers; "" where nothing of the kind was asked."""
    found = row.answers
    if found is None:
        return ("",) * (len(_ANSWER_HEAD) - 1)
    return (
        _of(found.valid_names, found.names),
        f"{_of(found.recall_exact, found.recall)}, {found.recall_f1:.2f}" if found.recall else "",
        _of(found.refused, found.unreal),
        f"{found.file_f1:.2f} ({found.files})" if found.files else "",
        _of(found.canaries_passed, found.canaries),
        _of(found.stopped, found.answers),
    )


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else ""


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
