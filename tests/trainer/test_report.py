"""The report of a night: one page that loads nothing, says what was decided, and survives what people put in code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from indexer.workspace import Workspace
from trainer.answers import Checked
from trainer.charts import NightPoint, history_chart, loss_chart, mix_chart
from trainer.learnt import Learnt
from trainer.promote import Line
from trainer.proving import Row, Shown
from trainer.report import NightReport, _history, to_markdown
from trainer.report_page import to_html

ODD = '<script>alert("é 🌍")</script> | x\r\n& `tick`'
ANSWERS = Checked(70, 9, 6, 5, 8, 1, 0.25, 4, 3, 2, 0.5, 60, 30, 0, ())
REPORT = NightReport(
    "2026-11-25-023000", "refused", "too few", "v2", "v1", "tiny", "c0ffee", "beef", True,
    (Row("base", False, 1.0, 0.7, ANSWERS), Row("base", True, 0.9, 0.7, None), Row("candidate", True, 0.8, 0.7, None)),
    (Line("fewer bits", "-10%", True), Line(ODD, "x", False)),
    answers=(Shown(ODD, {"base": ODD, "candidate": ""}),), mix={"raw": 900, ODD: 100},
    learnt=Learnt("2026-11-24-023000", 40, (ODD,), ((ODD, 3),)), gone=(ODD,),
    manifest={"losses": {"held_out_before": 2.0, "held_out_after": None}},
)  # fmt: skip


def test_the_page_is_whole_and_nothing_in_it_is_code_or_an_address() -> None:
    points = [NightPoint("2026-11-24-023000", "promoted", -0.1), NightPoint(REPORT.night, "refused", -0.02)]
    page = to_html(REPORT, [3.0, 2.5, 2.0] * 10, points)
    assert "<script" not in page
    assert "http" not in page
    assert "src=" not in page
    assert page.count("<svg") == 3
    for text in ("NOT PASSED", "v1 stays in service", "5 of 6", "1 of 8, 0.25", "3 of 4", "30 of 60", "and 39 more"):
        assert text in page
    assert "(nothing)" in page


def test_a_night_without_answers_losses_or_a_past_has_a_page_too() -> None:
    page = to_html(NightReport("n", "promoted", "", "v", rows=(Row("base", True, None, None, None),)), [], [])
    assert "not measured" in page
    assert "<svg" not in page


def test_what_nobody_was_asked_has_no_column() -> None:
    text = to_markdown(REPORT)
    assert "| arm | retrieval | bits per byte, newer code | other people's code | names that exist |" in text
    assert "tests pass" not in text
    assert "names that exist" not in to_markdown(replace(REPORT, rows=REPORT.rows[1:]))
    filled = replace(REPORT, rows=(replace(REPORT.rows[1], holes=(0, 10)),))
    assert "| base | on | 0.9000 | 0.7000 | 0 of 10 |" in to_markdown(filled)


def test_markdown_keeps_its_tables_whole() -> None:
    text = to_markdown(REPORT)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in rows)
    assert "| base | off | 1.0000 | 0.7000 | 5 of 6 | 1 of 8, 0.25 | 3 of 4 | 0.50 (2) | 30 of 60 | 9 of 70 |" in text


@pytest.mark.parametrize(
    "chart",
    [
        loss_chart([2.0], None, None),
        loss_chart([float(50 - i) for i in range(40)], 3.0, 1.0),
        mix_chart({"raw": 0}),
        mix_chart({"raw": 1_600_000, "file-question": 3, "é 🌍 <&>": 7}),
        history_chart([NightPoint(f"2026-11-{day:02}-023000", "refused", day / 100) for day in range(1, 29)]),
    ],
)
def test_a_chart_is_well_formed_and_the_same_each_time(chart: str) -> None:
    # In a page the names need no namespaces; to read it as XML they do.
    ElementTree.fromstring(chart.replace("<svg", '<svg xmlns:xlink="x"', 1))
    assert "http" not in chart


def test_charts_do_not_change_from_one_run_to_the_next() -> None:
    assert mix_chart({"raw": 5, "chat": 2}) == mix_chart({"raw": 5, "chat": 2})


def test_the_history_is_of_all_nights_that_can_be_read(tmp_path: Path) -> None:
    nights = Workspace(tmp_path).make_state_folder() / "nights"
    nights.mkdir()
    rows = [{"arm": arm, "retrieval": True, "newer_code": bits} for arm, bits in (("base", 1.0), ("candidate", 0.9))]
    older = {"night": "2026-11-20", "outcome": "promoted", "rows": rows}
    (nights / "2026-11-20.json").write_text(json.dumps(older))
    (nights / "2026-11-21.json").write_text("{")
    (nights / "2026-11-22.json").write_text('{"night": "2026-11-22", "outcome": "skipped", "rows": []}')
    found = _history(Workspace(tmp_path), REPORT)
    assert [(point.night, point.outcome, round(point.change, 3)) for point in found] == [
        ("2026-11-20", "promoted", -0.1), ("2026-11-25-023000", "refused", -0.111),
    ]  # fmt: skip
