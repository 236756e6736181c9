"""What one change of a setting does to newer code: runs of the same number of tokens beside the preset's, in pairs.

    python -m benchmarks.training_choices REPOSITORY --tokens 12000 --seeds 1 2 --try raw_tokens=256 --try epochs=2

REPOSITORY is a clone of its own: what is made goes into its `.nightschool`. All runs learn `--tokens` tokens, so a busy
machine makes them slower and not worse. Ended early, it goes on: a run that is there is not made again. Each line of
the table is against the base model; `to the preset` is the paired difference (95%), retrieval on, of the same seed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from indexer.workspace import Workspace, find_workspace
from server.base_model import BaseModel, resolve_base_model
from trainer.comparison import Score, bits_per_byte, change
from trainer.evaluate import BASE_ARM, EvaluationJob, Measured, read_measured
from trainer.job import Step, TrainingEvent
from trainer.process import run_job
from trainer.promote import show
from trainer.proof import elsewhere_items, next_day_items
from trainer.proving import Proof, make_proof
from trainer.settings import TrainerSettings
from trainer.stages import Workshop, collect, make_job

ELSEWHERE_BYTES = 6_000


@dataclass(frozen=True, slots=True)
class Bench:
    """One repository, the settings of the preset, and what every run is proved on."""

    place: Workspace
    settings: TrainerSettings
    base: BaseModel
    proof: Proof
    tokens: int

    def trained(self, changed: dict[str, float], seed: int) -> Path:
        """The adapter of a run in which `changed` settings differ from the preset; made where it is not there yet."""
        settings = self.settings.model_copy(update={**changed, "seed": seed})
        workshop = Workshop(self.place, settings, self.base, tell)
        what = re.sub(r"[^a-z0-9.]", "-", name_of(changed))
        version = f"{self.proof.snapshot.commit[:7]}-{what}-{self.tokens}-{seed}"
        folder = self.place.adapters / version
        if folder.exists():
            return folder
        job = make_job(workshop, self.corpus(workshop), 24 * 60, version)
        job.run.mkdir(parents=True, exist_ok=True)
        (job.run / "plan.json").write_text(json.dumps({"max_tokens": self.tokens}))
        run_job(job, tell)
        return folder

    def corpus(self, workshop: Workshop) -> Path:
        """The corpus of these settings, made once: pieces of another size are another corpus."""
        settings = workshop.settings
        kept = self.place.corpus / f"choices-{settings.example_tokens}-{settings.raw_tokens}-{self.proof.snapshot.name}"
        if not kept.exists():
            shutil.copytree(collect(workshop, snapshot=self.proof.snapshot).folder, kept)
        return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--tokens", type=int, default=12_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--try", dest="tries", action="append", default=[], metavar="SETTING=VALUE[,...]")
    parser.add_argument("--proof-bytes", type=int, default=10_000)
    parser.add_argument("--cache", default="~/.cache/nightschool/models")
    options = parser.parse_args()
    place = find_workspace(options.repository)
    place.make_state_folder()
    settings = TrainerSettings.read(place).model_copy(update={"proof_bytes": options.proof_bytes, "min_files": 8})
    proof = make_proof(place, settings, tell)
    if not proof.is_next_day:
        parser.error(f"{place.root} has too little history to prove anything on")
    base = resolve_base_model("smollm2-135m", Path(options.cache), lambda _: None)
    bench = Bench(place, settings, base, proof, options.tokens)
    wanted = [{}, *map(read_choice, options.tries)]
    arms = {f"{name_of(one)} @{seed}": bench.trained(one, seed) for seed in options.seeds for one in wanted}
    print_table(measure(bench, arms))


def measure(bench: Bench, arms: dict[str, Path]) -> dict[str, Measured]:
    """Every arm on the same newer lines, and on other people's code."""
    proof = bench.proof
    items = next_day_items(proof.added, proof.texts, proof.snapshot, bench.settings.proof_bytes)
    items += elsewhere_items(ELSEWHERE_BYTES)
    run = bench.place.state / "runs" / f"choices-{proof.snapshot.name}"
    folders = {BASE_ARM: "", **{name: str(folder) for name, folder in arms.items()}}
    # peft keeps an adapter under its name, in which it takes no dot.
    named = {name.replace(".", "_"): folder for name, folder in folders.items()}
    described = tuple(asdict(item) for item in items)
    job = EvaluationJob(
        run=run, base_folder=bench.base.folder, arms=named, items=described, end_of_turn=bench.base.end_of_turn
    )
    run_job(job, tell, "trainer.evaluate")
    return read_measured(run)


def print_table(found: dict[str, Measured]) -> None:
    columns = ("run @seed", "bpb, newer code", "change", "to the preset", "without retrieval", "elsewhere")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    base = found[BASE_ARM]
    for name, one in found.items():
        preset = found.get(f"preset @{name.rpartition('@')[2]}")
        beside = show(change(newer(one), newer(preset))) if preset is not None and preset is not one else ""
        without = change(one.without["next-day"], base.without["next-day"])
        elsewhere = change(one.without["elsewhere"], base.without["elsewhere"])
        cells = [f"{bits_per_byte(newer(one)):.4f}", show(change(newer(one), newer(base))), beside]
        print(f"| {name} | {' | '.join(cells)} | {without.share:+.1%} | {elsewhere.share:+.1%} |")


def newer(measured: Measured) -> Sequence[Score]:
    return measured.with_passages["next-day"]


def read_choice(text: str) -> dict[str, float]:
    pairs = [part.partition("=") for part in text.split(",")]
    return {name: float(value) if "." in value or "e" in value else int(value) for name, _, value in pairs}


def name_of(changed: dict[str, float]) -> str:
    return ",".join(f"{name}={value}" for name, value in changed.items()) or "preset"


def tell(event: TrainingEvent) -> None:
    """Progress, on stderr: stdout is the table."""
    if isinstance(event, Step) and event.step % 20 and event.step != event.steps:
        return
    print(f"{time.strftime('%H:%M:%S')} {event}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
