"""Which names an answer gives, and which of them a snapshot has."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from trainer.names import Existing, Name, names_of
from trainer.sources.snapshot import Snapshot, SnapshotFile

SNAPSHOT = Snapshot(
    "shop", "c0ffee", datetime(2026, 11, 23, tzinfo=UTC),
    (
        SnapshotFile("shop/prices.py", "import os.path\nfrom decimal import Decimal\n\ndef total_price(): ...\n", 0.0),
        SnapshotFile("README.md", "Run `shop --dry-run` first.\n", 0.0),
    ),
)  # fmt: skip
EXISTING = Existing(SNAPSHOT)


def found(answer: str) -> set[tuple[str, str, bool]]:
    return {(name.kind, name.text, EXISTING.has(name)) for name in names_of(answer, EXISTING.language)}


@pytest.mark.parametrize(
    ("answer", "there", "not_there"),
    [
        ("", set(), set()),
        ("It is a price. é 🌍", set(), set()),
        ("`total_price` adds them.", {("function", "total_price")}, set()),
        ("Call shop.total_price(x) or sum_up(x).", {("function", "total_price")}, {("function", "sum_up")}),
        ("See `shop/prices.py` and shop/taxes.py.", {("path", "shop/prices.py")}, {("path", "shop/taxes.py")}),
        ("In ./shop/prices.py or taxes.py", {("path", "shop/prices.py")}, {("path", "taxes.py")}),
        ("Give --dry-run, or --no-op.", {("option", "--dry-run")}, {("option", "--no-op")}),
    ],
)
def test_names_in_prose(answer: str, there: set[tuple[str, str]], not_there: set[tuple[str, str]]) -> None:
    assert found(answer) == {(*name, True) for name in there} | {(*name, False) for name in not_there}


def test_names_in_code_are_read_by_the_grammar() -> None:
    answer = (
        "Like this:\n```python\nfrom decimal import Decimal, Fraction\nimport numpy as np\nimport os.path\r\n"
        "def mine():\n    return total_price(np.array([]))  # not_called(x)\n```\nDone."
    )
    assert found(answer) == {
        ("import", "decimal", True), ("import", "Decimal", True), ("import", "Fraction", False),
        ("import", "numpy", False), ("import", "os.path", True), ("function", "total_price", True),
        ("function", "array", False),
    }  # fmt: skip


def test_code_in_other_languages() -> None:
    assert Name("import", "./prices") in names_of('```ts\nimport { total } from "./prices";\n```', "")
    assert Name("function", "Println") in names_of("```go\nfmt.Println(1)\n```", "")
    assert Name("function", "frob") in names_of("```nolanguage\nfrob(1)\n```", "")


def test_an_unfinished_block_is_code_too() -> None:
    assert Name("function", "total_price") in names_of("```python\nx = total_price(", "")
