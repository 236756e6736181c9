"""0 stale passages: random operations on a tree, judged by a full rebuild and by the bytes on disk.

The same machine runs as long as you like: `./run bench freshness --operations 1000000`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

FILE = Path(__file__).parents[2] / "benchmarks" / "freshness.py"


def test_no_passage_is_stale_whatever_happens_to_the_tree(tmp_path):
    spec = importlib.util.spec_from_file_location("freshness_machine", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    machine = module.run(tmp_path, operations=2_000, seed=5, judge_every=500)
    assert (machine.stale, sum(machine.done.values())) == ([], 2_000)
    assert machine.passages > 1_000
