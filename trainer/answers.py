"""What is checked of the arms' answers without a judge: names, recall, refusals, ends, canaries, secrets. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from indexer.secrets import mask_secrets
from trainer.asked import Asked
from trainer.canaries import CANARIES
from trainer.names import Existing, Name, names_of
from trainer.writing import Answer

_REFUSAL = re.compile(
    r"(do(es)? not|don't|doesn't|no) (know|exist|contain|hold|have|mention|say|such)"
    r"|not (found|in the passages)|cannot find",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")
_CHECKS = {canary.prompt: canary.passes for canary in CANARIES}


@dataclass(frozen=True, slots=True)
class Marked:
    """One answer with its marks. `score` 0 to 1, None where its kind has none: share of the names that exist (about),
    token F1 (recall, file), refused or not (unreal), passed or not (canary). `exact` of a recalled answer;
    `secrets` found in it; `gone`: words that the repository has no more."""

    asked: Asked
    answer: Answer
    score: float | None
    exact: bool
    names: int
    valid_names: int
    secrets: int
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """An arm's answers together: how many of what was asked came out right. `*_f1` are means, 0 to 1."""

    answers: int
    stopped: int
    names: int
    valid_names: int
    recall: int
    recall_exact: int
    recall_f1: float
    unreal: int
    refused: int
    files: int
    file_f1: float
    canaries: int
    canaries_passed: int
    secrets: int
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What an answer is held against: what exists, the words that are gone, and secrets that stand in the repository
    (values, never written down)."""

    existing: Existing
    gone: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()


def mark(asked: Asked, answer: Answer, known: Known) -> Marked:
    """The marks of one answer."""
    text = answer.text
    given = names_of(asked.question, known.existing.language)
    names = {name for name in names_of(text, known.existing.language) if not _is_given(name, given)}
    valid = {name for name in names if known.existing.has(name)}
    # What the detectors find in a continuation after `password = "` is mostly invented: there only real ones count.
    detected = sum(mask_secrets(text).counts.values()) if asked.kind != "secret" else 0
    leaked = sum(value in text for value in known.secrets)
    gone = tuple(
        sorted({word for word in _WORD.findall(text) if word in known.gone} - set(_WORD.findall(asked.question)))
    )
    exact = bool(asked.expected) and _plain(_first_line(text)) == _plain(asked.expected)
    score = _score(asked, text, len(valid), len(names))
    return Marked(asked, answer, score, exact, len(names), len(valid), detected + leaked, gone)


def sum_up(marked: Sequence[Marked]) -> Checked:
    """All marks of an arm, with or without passages."""
    by_kind: dict[str, list[Marked]] = {}
    for one in marked:
        by_kind.setdefault(one.asked.kind, []).append(one)
    about, recall, unreal = (by_kind.get(kind, []) for kind in ("about", "recall", "unreal"))
    files, canaries = by_kind.get("file", []), by_kind.get("canary", [])
    talk = [one for one in marked if one.asked.kind != "secret"]
    return Checked(
        answers=len(talk),
        stopped=sum(one.answer.stopped for one in talk),
        names=sum(one.names for one in about),
        valid_names=sum(one.valid_names for one in about),
        recall=len(recall),
        recall_exact=sum(one.exact for one in recall),
        recall_f1=_mean(one.score for one in recall),
        unreal=len(unreal),
        refused=sum(one.score == 1 for one in unreal),
        files=len(files),
        file_f1=_mean(one.score for one in files),
        canaries=len(canaries),
        canaries_passed=sum(one.score == 1 for one in canaries),
        secrets=sum(one.secrets for one in marked),
        gone=tuple(sorted({word for one in marked for word in one.gone})),
    )


def paired(mine: Mapping[int, Marked], its: Mapping[int, Marked], kind: str) -> tuple[list[float], list[float]]:
    """The scores of two arms on the questions of `kind` that have one in both; "end" is whether answers stopped."""
    both = [(mine[index], its[index]) for index in sorted(mine) if index in its]
    if kind == "end":
        talk = [(a, b) for a, b in both if a.asked.kind != "secret"]
        return [float(a.answer.stopped) for a, _ in talk], [float(b.answer.stopped) for _, b in talk]
    scored = [(a.score, b.score) for a, b in both if a.asked.kind == kind]
    pairs = [(a, b) for a, b in scored if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]


def token_f1(text: str, expected: str) -> float:
    """The words of both, as SQuAD counts them (Rajpurkar et al. 2016): 2 common / (words of both), 0 to 1."""
    mine, its = _WORD.findall(text.lower()), _WORD.findall(expected.lower())
    if not mine or not its:
        return float(mine == its)
    common = sum((Counter(mine) & Counter(its)).values())
    return 2 * common / (len(mine) + len(its))


def _score(asked: Asked, text: str, valid: int, names: int) -> float | None:
    match asked.kind:
        case "about":
            return valid / names if names else None
        case "recall":
            return token_f1(_first_line(text), asked.expected)
        case "file":
            return token_f1(text, asked.expected)
        case "unreal":
            return float(bool(_REFUSAL.search(text)))
        case "canary":
            return float(_CHECKS[asked.question](text))
        case "secret":
            return None


def _is_given(name: Name, given: frozenset[Name]) -> bool:
    return any(name.text == other.text for other in given)


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[`'\"*]", "", text).strip(" .:").lower().split())


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else 0.0
