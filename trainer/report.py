"""The report of a night: one set of facts, as JSON, Markdown and a self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from indexer.workspace import Workspace, write_atomically
from server.adapter import Adapter
from trainer.charts import NightPoint
from trainer.judge import Judged
from trainer.learnt import Learnt
from trainer.promote import Line
from trainer.proving import Row, Shown
from trainer.report_page import to_html
from trainer.report_tables import headline, tables


@dataclass(frozen=True, slots=True)
class NightReport:
    """What a night decided, and every number that it decided on. `mix` is the corpus' tokens by kind of example, `gone`
    what the candidate still writes although the repository has it no more, `tests` on what the repository's own tests
    were run."""

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
    mix: dict[str, int] = field(default_factory=dict)
    learnt: Learnt = field(default_factory=Learnt)
    gone: tuple[str, ...] = ()
    judged: Judged | None = None
    tests: str = ""

    @classmethod
    def skipped(cls, night: str, reason: str) -> NightReport:
        return cls(night, "skipped", reason)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def write_reports(workspace: Workspace, adapter: Adapter, report: NightReport) -> None:
    """`report.md` and `report.html` in the adapter's folder, and the facts in `nights/<night>.json`."""
    run = workspace.state / "runs" / adapter.version
    losses = _training_losses(run / "events.jsonl")
    history = _history(workspace, report)
    write_atomically(adapter.folder / "report.md", to_markdown(report))
    write_atomically(adapter.folder / "report.html", to_html(report, losses, history))
    write_atomically(workspace.state / "nights" / f"{report.night}.json", report.to_json())


def to_markdown(report: NightReport) -> str:
    parts = [f"# The night of {report.night}: {report.outcome}", headline(report)]
    for title, (head, rows) in tables(report).items():
        lines = [head, ["---"] * len(head), *rows]
        parts += [f"## {title}", "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)]
    if report.learnt.since:
        parts.append(f"## Learnt since the night of {report.learnt.since}: {report.learnt.commits} commits")
        parts.append("\n".join(f"- {subject}" for subject in report.learnt.subjects))
    if report.gone:
        parts.append(f"## Stale memory\n\nIt still writes names that are gone: {', '.join(report.gone)}")
    if report.answers:
        parts.append("## Answers side by side")
        for shown in report.answers:
            parts.append(f"**{shown.question}**")
            parts += [f"- {arm}: {' '.join(text.split())[:400]}" for arm, text in shown.answers.items()]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _training_losses(events: Path) -> list[float]:
    try:
        lines = [json.loads(line) for line in events.read_text("utf-8").splitlines()]
    except (OSError, ValueError):
        return []
    steps = {line["step"]: float(line["loss"]) for line in lines if line.get("event") == "Step"}
    return [steps[step] for step in sorted(steps)]


def _history(workspace: Workspace, report: NightReport) -> list[NightPoint]:
    """All nights that compared a candidate with the base model, this one last."""
    found: list[NightPoint] = []
    for path in sorted((workspace.state / "nights").glob("2*.json")):
        try:
            values = json.loads(path.read_text("utf-8"))
            if values["night"] != report.night:
                found += _point(values["night"], values["outcome"], values["rows"])
        except (OSError, ValueError, KeyError, TypeError):  # another version's
            continue
    return found + _point(report.night, report.outcome, [asdict(row) for row in report.rows])


def _point(night: str, outcome: Any, rows: Sequence[dict[str, Any]]) -> list[NightPoint]:
    bits = {row["arm"]: row["newer_code"] for row in rows if row["retrieval"]}
    if not bits.get("base") or bits.get("candidate") is None:
        return []
    return [NightPoint(night, outcome, bits["candidate"] / bits["base"] - 1)]
