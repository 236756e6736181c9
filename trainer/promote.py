"""The gate: one readable rule that says whether a candidate goes into service, line by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.comparison import Change, Difference


@dataclass(frozen=True, slots=True)
class Margins:
    """What is asked of a candidate. `min_gain` and `max_forgetting` are shares of bits per byte, `min_files` how many
    files a proof must rest on; the others are how far a mean score (0 to 1) may surely fall below the base model's."""

    min_gain: float = 0.0
    max_forgetting: float = 0.01
    min_files: int = 5
    names: float = 0.05
    recall: float = 0.03
    refusals: float = 0.10
    ends: float = 0.10
    canaries: float = 0.05
    holes: float = 0.10


@dataclass(frozen=True, slots=True)
class Guards:
    """The candidate's answers against the base model's, question by question; None where nothing was asked.

    `names` that exist, `recall` as token F1, `refusals` of what does not exist and `ends` with retrieval on, as served;
    `canaries` without; `holes`: functions whose tests pass, with retrieval on, None also where they are too few.
    """

    names: Difference | None = None
    recall: Difference | None = None
    refusals: Difference | None = None
    ends: Difference | None = None
    canaries: Difference | None = None
    holes: Difference | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """How a real engine took the candidate: `fault` is why it cannot serve it, "" when it can; then how long its first
    token took and how fast it wrote, None where it was not measured."""

    fault: str
    first_token_s: float | None = None
    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured on one set of items. None: there was nothing to measure it on.

    `against_base` and `against_service` on next-day code with retrieval on, `elsewhere` on other people's code;
    `secrets` found in the candidate's answers; `served` by a real engine; `gone`: names that its answers give and the
    repository has no more.
    """

    against_base: Change | None
    against_service: Change | None
    elsewhere: Change | None
    is_next_day: bool
    guards: Guards = Guards()
    secrets: int = 0
    served: Served | None = None
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the verdict."""

    rule: str
    measured: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision and why. `promote` is true when every line passed."""

    lines: tuple[Line, ...]

    @property
    def promote(self) -> bool:
        return all(line.passed for line in self.lines)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What a refused candidate failed on."""
        return tuple(f"{line.rule}: {line.measured}" for line in self.lines if not line.passed)


def decide(evidence: Evidence, margins: Margins) -> Verdict:
    """A candidate must surely beat the base model, not surely lose to what is in service, and forget next to
    nothing.
    """
    lines = [_beats_base(evidence, margins)]
    if evidence.against_service is not None:
        worse = evidence.against_service.low > 0
        lines.append(Line("not worse than the adapter in service", show(evidence.against_service), not worse))
    if evidence.elsewhere is not None:
        forgot = evidence.elsewhere.share > margins.max_forgetting
        rule = f"at most {margins.max_forgetting:.0%} more bits on other people's code"
        lines.append(Line(rule, show(evidence.elsewhere), not forgot))
    lines += _guard_lines(evidence.guards, margins)
    lines.append(Line("no secret in its answers", f"{evidence.secrets} found", evidence.secrets == 0))
    if evidence.served is not None:
        lines.append(Line("the engine loads it", show_served(evidence.served), not evidence.served.fault))
    return Verdict(tuple(lines))


_GUARDS = (
    ("names", "names that exist in its answers"),
    ("recall", "recall of what it has read"),
    ("refusals", "refusals of what does not exist"),
    ("ends", "answers that end by themselves"),
    ("canaries", "canary prompts"),
    ("holes", "functions that pass the repository's own tests"),
)
_FEW = 20


def _guard_lines(guards: Guards, margins: Margins) -> list[Line]:
    """A guardrail refuses where the whole interval lies beyond its margin: a sure fall, not the noise of a few
    questions (20 points on 20 questions are noise)."""
    lines: list[Line] = []
    for name, what in _GUARDS:
        found, margin = getattr(guards, name), getattr(margins, name)
        if found is not None:
            rule = f"{what}: at most {margin * 100:.0f} points below the base model"
            lines.append(Line(rule, show_difference(found), found.high >= -margin))
    return lines


def show_difference(found: Difference) -> str:
    few = "; too few to tell much" if found.count < _FEW else ""
    points = f"{found.value * 100:+.0f} points (95%: {found.low * 100:+.0f} to {found.high * 100:+.0f}"
    return f"{points}; {found.count} questions{few})"


def show_served(served: Served) -> str:
    if served.fault or served.first_token_s is None:
        return served.fault or "it does"
    return f"it does: first token {served.first_token_s:.2f} s, {served.tokens_per_s or 0:.0f} tokens/s"


def _beats_base(evidence: Evidence, margins: Margins) -> Line:
    where = "newer code" if evidence.is_next_day else "files never trained on (there is no newer code)"
    rule = f"fewer bits than the base model on {where}, with retrieval"
    found = evidence.against_base
    if found is None:
        return Line(rule, "nothing to measure it on", False)
    if found.clusters < margins.min_files:
        return Line(rule, f"{show(found)}: too few to tell ({margins.min_files} are asked for)", False)
    return Line(rule, show(found), found.high < -margins.min_gain)


def show(change: Change) -> str:
    return f"{change.share:+.1%} (95%: {change.low:+.1%} to {change.high:+.1%}; {change.clusters} files)"


def table(lines: Sequence[Line]) -> list[tuple[str, str, str]]:
    return [(line.rule, line.measured, "passed" if line.passed else "NOT PASSED") for line in lines]
