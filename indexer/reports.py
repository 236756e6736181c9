"""What an update of an index did, and how fresh the index is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What an update found and did. `skipped`: reason -> files; `masked_secrets`: kind -> how many in all.

    `store_fault`: why the embeddings are not in a Chroma server yet, though all else is done; "" when they are.
    `failed`: repository of a fleet -> why it was not read.
    """

    files: int
    chunks: int
    embedded: int
    updated_files: int
    deleted_files: int
    skipped: dict[str, int]
    masked_secrets: dict[str, int]
    seconds: float
    store_fault: str = ""
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IndexState:
    """How fresh the index is. `commit`: None without git; `seconds_behind`: age of the oldest change not in it yet;
    `missing`: repositories of a fleet that cannot be asked, with the reason, one line each."""

    commit: str | None
    dirty_files: int
    files: int
    chunks: int
    waiting_files: int
    waiting_chunks: int
    seconds_behind: float
    missing: tuple[str, ...] = ()
