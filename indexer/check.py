"""`python -m indexer.check FOLDER [COLLECTION]`: is this Chroma sound? A child process: damage can be a SIGSEGV."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_TIMEOUT_S = 120


def store_fault(folder: Path, collection: str = "") -> str:
    """What is wrong with the Chroma in `folder`; "" when it opens, counts and finds a known id by its embedding.

    Without `collection` each one that it has is looked at.
    """
    command = [sys.executable, "-W", "ignore", "-m", "indexer.check", str(folder), *filter(None, [collection])]
    root = Path(__file__).resolve().parent.parent
    try:
        run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {_TIMEOUT_S} s"
    if run.returncode == 0:
        return ""
    return f"exit {run.returncode}: {run.stderr.strip().splitlines()[-1][:300] if run.stderr.strip() else 'no message'}"


def check_stores(folder: Path, collections: Sequence[str]) -> None:
    """Raises, or dies, when a collection (none given: any) cannot be counted, read and searched."""
    from indexer.store import collection_names, open_client

    for collection in collections or collection_names(open_client(folder, None)):
        check_store(folder, collection)


def check_store(folder: Path, collection: str) -> None:
    """Raises, or dies, when the collection cannot be counted, read and searched."""
    import numpy as np

    from indexer.store import Store, StoreDamaged, open_client

    store = Store(open_client(folder, None), collection)
    for id, embedding in store.sample(20):
        found = [near for near, _ in store.search(np.asarray(embedding, np.float32), 50)]
        if not found:
            raise StoreDamaged(f"{id} is there, but a search finds nothing")


if __name__ == "__main__":
    check_stores(Path(sys.argv[1]), sys.argv[2:])
