"""0 stale passages: random operations on a tree, judged by a full rebuild and by the bytes on disk.

The same machine runs as long as you like: `python benchmarks/freshness.py --operations 1000000`.
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
    machine = module.run(tmp_path, operations=250, seed=5, judge_every=125)
    assert (machine.stale, sum(machine.done.values())) == ([], 250)
    assert machine.passages > 500
