"""The report of a night: one set of facts, as JSON, Markdown and a self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

from indexer.workspace import Workspace, write_atomically
from server.adapter import Adapter
from trainer.promote import Line
from trainer.proving import Row, Shown


@dataclass(frozen=True, slots=True)
class NightReport:
    """What a night decided, and every number that it decided on."""

    night: str
    outcome: Literal["promoted", "refused", "skipped"]
    reason: str
    version: str = ""
    in_service: str | None = None
    base_model: str = ""
    commit: str = ""
    newer_commit: str = ""
    is_next_day: bool = False
    rows: tuple[Row, ...] = ()
    verdict: tuple[Line, ...] = ()
    corpus: dict[str, float] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    answers: tuple[Shown, ...] = ()

    @classmethod
    def skipped(cls, night: str, reason: str) -> NightReport:
        return cls(night, "skipped", reason)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def write_reports(workspace: Workspace, adapter: Adapter, report: NightReport) -> None:
    """`report.md` and `report.html` in the adapter's folder, and the facts in `nights/<night>.json`."""
    run = workspace.state / "runs" / adapter.version
    losses = _training_losses(run / "events.jsonl")
    history = _history(workspace, report)
    write_atomically(adapter.folder / "report.md", to_markdown(report))
    write_atomically(adapter.folder / "report.html", to_html(report, losses, history))
    write_atomically(workspace.state / "nights" / f"{report.night}.json", report.to_json())


def to_markdown(report: NightReport) -> str:
    parts = [f"# The night of {report.night}: {report.outcome}", _headline(report)]
    for title, (head, rows) in _tables(report).items():
        lines = [head, ["---"] * len(head), *rows]
        parts += [f"## {title}", "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)]
    if report.answers:
        parts.append("## Answers side by side, with retrieval")
        for shown in report.answers:
            parts.append(f"**{shown.question}**")
            parts += [f"- {arm}: {' '.join(text.split())[:400]}" for arm, text in shown.answers.items()]
    return "\n\n".join(parts) + "\n"


def to_html(report: NightReport, losses: Sequence[float], history: Sequence[tuple[str, float]]) -> str:
    """One page, nothing loaded from anywhere."""
    parts = [f"<h1>The night of {escape(report.night)}: {report.outcome}</h1><p>{escape(_headline(report))}</p>"]
    for title, (head, rows) in _tables(report).items():
        cells = "".join(f"<th>{escape(name)}</th>" for name in head)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<h2>{escape(title)}</h2><table><tr>{cells}</tr>{body}</table>")
    if losses:
        parts.append(f"<h2>Training loss</h2>{_curve(losses, 'nats a token, by step')}")
    if len(history) > 1:
        caption = "change of bits per byte on newer code, by night: " + ", ".join(f"{n} {v:+.1%}" for n, v in history)
        parts.append(f"<h2>All nights</h2>{_curve([value for _, value in history], caption)}")
    for shown in report.answers:
        answers = "".join(f"<dt>{escape(arm)}</dt><dd>{escape(text)}</dd>" for arm, text in shown.answers.items())
        parts.append(f"<h3>{escape(shown.question)}</h3><dl>{answers}</dl>")
    return _PAGE.replace("@TITLE@", escape(report.night)).replace("@BODY@", "\n".join(parts))


def _headline(report: NightReport) -> str:
    what = {
        "promoted": f"{report.version} is in service.",
        "refused": f"{report.version} was refused; {report.in_service or 'the base model'} stays in service.",
        "skipped": "Nothing was done.",
    }[report.outcome]
    if report.outcome == "refused" and report.in_service is None:
        what += " Fine-tuning did not prove itself on this repository tonight: it is served with retrieval alone."
    return f"{what} {report.reason}".strip()


def _tables(report: NightReport) -> dict[str, Table]:
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
        )
        for row in report.rows
    ]
    verdict = [(line.rule, line.measured, "passed" if line.passed else "NOT PASSED") for line in report.verdict]
    facts = {"trained on": report.commit[:12], "proved on": report.newer_commit[:12], "base model": report.base_model}
    hyper = report.manifest.get("hyper_parameters", {})
    losses = report.manifest.get("losses", {})
    return {
        "Verdict": (("rule", "measured", ""), verdict),
        "The arms": (head, arms),
        "Facts": (("", ""), [*facts.items(), *((f"loss, {k}", _number(v)) for k, v in losses.items())]),
        "Corpus": (("", ""), [(name.replace("_", " "), f"{value:,.0f}") for name, value in report.corpus.items()]),
        "Hyper-parameters": (("", ""), [(name, str(value)) for name, value in hyper.items()]),
        "Seconds by stage": (("", ""), [(name, f"{value:.1f}") for name, value in report.seconds.items()]),
    }


_ANSWER_HEAD = ("names that exist", "recall: exact, F1", "refused", "file: F1", "canaries", "stopped")


def _answer_cells(row: Row) -> tuple[str, ...]:
    """Counts and means of an arm's answers; "" where nothing of the kind was asked."""
    found = row.answers
    if found is None:
        return ("",) * len(_ANSWER_HEAD)
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


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _training_losses(events: Path) -> list[float]:
    try:
        lines = [json.loads(line) for line in events.read_text("utf-8").splitlines()]
    except (OSError, ValueError):
        return []
    steps = {line["step"]: float(line["loss"]) for line in lines if line.get("event") == "Step"}
    return [steps[step] for step in sorted(steps)]


def _history(workspace: Workspace, report: NightReport) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for path in sorted((workspace.state / "nights").glob("2*.json")):
        values = json.loads(path.read_text("utf-8"))
        if values["night"] != report.night:
            found += _gain(values["night"], values["rows"])
    return found + _gain(report.night, [asdict(row) for row in report.rows])


def _gain(night: str, rows: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    bits = {row["arm"]: row["newer_code"] for row in rows if row["retrieval"]}
    if not bits.get("base") or bits.get("candidate") is None:
        return []
    return [(night, bits["candidate"] / bits["base"] - 1)]


def _curve(values: Sequence[float], caption: str) -> str:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{20 + 660 * i / max(1, len(values) - 1):.1f},{20 + 160 * (high - value) / span:.1f}"
        for i, value in enumerate(values)
    )
    return (
        f'<svg viewBox="0 0 700 220" role="img" aria-label="{escape(caption)}"><polyline points="{points}"/>'
        f'<text x="20" y="14">{high:.3f}</text><text x="20" y="196">{low:.3f}</text>'
        f'<text x="20" y="214">{escape(caption)}</text></svg>'
    )


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>nightschool: @TITLE@</title>
<meta name="viewport" content="width=device-width"><style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{border:1px solid #d0d7de;padding:.3rem .6rem;text-align:left}
th{background:#f6f8fa}svg{width:100%;max-width:700px}polyline{fill:none;stroke:#0b62c4;stroke-width:2}
svg text{font-size:12px;fill:#57606a}dt{font-weight:600}dd{margin:0 0 .6rem;white-space:pre-wrap}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}td,th{border-color:#30363d}th{background:#161b22}
polyline{stroke:#58a6ff}svg text{fill:#8b949e}}
</style><body>@BODY@</body></html>
"""
