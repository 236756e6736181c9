"""The gate: one readable rule that says whether a candidate goes into service, line by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.comparison import Change


@dataclass(frozen=True, slots=True)
class Margins:
    """What is asked of a candidate. Shares of bits per byte; `min_files` is how many files a proof must rest on."""

    min_gain: float = 0.0
    max_forgetting: float = 0.01
    min_files: int = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured on one set of items. None: there was nothing to measure it on.

    `against_base` and `against_service` on next-day code with retrieval on, `elsewhere` on other people's code;
    `secrets` found in the candidate's answers; `engine_fault` why the engine could not serve it ("" when it could).
    """

    against_base: Change | None
    against_service: Change | None
    elsewhere: Change | None
    is_next_day: bool
    secrets: int = 0
    engine_fault: str | None = None


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
    lines.append(Line("no secret in its answers", f"{evidence.secrets} found", evidence.secrets == 0))
    if evidence.engine_fault is not None:
        lines.append(Line("the engine loads it", evidence.engine_fault or "it does", not evidence.engine_fault))
    return Verdict(tuple(lines))


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
