"""Tokens per second of training: a bare loop over the model, our run on TRL, on Unsloth, and on padded rows.

    python -m benchmarks.training_speed [--model smollm2-135m] [--steps 12] [--row-tokens 512] [--rank 64]

Trains a model on this repository's own files; each variant in a process of its own, over the same pieces of text, twice
in turn, because the machine is shared. "of the limit" is beside the machine's own rate at multiplying matrices in the
type that the model computes in (bfloat16 on a GPU): four operations for each parameter and token, since the frozen
weights need no gradient; attention and what is computed again are not counted. Memory is the GPU's where there is one.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trainer.encoding import Encoded, Row, encode_raw, keep_apart, pack
from trainer.presets import Preset, find_preset

VARIANTS = ("bare", "trl", "unsloth", "unsloth-padded")
ROWS_PER_STEP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--row-tokens", type=int, default=512)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--cache", default="~/.cache/nightschool/models")
    parser.add_argument("--variant", choices=VARIANTS)
    options = parser.parse_args()
    if options.variant:
        preset = find_preset("cpu", row_tokens=options.row_tokens, rows_per_step=ROWS_PER_STEP, rank=options.rank)
        measure(options.model, options.variant, options.steps, preset, Path(options.cache))
        return
    columns = ("variant", "rank", "tokens/s", "of the positions computed, padding", "peak GB", "of the limit")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)
    for variant in VARIANTS * 2:
        command = [sys.executable, "-m", "benchmarks.training_speed", *sys.argv[1:], "--variant", variant]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def measure(name: str, variant: str, steps: int, preset: Preset, cache: Path) -> None:
    """Print one line of the table."""
    from server.base_model import resolve_base_model
    from trainer.lora import load_with_lora

    base = resolve_base_model(name, cache, lambda _: None)
    stdout = sys.stdout
    sys.stdout = sys.stderr  # Unsloth greets on stdout
    model, tokenizer = load_with_lora(base, preset, "unsloth" if variant.startswith("unsloth") else "trl", seed=1)
    examples = _examples(base, tokenizer, preset.row_tokens)
    layout = keep_apart if variant == "unsloth-padded" else pack
    rows = layout(examples, preset.row_tokens)[: steps * ROWS_PER_STEP]
    run = _bare_loop if variant == "bare" else _our_run
    seconds = run(model, tokenizer, rows, preset)
    sys.stdout = stdout
    tokens = sum(map(len, rows))
    computed = sum(max(map(len, batch)) * len(batch) for batch in _batches(rows))
    held = peak_memory_bytes() / 1e9
    share = 4 * model.num_parameters() * tokens / seconds / multiplication_rate(model)
    cells = (f"{tokens / seconds:.1f}", f"{1 - tokens / computed:.0%}", f"{held:.1f}", f"{share:.0%}")
    print(f"| {variant} | {preset.rank} | {' | '.join(cells)} |", flush=True)


def peak_memory_bytes() -> float:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def multiplication_rate(model: Any) -> float:
    """Operations a second of multiplying large square matrices where, and in the type in which, `model` computes."""
    import torch

    on_gpu = torch.cuda.is_available()
    size = 8192 if on_gpu else 2048
    matrix = torch.rand(size, size, device=model.device, dtype=torch.bfloat16 if on_gpu else model.dtype)
    began, times = 0.0, 8
    for number in range(times + 2):
        if number == 2:  # after two to warm up
            began = _now()
        matrix @ matrix
    return times * 2.0 * size**3 / (_now() - began)


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def _examples(base: Any, tokenizer: Any, row_tokens: int) -> list[Encoded]:
    from tokenizers import Tokenizer

    from trainer.corpus import count_line_tokens
    from trainer.cutting import cut

    counter = Tokenizer.from_file(str(base.folder / "tokenizer.json"))
    texts = [path.read_text() for path in sorted(Path(__file__).parents[1].glob("*/*.py"))]
    parts = [part.text for text in texts for part in cut(text, count_line_tokens(text, counter), row_tokens - 8)]
    return [encode_raw(part, True, tokenizer, base.end_of_turn) for part in parts]


def _batches(rows: Sequence[Row]) -> list[Sequence[Row]]:
    return [rows[i : i + ROWS_PER_STEP] for i in range(0, len(rows), ROWS_PER_STEP)]


def _bare_loop(model: Any, tokenizer: Any, rows: Sequence[Row], preset: Preset) -> float:
    import torch

    from trainer.lora import as_columns, collate

    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=preset.learning_rate, fused=True)
    began = _now()
    for batch in _batches(rows):
        columns = collate([as_columns(row) for row in batch], tokenizer.pad_token_id)
        on_device = {key: value.to(model.device) for key, value in columns.items()}
        model(**on_device, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, preset.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return _now() - began


def _our_run(model: Any, tokenizer: Any, rows: Sequence[Row], preset: Preset) -> float:
    from trainer.plan import Plan
    from trainer.sft import Course, Limits, train

    plan = Plan(tuple(rows), (1.0,), len(rows), 0, 0, 0)
    with TemporaryDirectory() as folder:
        course = Course(Path(folder), preset, Limits(3600, 0), 1, ROWS_PER_STEP, 3600)
        done = train(model, tokenizer, plan, course, lambda _: None)
    return done.seconds


if __name__ == "__main__":
    main()
