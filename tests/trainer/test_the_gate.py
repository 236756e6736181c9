"""The gate, line by line, and the numbers it decides on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from trainer.answers import UNREAL, check
from trainer.comparison import Change, Score, bits_per_byte, change
from trainer.evaluate import Answer
from trainer.promote import Evidence, Margins, decide

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
        (replace(GOOD, engine_fault="rank too high"), "the engine loads it: rank too high"),
        (replace(GOOD, is_next_day=False, against_base=SAME), "files never trained on (there is no newer code)"),
    ],
)
def test_each_line_alone_refuses(evidence: Evidence, reason: str) -> None:
    verdict = decide(evidence, Margins())
    assert not verdict.promote
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]


def test_a_first_adapter_needs_no_adapter_in_service() -> None:
    assert decide(replace(GOOD, against_service=None, engine_fault=""), Margins()).promote


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


def test_answers_are_checked_for_names_refusals_ends_and_secrets() -> None:
    known = frozenset({"total_price", "prices", "Shop"})
    questions = ["What does `sum_all` do?", f"What does `{UNREAL}` do?", "Que fait `é`?"]
    answers = [
        Answer("", "It calls `total_price(prices)`, then invent_it() on `Shop.nowhere`.", True),
        Answer("", "The passages do not mention it.", True),
        Answer("", "ghp_" + "Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9St0Uv1Wx2", False),
    ]
    found = check(questions, answers, known)
    assert (found.valid_names, found.names) == (3, 5)
    assert (found.refused, found.unreal) == (1, 1)
    assert (found.stopped, found.answers) == (2, 3)
    assert found.secrets == 1
