"""The gate, line by line, and the numbers it decides on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from trainer.comparison import Change, Difference, Score, bits_per_byte, change, difference
from trainer.promote import Evidence, Guards, Margins, Served, decide

BETTER = Change(-0.10, -0.13, -0.07, 20)
SAME = Change(0.001, -0.01, 0.01, 20)
WORSE = Change(0.05, 0.03, 0.08, 20)
GOOD = Evidence(BETTER, SAME, Change(0.002, -0.004, 0.008, 16), True)


def test_a_candidate_that_beats_the_base_model_and_forgets_nothing_is_promoted() -> None:
    verdict = decide(GOOD, Margins())
    assert verdict.promote
    assert verdict.reasons == ()
    assert verdict.lines[0].measured == "-10.0% (95%: -13.0% to -7.0%; 20 files)"


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (replace(GOOD, against_base=SAME), "fewer bits than the base model on newer code, with retrieval: +0.1%"),
        (replace(GOOD, against_base=None), "nothing to measure it on"),
        (replace(GOOD, against_base=replace(BETTER, clusters=3)), "too few to tell (5 are asked for)"),
        (replace(GOOD, against_service=WORSE), "not worse than the adapter in service: +5.0%"),
        (replace(GOOD, elsewhere=Change(0.02, 0.01, 0.03, 16)), "at most 1% more bits on other people's code: +2.0%"),
        (replace(GOOD, secrets=1), "no secret in its answers: 1 found"),
        (replace(GOOD, served=Served("rank too high")), "the engine loads it: rank too high"),
        (
            replace(GOOD, guards=Guards(names=Difference(-0.2, -0.3, -0.1, 30))),
            "names that exist in its answers: at most 5 points below the base model: -20 points (95%: -30 to -10; 30 q",
        ),
        (replace(GOOD, guards=Guards(canaries=Difference(-0.2, -0.3, -0.06, 9))), "too few to tell much"),
        (replace(GOOD, is_next_day=False, against_base=SAME), "files never trained on (there is no newer code)"),
    ],
)
def test_each_line_alone_refuses(evidence: Evidence, reason: str) -> None:
    verdict = decide(evidence, Margins())
    assert not verdict.promote
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]


def test_a_first_adapter_needs_no_adapter_in_service() -> None:
    assert decide(replace(GOOD, against_service=None, served=Served("", 0.12, 31.4)), Margins()).promote


def test_a_gain_smaller_than_asked_for_is_refused() -> None:
    assert not decide(GOOD, Margins(min_gain=0.08)).promote
    assert decide(GOOD, Margins(min_gain=0.05)).promote


def test_bits_per_byte_do_not_depend_on_tokens() -> None:
    assert bits_per_byte([Score("a", math.log(2) * 8, 4), Score("b", 0.0, 4)]) == pytest.approx(1.0)
    assert math.isnan(bits_per_byte([]))


def test_the_interval_of_a_change_holds_it_and_is_the_same_each_time() -> None:
    base = [Score(f"f{i % 12}", 10.0 + i % 5, 10) for i in range(40)]
    arm = [replace(score, nats=score.nats * (0.85 + 0.01 * (i % 7))) for i, score in enumerate(base)]
    found = change(arm, base)
    assert found.low < found.share < found.high < 0
    assert found.clusters == 12
    assert change(arm, base) == found
    assert change(base, base) == Change(0.0, 0.0, 0.0, 12)


def test_changes_are_only_taken_on_the_same_items() -> None:
    with pytest.raises(AssertionError, match="not the same items"):
        change([Score("a", 1.0, 1)], [Score("b", 1.0, 1)])
    with pytest.raises(ValueError, match="no items"):
        change([], [])


def test_a_fall_that_could_be_chance_does_not_refuse() -> None:
    noisy = Guards(names=Difference(-0.06, -0.2, 0.08, 12), recall=Difference(-0.02, -0.03, -0.01, 200))
    verdict = decide(replace(GOOD, guards=noisy), Margins())
    assert verdict.promote
    assert [line.rule.partition(":")[0] for line in verdict.lines[3:5]] == [
        "names that exist in its answers", "recall of what it has read",
    ]  # fmt: skip


def test_how_the_engine_served_it_is_said() -> None:
    line = decide(replace(GOOD, served=Served("", 0.12, 31.4)), Margins()).lines[-1]
    assert (line.measured, line.passed) == ("it does: first token 0.12 s, 31 tokens/s", True)


def test_the_difference_of_scores_is_paired() -> None:
    its = [0.0, 1.0, 0.5, 0.5] * 5
    found = difference([score - 0.25 for score in its], its)
    assert found == Difference(-0.25, -0.25, -0.25, 20)
    assert difference([], []) is None
    with pytest.raises(AssertionError, match="not the same questions"):
        difference([1.0], [])
    mixed = difference([1.0, 0.0] * 10, [0.0, 1.0] * 10)
    assert mixed is not None
    assert mixed.low < 0 < mixed.high
