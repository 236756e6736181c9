"""The real thing, small: Unsloth's CPU backend on SmolLM2, a few steps, in a process of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.workspace import Workspace
from server.adapter import read_current
from server.base_model import resolve_base_model
from server.merge import merge
from trainer.job import Step, TrainingEvent
from trainer.night import Workshop, collect, run_training
from trainer.settings import TrainerSettings

pytestmark = pytest.mark.engine

CODE = 'def price_of(item: str) -> int:\n    """What `item` costs, in cents."""\n    return PRICES[item]\n\n\n'


@pytest.fixture(scope="session")
def models_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the embedded model is unpacked; NIGHTSCHOOL_TEST_MODELS keeps it from one test run to the next."""
    return Path(os.environ.get("NIGHTSCHOOL_TEST_MODELS") or tmp_path_factory.mktemp("models"))


def test_a_few_steps_on_the_embedded_model_give_an_adapter_that_merges(
    git_workspace: tuple[Path, Callable[..., str]], models_cache: Path, tmp_path: Path
) -> None:
    root, commit = git_workspace
    sha = commit(1, {f"shop/prices_{number}.py": CODE * 6 + f"LIMIT = {number}  # é 🌍\n" for number in range(12)})
    workspace = Workspace(root)
    base = resolve_base_model("smollm2-135m", models_cache, lambda _: None)
    settings = TrainerSettings(
        max_steps=4, row_tokens=256, example_tokens=256, held_out_tokens=256, rank=8, alpha=8, backend="unsloth"
    )
    events: list[TrainingEvent] = []
    corpus = collect(Workshop(workspace, settings, base, events.append))
    report = run_training(Workshop(workspace, settings, base, events.append), corpus=corpus.folder)
    made = report.adapter.manifest
    assert (made.steps, made.commit, made.hyper_parameters["backend"]) == (4, sha, "unsloth")
    assert len([event for event in events if isinstance(event, Step)]) == 4
    assert made.losses.held_out_after is not None
    assert made.losses.held_out_before is not None
    assert made.losses.held_out_after < made.losses.held_out_before
    current = read_current(workspace.adapters)
    assert current is not None
    assert current.version == report.adapter.version
    plain: list[TrainingEvent] = []
    by_trl = Workshop(workspace, settings.model_copy(update={"backend": "trl"}), base, plain.append)
    run_training(by_trl, corpus=corpus.folder, promote_it=False)
    # LoRA starts from other random numbers, with an output of zero: the first loss is the same, the others nearly.
    both = [[event.loss for event in seen if isinstance(event, Step)] for seen in (events, plain)]
    assert both[0][0] == pytest.approx(both[1][0], abs=2e-3)
    assert both[0] == pytest.approx(both[1], abs=0.05)
    status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    assert status.stdout == ""
    merged = merge(base.folder, report.adapter.folder, tmp_path / "merged")
    assert {"config.json", "model.safetensors", "tokenizer.json", "merged.json"} <= {p.name for p in merged.iterdir()}
