"""A whole night by the command, small and real: SmolLM2 learns for some steps, is proved, and a real vLLM loads it."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

FEW = {
    "NIGHTSCHOOL_SERVER__MODEL": "smollm2-135m",
    "NIGHTSCHOOL_SERVER__EAGER": "true",
    "NIGHTSCHOOL_CORPUS__GENERATOR": "off",
    "NIGHTSCHOOL_TRAINER__MAX_STEPS": "6",
    "NIGHTSCHOOL_TRAINER__ROW_TOKENS": "256",
    "NIGHTSCHOOL_TRAINER__EXAMPLE_TOKENS": "256",
    "NIGHTSCHOOL_TRAINER__HELD_OUT_TOKENS": "256",
    "NIGHTSCHOOL_TRAINER__PROOF_BYTES": "600",
    "NIGHTSCHOOL_TRAINER__MIN_FILES": "2",
    "NIGHTSCHOOL_TRAINER__QUESTIONS": "2",
    "NIGHTSCHOOL_TRAINER__ANSWER_TOKENS": "8",
    "NIGHTSCHOOL_TRAINER__ANSWER_MINUTES": "0.2",
}


def price(number: int, tax: int) -> str:
    return (
        f'def price_{number}(item: str, country: str) -> int:\n    """What `item` costs in `country`, in cents. 🌍"""\n'
        f"    return CENTS_OF[item] * (100 + TAXES[country]) // 100 + {tax}\n\n\n"
    )


@pytest.fixture
def shop(tmp_path, make_git):
    """Twelve modules, and a second commit that adds a function to each: the code that the night is proved on."""
    (tmp_path / "shop").mkdir()
    modules = [tmp_path / "shop" / f"prices_{number}.py" for number in range(12)]
    for number, module in enumerate(modules):
        module.write_text("".join(price(other, number) for other in range(number, number + 4)))
    make_git(tmp_path)
    for number, module in enumerate(modules):
        module.write_text(module.read_text() + price(number + 100, number))
    make_git.git(tmp_path, "commit", "--all", "--quiet", "--message", "Price more")
    return tmp_path


def test_a_night_ends_with_what_it_measured_and_in_service_is_what_it_decided(shop, cli, make_git):
    done = cli("night", "--json", cwd=shop, timeout_s=800, **FEW)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["is_next_day"]
    assert report["newer_commit"] == make_git.git(shop, "rev-parse", "HEAD") != report["commit"]
    assert report["manifest"]["base_model"]["name"] == "smollm2-135m"
    assert report["manifest"]["steps"] == 6
    assert report["manifest"]["losses"]["held_out_after"] < report["manifest"]["losses"]["held_out_before"]
    assert [(row["arm"], row["retrieval"]) for row in report["rows"]] == [
        ("base", False), ("base", True), ("candidate", False), ("candidate", True),
    ]  # fmt: skip
    base, base_with_passages, candidate, candidate_with_passages = (row["newer_code"] for row in report["rows"])
    assert 0 < candidate < base < 5
    # The lines around one price say more of it than passages with other prices do: only that these were read is sure.
    assert 0 < base_with_passages != base
    assert 0 < candidate_with_passages != candidate
    assert all(0 < row["elsewhere"] < 5 and row["answers"]["answers"] > 0 for row in report["rows"])
    engine = next(line for line in report["verdict"] if line["rule"] == "the engine loads it")
    assert engine["passed"], engine
    assert engine["measured"].startswith("it does: first token ")
    passed = all(line["passed"] for line in report["verdict"])
    assert report["outcome"] == ("promoted" if passed else "refused")
    check_what_is_left(shop, report, cli)


def check_what_is_left(shop, report, cli):
    """The adapter with its reports, in service if promoted; and the next night has nothing to do."""
    adapter = shop / ".nightschool" / "adapters" / report["version"]
    listed = json.loads(cli("adapters", "list", "--json", cwd=shop).stdout)
    assert listed["in_service"] == (report["version"] if report["outcome"] == "promoted" else None)
    assert (adapter / "adapter_model.safetensors").stat().st_size > 1_000_000
    assert f"The night of {report['night']}: {report['outcome']}" in (adapter / "report.html").read_text()
    assert report["outcome"] in (adapter / "report.md").read_text().splitlines()[0]
    kept = json.loads((shop / ".nightschool" / "nights" / "last_night.json").read_text())
    assert (kept["outcome"], kept["version"]) == (report["outcome"], report["version"])
    again = cli("night", "--json", cwd=shop, **FEW)
    assert (again.returncode, json.loads(again.stdout)["outcome"]) == (0, "skipped"), again.stderr
