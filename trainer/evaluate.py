"""Measuring the arms of a proof, in a process of its own: `python -m trainer.evaluate JOB.json`.

Door to transformers and peft for measuring. One model in memory: the base, with the candidate and the adapter in
service as adapters on it that are switched on and off.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel as Model
from pydantic import ConfigDict

from indexer.child import end_with_parent, event_stream
from indexer.workspace import write_atomically
from trainer.comparison import Score
from trainer.job import Failed, Finished, Stage, TrainingError, TrainingEvent, event_to_line
from trainer.proof import Item
from trainer.writing import Answer, Prompted, write_answers

BASE_ARM = "base"
_CONTEXT_TOKENS, _PASSAGE_TOKENS, _TEXT_TOKENS = 256, 384, 320
_HOLES_AT_ONCE = 8


class EvaluationJob(Model):
    """What is measured: `arms` maps a name to an adapter's folder ("" is the base model alone, which comes first);
    `batches` are prompts in the order of asking, of which an arm answers what fits into its share of `answer_s`;
    `holes` are prompts that every arm goes on from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path
    base_folder: Path
    arms: dict[str, str]
    items: tuple[dict[str, str], ...]
    batches: tuple[tuple[Prompted, ...], ...] = ()
    holes: tuple[Prompted, ...] = ()
    answer_s: float = 600
    end_of_turn: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an arm scored: one score an item, by kind and with or without passages, and its answers in the order of
    asking, as many batches as there was time for. `tokens_per_s` is how fast it wrote them; `fills` what it wrote into
    the holes."""

    without: dict[str, list[Score]]
    with_passages: dict[str, list[Score]]
    answers: list[Answer]
    batches: int
    tokens_per_s: float
    fills: list[Answer] = field(default_factory=list)


def read_measured(run: Path) -> dict[str, Measured]:
    """The result of an evaluation by arm. Raises `TrainingError` when it is not there."""
    try:
        values = json.loads((run / "scores.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"the evaluation left no result in {run}: {error}") from error
    return {arm: _measured(found) for arm, found in values.items()}


def _measured(values: dict[str, Any]) -> Measured:
    def scores(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[Score]]:
        return {kind: [Score(**score) for score in rows] for kind, rows in found.items()}

    answers = [Answer(**answer) for answer in values["answers"]]
    without, with_passages = scores(values["without"]), scores(values["with_passages"])
    fills = [Answer(**fill) for fill in values["fills"]]
    return Measured(without, with_passages, answers, values["batches"], values["tokens_per_s"], fills)


def run(job: EvaluationJob, tell: Callable[[TrainingEvent], None]) -> None:
    """Measure every arm and write `scores.json`; an arm that an earlier process finished is not measured again."""
    tell(Stage("loading the models"))
    model, tokenizer = _load(job)
    items = [Item(**values) for values in job.items]  # type: ignore[arg-type]
    found: dict[str, Measured] = {}
    # The first arm has its share of the time; the others answer what it has answered.
    most = len(job.batches)
    for arm, folder in job.arms.items():
        kept = job.run / f"scores-{arm}-{_digest(job, folder)}.json"
        if not kept.is_file():
            tell(Stage(f"measuring {arm}"))
            share_s = job.answer_s / len(job.arms) if not found else math.inf
            with _switched_to(model, arm if folder else None):
                measured = _measure(model, tokenizer, items, job, Room(most, share_s))
            write_atomically(kept, json.dumps(asdict(measured)))
        found[arm] = _measured(json.loads(kept.read_text("utf-8")))
        most = found[arm].batches
    write_atomically(job.run / "scores.json", json.dumps({arm: asdict(measured) for arm, measured in found.items()}))


def _digest(job: EvaluationJob, folder: str) -> str:
    batches = [[one.model_dump() for one in batch] for batch in (*job.batches, job.holes)]
    what = [str(job.base_folder), folder, job.items, batches]
    return sha256(json.dumps(what).encode()).hexdigest()[:12]


def _load(job: EvaluationJob) -> tuple[Any, Any]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainer.lora import compute_dtype

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(job.base_folder, dtype=compute_dtype(), local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(job.base_folder, local_files_only=True)
        for arm, folder in job.arms.items():
            if not folder:
                continue
            if isinstance(model, PeftModel):
                model.load_adapter(folder, adapter_name=arm)
            else:
                model = PeftModel.from_pretrained(model, folder, adapter_name=arm)
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainingError(f"the models cannot be loaded: {str(error).splitlines()[0]}") from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


@contextmanager
def _switched_to(model: Any, adapter: str | None) -> Iterator[None]:
    if adapter is not None:
        model.set_adapter(adapter)
        yield
    elif hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
    else:
        yield


@dataclass(frozen=True, slots=True)
class Room:
    """How much an arm answers: so many batches, or what it can in so many seconds, one batch at least."""

    batches: int
    seconds: float


def _measure(model: Any, tokenizer: Any, items: Sequence[Item], job: EvaluationJob, room: Room) -> Measured:
    without: dict[str, list[Score]] = {}
    with_passages: dict[str, list[Score]] = {}
    for item in items:
        alone = _score(model, tokenizer, item, "")
        without.setdefault(item.kind, []).append(alone)
        found = _score(model, tokenizer, item, item.passages) if item.passages else alone
        with_passages.setdefault(item.kind, []).append(found)
    answers: list[Answer] = []
    began, done = time.monotonic(), 0
    for batch in job.batches[: room.batches]:
        if done and time.monotonic() - began > room.seconds:
            break
        answers += write_answers(model, tokenizer, batch, job.end_of_turn)
        done += 1
    seconds = time.monotonic() - began
    written = sum(len(tokenizer(answer.text, add_special_tokens=False)["input_ids"]) for answer in answers)
    fills = [
        fill
        for start in range(0, len(job.holes), _HOLES_AT_ONCE)
        for fill in write_answers(model, tokenizer, job.holes[start : start + _HOLES_AT_ONCE], job.end_of_turn)
    ]
    return Measured(without, with_passages, answers, done, round(written / seconds, 1) if answers else 0.0, fills)


def _score(model: Any, tokenizer: Any, item: Item, passages: str) -> Score:
    import torch

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    before = (ids(passages)[:_PASSAGE_TOKENS] if passages else []) + ids(item.context)[-_CONTEXT_TOKENS:]
    text = ids(item.text)[:_TEXT_TOKENS]
    device = next(model.parameters()).device
    with torch.no_grad():
        # The last token before the text predicts its first.
        logits = model(
            torch.tensor([before + text], device=device), use_cache=False, logits_to_keep=len(text) + 1
        ).logits
    loss = torch.nn.functional.cross_entropy(logits[0, :-1].float(), torch.tensor(text, device=device), reduction="sum")
    return Score(item.cluster, loss.item(), len(tokenizer.decode(text).encode()))


def main(arguments: list[str]) -> int:
    """The edge of the process; stdout is the events' alone."""
    events = event_stream()
    end_with_parent()

    def tell(event: TrainingEvent) -> None:
        events.write(event_to_line(event))

    job = EvaluationJob.model_validate_json(Path(arguments[0]).read_text("utf-8"))
    try:
        run(job, tell)
    except TrainingError as error:
        tell(Failed(str(error)))
        return 1
    except Exception as error:  # the edge: the one who waits must read a line about it
        tell(
            Failed(f"the evaluation failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        )
        return 1
    tell(Finished("scores.json"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
