"""A page -> questions and answers that the real engine of a running backend wrote, in the corpus."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.engine
ASKED = {"NIGHTSCHOOL_CORPUS__PAGE_ANSWERS": "1", "NIGHTSCHOOL_CORPUS__GENERAL": "2"}


def test_the_running_engine_writes_what_only_a_model_can_and_is_asked_once(repository, backend, cli):
    done = cli("collect", "--json", cwd=repository, timeout_s=600, **ASKED)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    # A small model writes little that is true of a page: it is checked, and every loss is counted. What it answers of
    # general questions is kept as it is.
    assert made["mix"]["general"] > 20
    cache = repository / ".nightschool" / "generated"
    written = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    pages = len(written) - 2
    assert pages >= 1
    judged = sum(count for reason, count in made["left_out"].items() if reason.startswith("generated: "))
    ledger = json.loads(cli("corpus", "show", "--json", cwd=repository).stdout)
    kept = [entry for entry in ledger["entries"] if entry["kind"] == "page-answer"]
    assert judged + len(kept) >= 1, made["left_out"]
    again = json.loads(cli("collect", "--json", cwd=repository, timeout_s=120, **ASKED).stdout)
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == written
    assert again["mix"] == made["mix"]
    assert cli("collect", "--check", cwd=repository).returncode == 0
