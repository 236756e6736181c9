"""Where prose and code say different values for the same name: found by pattern, said with both places. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from indexer.languages import CONFIGURATION, PROSE
from indexer.search import Passage
from server.statements import lines_of

_VALUE = r"`{0,2}(-?\d[\d_]*(?:\.\d+)?|\"[^\"\n]*\"|'[^'\n]*'|[Tt]rue|[Ff]alse|None|null|nil)"
_QUOTED = r"`{1,2}(?:--)?([A-Za-z_][\w.-]*)(?:\(\))?`{1,2}"
_IN_PROSE = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_QUOTED}[^.\n|]{{0,40}}?\bdefaults? (?:to|is|of|value is)\s+{_VALUE}",
        rf"{_QUOTED}\s*\([^)\n]*?\bdefault(?:s to|:|\s+is|\s*=)?\s*{_VALUE}",
        rf"\bdefault (?:value )?(?:of|for) {_QUOTED} (?:is|=)\s+{_VALUE}",
        rf"^\|\s*{_QUOTED}\s*\|\s*{_VALUE}`{{0,2}}\s*\|",
        rf"`{{1,2}}([A-Za-z_][\w.]*)\s*=\s*{_VALUE}\s*`{{1,2}}",
    )
)
_LITERAL = _VALUE.removeprefix("`{0,2}")
_IN_CODE = re.compile(
    rf"(?<![\w.])([A-Za-z_]\w*)\s*(?::\s*[\w\[\]., |\"']+?)?\s*=\s*{_LITERAL}(?=\s*(?:[,)#;}}]|$|//))"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """`name` has the value `value` (as written), says line `line` of passage `number` (1-based)."""

    name: str
    value: str
    number: int
    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Prose and code name different values for the same thing; the code is what runs."""

    prose: Claim
    code: Claim


def disagreements(passages: Sequence[Passage]) -> tuple[Disagreement, ...]:
    """Names for which a prose passage gives a value that no code passage gives, though one gives another; each once.

    Where the code has several values for a name (two functions with a `timeout`), the prose may mean either: it
    disagrees only when it agrees with none.
    """
    prose = [claim for n, p in enumerate(passages, 1) if p.language in PROSE for claim in _claims(n, p, _IN_PROSE)]
    is_code = [p.language not in PROSE and p.language not in CONFIGURATION for p in passages]
    code = [claim for n, p in enumerate(passages, 1) if is_code[n - 1] for claim in _claims(n, p, (_IN_CODE,))]
    found: dict[str, Disagreement] = {}
    for claim in prose:
        same = [other for other in code if _last(other.name) == _last(claim.name)]
        if same and all(_read(other.value) != _read(claim.value) for other in same):
            found.setdefault(_last(claim.name), Disagreement(claim, same[0]))
    return tuple(found.values())


def say_disagreement(one: Disagreement, prose_day: str = "", code_day: str = "") -> str:
    """One sentence with both places, and the days of their last commits where they are known (ISO dates)."""
    prose, code = one.prose, one.code
    newer = prose_day > code_day if prose_day and code_day else False
    days = [f" ({day})" if day else "" for day in (prose_day, code_day)]
    tail = "; the text is the newer of the two and may say what is meant to be" if newer else ""
    return (
        f"Text and code disagree: {prose.path}:{prose.line}{days[0]} says `{_last(prose.name)}` is {prose.value} "
        f"[{prose.number}], {code.path}:{code.line}{days[1]} says {code.value} [{code.number}]. The code counts{tail}."
    )


def _claims(number: int, passage: Passage, patterns: Sequence[re.Pattern[str]]) -> Iterator[Claim]:
    for offset, line in enumerate(lines_of(passage.text)):
        for pattern in patterns:
            for match in pattern.finditer(line):
                yield Claim(match[1], match[2], number, passage.path, passage.start_line + offset)


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1].replace("-", "_")


def _read(value: str) -> object:
    """The value itself: `1_000` is 1000, "a" is 'a', true is True, null is None."""
    named = {"true": True, "false": False, "none": None, "null": None, "nil": None}
    if value.lower() in named:
        return repr(named[value.lower()])
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
