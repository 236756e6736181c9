"""Measuring the arms of a proof, in a process of its own: `python -m trainer.evaluate JOB.json`.

Door to transformers and peft for measuring. One model in memory: the base, with the candidate and the adapter in
service as adapters on it that are switched on and off.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel as Model
from pydantic import ConfigDict

from indexer.workspace import write_atomically
from trainer.child import end_with_parent, event_stream
from trainer.comparison import Score
from trainer.job import Failed, Finished, Stage, TrainingError, TrainingEvent, event_to_line
from trainer.proof import Item

BASE_ARM = "base"
_CONTEXT_TOKENS, _PASSAGE_TOKENS, _TEXT_TOKENS = 256, 384, 320


class EvaluationJob(Model):
    """What is measured: `arms` maps a name to an adapter's folder ("" is the base model alone); a question is the
    messages of a prompt, as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path
    base_folder: Path
    arms: dict[str, str]
    items: tuple[dict[str, str], ...]
    questions: tuple[str, ...] = ()
    answer_tokens: int = 96
    end_of_turn: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer written by an arm; `stopped` when it ended by itself before the limit."""

    question: str
    text: str
    stopped: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """What an arm scored: one score an item, by kind and with or without passages, and its answers."""

    without: dict[str, list[Score]]
    with_passages: dict[str, list[Score]]
    answers: list[Answer]


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
    return Measured(scores(values["without"]), scores(values["with_passages"]), answers)


def run(job: EvaluationJob, tell: Callable[[TrainingEvent], None]) -> None:
    """Measure every arm and write `scores.json`; an arm that an earlier process finished is not measured again."""
    tell(Stage("loading the models"))
    model, tokenizer = _load(job)
    items = [Item(**values) for values in job.items]  # type: ignore[arg-type]
    found: dict[str, Measured] = {}
    for arm, folder in job.arms.items():
        kept = job.run / f"scores-{arm}-{_digest(job, folder)}.json"
        if not kept.is_file():
            tell(Stage(f"measuring {arm}"))
            with _switched_to(model, arm if folder else None):
                measured = _measure(model, tokenizer, items, job)
            write_atomically(kept, json.dumps(asdict(measured)))
        found[arm] = _measured(json.loads(kept.read_text("utf-8")))
    write_atomically(job.run / "scores.json", json.dumps({arm: asdict(measured) for arm, measured in found.items()}))


def _digest(job: EvaluationJob, folder: str) -> str:
    what = [str(job.base_folder), folder, job.items, job.questions, job.answer_tokens]
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


def _measure(model: Any, tokenizer: Any, items: Sequence[Item], job: EvaluationJob) -> Measured:
    without: dict[str, list[Score]] = {}
    with_passages: dict[str, list[Score]] = {}
    for item in items:
        alone = _score(model, tokenizer, item, "")
        without.setdefault(item.kind, []).append(alone)
        found = _score(model, tokenizer, item, item.passages) if item.passages else alone
        with_passages.setdefault(item.kind, []).append(found)
    answers = [_answer(model, tokenizer, question, job) for question in job.questions]
    return Measured(without, with_passages, answers)


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


def _answer(model: Any, tokenizer: Any, prompt: str, job: EvaluationJob) -> Answer:
    import torch

    end = tokenizer.convert_tokens_to_ids(job.end_of_turn)
    given = torch.tensor(
        [tokenizer(prompt, add_special_tokens=False)["input_ids"]], device=next(model.parameters()).device
    )
    with torch.no_grad():
        written = model.generate(
            input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=job.answer_tokens, do_sample=False,
            eos_token_id=end, pad_token_id=end, use_cache=True,
        )[0, given.shape[1] :]  # fmt: skip
    return Answer(prompt, tokenizer.decode(written, skip_special_tokens=True), bool((written == end).any()))


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
