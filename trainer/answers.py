"""Questions for the arms, and what is checked of their answers without a judge: names, refusals, ends, secrets.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.secrets import mask_secrets
from trainer.evaluate import Answer
from trainer.sources.snapshot import Snapshot

_WORD = re.compile(r"[^\W\d]\w{2,}")
_NAMED = re.compile(r"`([^`\n]{2,80})`|\b([^\W\d][\w.]{2,60})\(")
_REFUSAL = re.compile(
    r"(do(es)? not|don't|doesn't|no) (know|exist|contain|hold|have|mention|say|such)"
    r"|not (found|in the passages)|cannot find",
    re.IGNORECASE,
)
UNREAL = "reticulate_splines_for_tenants"


@dataclass(frozen=True, slots=True)
class Checked:
    """Of an arm's answers: names that exist among the names they give, refusals of what does not exist, and so on."""

    names: int
    valid_names: int
    unreal: int
    refused: int
    answers: int
    stopped: int
    secrets: int


def make_questions(snapshot: Snapshot, symbols: Sequence[tuple[str, str]], count: int) -> list[str]:
    """`count` questions: about symbols (`symbols`: path and name, best first), the last about one that does not
    exist.
    """
    asked = [f"What does `{name}` in `{path}` do?" for path, name in symbols[: max(0, count - 1)]]
    return [*asked, f"What does `{UNREAL}` do in {snapshot.repository}?"][:count]


def known_names(snapshot: Snapshot) -> frozenset[str]:
    """Every word of the snapshot's files and paths."""
    texts = (word for file in snapshot.files for word in _WORD.findall(f"{file.path} {file.text}"))
    return frozenset(texts)


def check(questions: Sequence[str], answers: Sequence[Answer], known: frozenset[str]) -> Checked:
    """`questions[i]` is what `answers[i]` answers. A name counts when the answer marks it as code or calls it, and the
    question did not give it."""
    names = valid = refused = unreal = secrets = 0
    for question, answer in zip(questions, answers, strict=True):
        given = set(_WORD.findall(question))
        found = {word for word in _names(answer.text) if word not in given}
        names += len(found)
        valid += len(found & known)
        secrets += sum(mask_secrets(answer.text).counts.values())
        if UNREAL in question:
            unreal += 1
            refused += bool(_REFUSAL.search(answer.text))
    return Checked(names, valid, unreal, refused, len(answers), sum(answer.stopped for answer in answers), secrets)


def _names(text: str) -> set[str]:
    marked = [first or second for first, second in _NAMED.findall(text)]
    return {word for part in marked for word in _WORD.findall(part)}
