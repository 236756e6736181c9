"""Folders of weights that we make from others: there whole or not at all, with the base model's own tokenizer."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def made_whole(out: Path, done: str, origin: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when the block ends and is deleted when it fails.

    The file `done` is written last and names `origin`: an `out` without it is not whole, and is replaced.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".making-{out.name}-", dir=out.parent))
    try:
        yield staging
        (staging / done).write_text(json.dumps({"from": str(origin)}) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        staging.chmod(0o755)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def copy_tokenizer(model: Path, to: Path) -> None:
    """What is beside the weights of `model` and not in `to`, byte for byte: peft and transformers would rewrite it."""
    for file in model.iterdir():
        is_wanted = file.is_file() and file.suffix in {".json", ".jinja", ".txt", ".model"}
        if is_wanted and not (to / file.name).exists():
            shutil.copyfile(file, to / file.name)
