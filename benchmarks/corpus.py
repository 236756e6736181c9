"""How fast a corpus is made, and in how much memory: `./run bench corpus --repository PATH`.

The snapshot, raw text and conversations of a real repository, each stage in a process of its own. Processor seconds
(all of the process and of the git it starts, imports too) tell more than seconds on a machine that others use.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

STAGES = (
    "snapshot",
    "formatting",
    "formatting with conversations",
    "documents",
    "the whole of collect",
    "the leak check",
)


def measure(stage: str, repository: Path) -> dict[str, float]:
    """One stage, in this process: seconds of it, and facts of what it made."""
    from indexer.settings import IndexerSettings
    from indexer.workspace import Workspace
    from server.base_model import resolve_base_model
    from trainer.corpus import CorpusPlan, build_corpus, check_corpus
    from trainer.corpus_settings import CorpusSettings
    from trainer.settings import TrainerSettings
    from trainer.sources.documents import collect_documents
    from trainer.sources.snapshot import take_snapshot
    from trainer.stages import Workshop, collect, newest_corpus
    from trainer.synthesis import Amounts

    place = Workspace(repository)
    base = resolve_base_model("smollm2-135m", Path("~/.cache/nightschool/models").expanduser(), lambda _: None)
    settings = TrainerSettings(preset="default")
    plan = CorpusPlan(8192, 0.1, 1, 20_000, 0.1, CorpusSettings().amounts())
    if stage in ("the whole of collect", "the leak check"):
        began = time.monotonic()
        if stage == "the leak check":
            leaks = check_corpus(newest_corpus(place))
            return {"seconds": time.monotonic() - began, "leaks": len(leaks)}
        report = collect(Workshop(place, settings, base, lambda _: None))
        return {"seconds": time.monotonic() - began, "tokens": report.raw_tokens, "talk": report.chat_tokens}
    began = time.monotonic()
    snapshot = take_snapshot(place, IndexerSettings())
    if stage == "snapshot":
        return {"seconds": time.monotonic() - began, "files": len(snapshot.files)}
    began = time.monotonic()
    if stage == "documents":
        found = collect_documents(place, settings, snapshot, lambda _: None)
        return {"seconds": time.monotonic() - began, "documents": len(found.documents)}
    with TemporaryDirectory() as folder:
        if stage == "formatting":
            plan = replace(plan, amounts=Amounts())
        ledger = build_corpus(snapshot, base.folder / "tokenizer.json", base.sha256, plan, Path(folder) / "corpus")
        raw = sum(entry.tokens for entry in ledger.entries if entry.is_raw)
        talk = sum(entry.tokens for entry in ledger.entries) - raw
        return {"seconds": time.monotonic() - began, "tokens": raw, "talk": talk}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, required=True, help="a git checkout")
    parser.add_argument("--stage", choices=STAGES, help="only this one, in this process")
    wanted = parser.parse_args()
    if wanted.stage:
        found = measure(wanted.stage, wanted.repository.resolve())
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        cpu = sum(used.ru_utime + used.ru_stime for used in (own, children))
        print(json.dumps({**found, "cpu_s": cpu, "peak_mb": own.ru_maxrss / 1e3, "load": os.getloadavg()[0]}))
        return
    print("| stage | seconds | processor seconds | peak MB | made | load |\n|---|---:|---:|---:|---|---:|")
    for stage in STAGES:
        command = [sys.executable, __file__, "--repository", str(wanted.repository), "--stage", stage]
        done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        known = ("seconds", "cpu_s", "peak_mb", "load")
        made = ", ".join(f"{value:,.0f} {name}" for name, value in done.items() if name not in known)
        figures = f"{done['seconds']:.1f} | {done['cpu_s']:.1f} | {done['peak_mb']:.0f}"
        print(f"| {stage} | {figures} | {made} | {done['load']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
