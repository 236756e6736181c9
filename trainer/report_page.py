"""The report of a night as one page of HTML that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from trainer.charts import NightPoint, history_chart, loss_chart, mix_chart
from trainer.report_tables import Table, headline, tables

if TYPE_CHECKING:
    from trainer.report import NightReport


def to_html(report: NightReport, losses: Sequence[float], history: Sequence[NightPoint]) -> str:
    """The page: the verdict first, then the arms, then what they rest on."""
    found = tables(report)
    parts = [
        f'<header class="{report.outcome}"><h1>The night of {escape(report.night)}: {report.outcome}</h1>'
        f"<p>{escape(headline(report))}</p></header>",
        *(_section(title, _table(found.pop(title))) for title in ("Verdict", "The arms") if title in found),
    ]
    measured = report.manifest.get("losses", {})
    if losses:
        chart = loss_chart(losses, measured.get("held_out_before"), measured.get("held_out_after"))
        parts.append(_section("Training", chart))
    if report.mix:
        read = f"<p>Training read {report.manifest.get('tokens', 0):,} tokens of it.</p>"
        parts.append(_section("The corpus", mix_chart(report.mix) + read))
    parts += [_learnt(report), _gone(report), _answers(report)]
    if len(history) > 1:
        parts.append(_section("All nights", history_chart(history)))
    parts += [f"<details><summary>{escape(title)}</summary>{_table(table)}</details>" for title, table in found.items()]
    return _PAGE.replace("@TITLE@", escape(report.night)).replace("@BODY@", "\n".join(filter(None, parts)))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(table: Table) -> str:
    head, rows = table
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table>{f"<tr>{top}</tr>" if any(head) else ""}{body}</table></div>'


def _cell(text: str) -> str:
    mark = {"passed": ' class="good"', "NOT PASSED": ' class="bad"'}.get(text, "")
    return f"<td{mark}>{escape(text)}</td>"


def _learnt(report: NightReport) -> str:
    new = report.learnt
    if not new.since:
        return ""
    commits = "".join(f"<li>{escape(subject)}</li>" for subject in new.subjects)
    more = f"<li>and {new.commits - len(new.subjects)} more</li>" if new.commits > len(new.subjects) else ""
    files = _table((("file", "lines added"), [(path, str(lines)) for path, lines in new.files]))
    text = f"<p>{_commits(new.commits)} since the night of {escape(new.since)}.</p><ul>{commits}{more}</ul>"
    return _section("Learnt since then", text + (files if new.files else ""))


def _commits(count: int) -> str:
    return "1 commit" if count == 1 else f"{count} commits"


def _gone(report: NightReport) -> str:
    if not report.gone:
        return ""
    names = ", ".join(f"<code>{escape(name)}</code>" for name in report.gone)
    return _section("Stale memory", f"<p>It still writes names that the repository has no more: {names}.</p>")


def _answers(report: NightReport) -> str:
    if not report.answers:
        return ""
    arms = list(report.answers[0].answers)
    head = "<tr>" + "".join(f"<th>{escape(arm)}</th>" for arm in arms) + "</tr>"
    blocks = []
    for shown in report.answers:
        cells = "".join(f"<td><pre>{escape(shown.answers.get(arm, '')) or '(nothing)'}</pre></td>" for arm in arms)
        table = f'<table class="answers">{head}<tr>{cells}</tr></table>'
        blocks.append(f'<h3>{escape(shown.question)}</h3><div class="wide">{table}</div>')
    return _section("Answers side by side", "".join(blocks))


_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>nightschool: @TITLE@</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root{--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--back:#fff;--band:#f6f8fa;--good:#1a7f37;--bad:#cf222e}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#8b949e;--line:#30363d;--back:#0d1117;--band:#161b22;
--good:#3fb950;--bad:#f85149}}
body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:0 auto;padding:1.5rem 1rem 4rem;color:var(--ink);
background:var(--back)}
header{border-left:6px solid var(--soft);padding:.1rem 1rem;background:var(--band);border-radius:4px}
header.promoted{border-color:var(--good)}header.refused{border-color:var(--bad)}
h1{font-size:1.5rem;margin:.6rem 0}h2{font-size:1.15rem;margin:2rem 0 .6rem}h3{font-size:1rem;margin:1.2rem 0 .4rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:14px}
td,th{border:1px solid var(--line);padding:.3rem .6rem;text-align:left;vertical-align:top}
th{background:var(--band);font-weight:600}.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}
.answers{width:100%;table-layout:fixed;min-width:36rem}
pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.45 ui-monospace,monospace}
svg{max-width:100%;height:auto}details{margin:.8rem 0}summary{cursor:pointer;font-weight:600}
</style></head><body>@BODY@</body></html>
"""
