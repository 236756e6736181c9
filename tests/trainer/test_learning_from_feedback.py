"""Answers that users kept are learnt where it is switched on, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from indexer.workspace import Workspace
from server.base_model import BaseModel
from server.feedback import Exchange, Feedback
from trainer.corpus import read_examples
from trainer.ledger import read_ledger
from trainer.settings import TrainerSettings
from trainer.sources.feedback import gather_feedback
from trainer.stages import Workshop, collect

KEPT = Exchange(
    "a1", "2026-11-02T10:00:00+00:00", "How do refunds work here?", "By hand [1]. Ask the shop [12].", None, "c0ffee",
    None, "tiny", kept=True,
)  # fmt: skip


def keep(workspace: Workspace, *exchanges: Exchange) -> None:
    feedback = Feedback(workspace)
    for exchange in exchanges:
        feedback.note_answer(exchange)


def test_a_kept_answer_is_learnt_as_its_user_left_it(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    edited = replace(KEPT, id="a2", question="Who packs?", edited="The night shift packs.")
    later = replace(KEPT, id="a3", question="Newer?", asked_at="2026-11-09T10:00:00+00:00")
    keep(place, KEPT, edited, later, replace(KEPT, id="a4", kept=False), replace(KEPT, id="a5", kept=None))
    talks, left_out = gather_feedback(place, datetime(2026, 11, 5, tzinfo=UTC))
    assert [(talk.source, talk.question, talk.messages[1]["content"]) for talk in talks] == [
        ("feedback:a1", "How do refunds work here?", "By hand. Ask the shop."),
        ("feedback:a2", "Who packs?", "The night shift packs."),
    ]
    assert left_out == {"feedback: not kept by its user": 2, "feedback: newer than the snapshot": 1}
    assert len(gather_feedback(place, None)[0]) == 3
    assert gather_feedback(Workspace(tmp_path / "nothing"), None) == ([], {})


def test_it_is_in_the_corpus_only_where_it_is_switched_on(
    git_workspace: tuple[Path, Callable[..., str]], tiny_base: BaseModel
) -> None:
    root, commit = git_workspace
    commit(3, {"a.py": "def refund(order):\n    return order.back()\n", "b.py": "def pack(box):\n    return box * 2\n"})
    place = Workspace(root)
    keep(place, KEPT)
    settings = TrainerSettings(preset="cpu")
    for switch, expected in (("", []), ("[corpus]\nfeedback = true\nvalidation_share = 0.0\n", ["feedback:a1"])):
        (root / "nightschool.toml").write_text(switch)
        report = collect(Workshop(place, settings, tiny_base, lambda _: None))
        ledger = read_ledger(report.folder)
        found = [
            example.entry.source for example in read_examples(report.folder, ledger) if example.entry.kind == "feedback"
        ]
        assert found == expected
