"""Several training processes that learn one adapter: which of them we are, and what they must agree on.

`accelerate launch` tells each process in its environment; alone, all of this does nothing.
"""

from __future__ import annotations

import os


def rank() -> int:
    """0 for the one that tells, saves and finishes."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Meet the others, and take our own GPU, before anything is loaded."""
    if world_size() == 1:
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group(backend="nccl" if torch.cuda.is_available() else "gloo")


def same_for_all(value: float) -> float:
    """The `value` of rank 0: clocks differ, and processes that decide differently would wait for each other forever."""
    if world_size() == 1:
        return value
    import torch

    shared = torch.tensor([value], dtype=torch.float64, device="cuda" if torch.cuda.is_available() else "cpu")
    torch.distributed.broadcast(shared, src=0)
    return float(shared.item())
