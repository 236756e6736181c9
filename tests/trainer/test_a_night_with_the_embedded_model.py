"""The real thing, small: one whole night by the command, with SmolLM2, a few steps, and a real engine at its end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1500)]

CODE = (
    'def price_of_{number}(item: str) -> int:\n    """What `item` costs, in cents."""\n'
    "    return PRICES[item] + {number}\n\n\n"
)
FEW = {
    "BUDGET_MINUTES": "5", "MAX_STEPS": "6", "ROW_TOKENS": "256", "EXAMPLE_TOKENS": "256", "HELD_OUT_TOKENS": "256",
    "PROOF_BYTES": "600", "MIN_FILES": "2", "QUESTIONS": "2", "ANSWER_TOKENS": "8", "ANSWER_MINUTES": "0.2",
    "HOLES": "2", "TEST_COMMAND": "sh -c '! grep -rq NotImplementedError shop'",
}  # fmt: skip


def test_a_night_by_the_command_ends_with_numbers_that_it_measured(
    git_workspace: tuple[Path, Callable[..., str]], cli: Any, tmp_path: Path
) -> None:
    root, commit = git_workspace
    text = {f"shop/prices_{number}.py": CODE.format(number=number) * 4 + "# é 🌍\n" for number in range(12)}
    commit(1, text)
    commit(2, {path: f"{old}LIMIT = 7\n{CODE.format(number=100)}" for path, old in text.items()})
    settings = {f"NIGHTSCHOOL_TRAINER__{name}": value for name, value in FEW.items()}
    settings |= {"NIGHTSCHOOL_SERVER__MODEL": "smollm2-135m", "NIGHTSCHOOL_SERVER__EAGER": "true"}
    settings["NIGHTSCHOOL_SERVER__MODELS_CACHE"] = os.environ.get("NIGHTSCHOOL_TEST_MODELS") or str(tmp_path / "models")
    night = cli("night", "--json", cwd=root, timeout_s=1200, **settings)
    assert night.returncode == 0, night.stderr
    report = json.loads(night.stdout)
    assert report["outcome"] in ("promoted", "refused"), night.stderr
    assert [(row["arm"], row["retrieval"]) for row in report["rows"]] == [
        ("base", False), ("base", True), ("candidate", False), ("candidate", True),
    ]  # fmt: skip
    bits = [row["newer_code"] for row in report["rows"]]
    assert all(0 < found < 5 for found in bits)
    assert bits[2] != bits[0], "the candidate is another model than the base"
    assert all(row["holes"][1] == 2 and row["answers"]["answers"] > 0 for row in report["rows"])
    engine = next(line for line in report["verdict"] if line["rule"] == "the engine loads it")
    assert engine["passed"], engine
    assert engine["measured"].startswith("it does: first token ")
    assert (root / ".nightschool" / "adapters" / report["version"] / "report.html").is_file()
    again = cli("night", "--json", cwd=root, **settings)
    assert json.loads(again.stdout)["outcome"] == "skipped", again.stderr
