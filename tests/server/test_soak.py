"""The rule of `./run bench serving soak`: a leak shows through noise, noise is no leak, too much noise is said."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOOKS, EVERY_S = 180, 10


@pytest.fixture
def rule(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import serving_soak

    return serving_soak


def half_an_hour(rule, noise_mb=4.0, leak_mb_an_hour=0.0, descriptors=lambda n: 60):
    """What a backend of 500 MB would show: its noise hangs together over some looks, as an allocator's does."""
    dice, drift, samples = random.Random(7), 0.0, []
    for n in range(LOOKS):
        drift = 0.7 * drift + dice.gauss(0, noise_mb)
        memory = 500 + drift + leak_mb_an_hour * n * EVERY_S / 3600
        samples.append(rule.Sample(n * EVERY_S, memory, memory - 100, memory - 300, descriptors(n), 40, 20, 2, 1500))
    return samples


def idle(sample, **changed):
    return replace(sample, in_work=0, **changed)


def test_noise_is_no_leak(rule):
    assert rule.slope_of(half_an_hour(rule), "resident").verdict == "flat"


def test_a_leak_is_seen_through_the_noise(rule):
    found = rule.slope_of(half_an_hour(rule, leak_mb_an_hour=60), "resident")
    assert found.verdict == "grows"
    assert found.low < 60 < found.high


def test_too_much_noise_is_not_called_flat(rule):
    assert rule.slope_of(half_an_hour(rule, noise_mb=40), "resident").verdict == "unsure"


def test_a_descriptor_left_open_every_few_minutes_is_seen(rule):
    samples = half_an_hour(rule, descriptors=lambda n: 60 + n // 20 + (n % 3))
    assert rule.slope_of(samples, "descriptors").verdict == "grows"
    assert not rule.is_well(rule.table(samples, [idle(samples[30]), idle(samples[-1])], {"ask": 3}, []))


def test_more_questions_in_work_at_the_end_are_no_leak(rule):
    samples = half_an_hour(rule, descriptors=lambda n: 60 + n // 20)
    assert rule.is_well(rule.table(samples, [idle(samples[30], descriptors=40)] * 2, {"ask": 3}, []))


def test_the_table_fails_for_a_leak_a_wrong_answer_and_a_question_left_in_work(rule):
    well = half_an_hour(rule)
    after = [idle(well[30]), idle(well[-1])]
    assert rule.is_well(rule.table(well, after, {"ask": 3}, []))
    assert not rule.is_well(rule.table(half_an_hour(rule, leak_mb_an_hour=60), after, {"ask": 3}, []))
    assert not rule.is_well(rule.table(well, after, {"ask": 3}, ["ask: 500"]))
    assert not rule.is_well(rule.table(well, [after[0], replace(after[1], in_work=1)], {"ask": 3}, []))


def test_measuring_again_replaces_the_section_and_leaves_the_others(rule, tmp_path):
    from serving_report import put_section

    file = tmp_path / "serving.md"
    for section in ("## Speed\n\nslow\n", "## Soak\n\nflat\n", "## Speed\n\nquick\n"):
        put_section(file, section)
    head, speed, soak = file.read_text().split("## ")
    assert head.startswith("# ")
    assert speed == "Speed\n\nquick\n\n"
    assert soak == "Soak\n\nflat\n"
