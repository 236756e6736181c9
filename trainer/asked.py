"""What the arms of a proof are asked, and what would be right. The same each time for the same snapshot. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.canaries import CANARIES
from trainer.names import Existing
from trainer.sources.snapshot import Snapshot

# about: a symbol that exists; recall: what was learnt as text, asked in another way; unreal: something that does not
# exist; file: how a file begins; canary: nothing of the repository; secret: text that stood before a masked secret.
AskedKind = Literal["about", "recall", "unreal", "file", "canary", "secret"]
UNREAL = "reticulate_splines_for_tenants"
BATCH = 8
# Their prompts are short: three rounds ask all sixty.
_CANARY_BATCH = 20
_MOST = {"about": 1.0, "recall": 1.0, "unreal": 0.5, "file": 0.25}  # of the questions of a kind that are asked for
_FIRST_LINES, _FIRST_CHARS = 12, 500
_SHORT_ANSWER = 160


@dataclass(frozen=True, slots=True)
class Asked:
    """A question. `expected`: the short answer to recall, or how the file begins; "" where a check says what is
    right. Of the kind secret `question` is the text to go on from."""

    kind: AskedKind
    question: str
    expected: str = ""


def make_questions(
    snapshot: Snapshot, defined: Sequence[tuple[str, str]], talks: Sequence[tuple[str, str]], count: int
) -> list[Asked]:
    """Up to `count` questions of each kind, and the canaries; none for 0.

    `defined` are (path, symbol), what changed last first; `talks` questions and answers kept from training.
    """
    if not count:
        return []
    once = _defined_once(defined)

    def most(kind: str) -> int:
        return max(1, round(count * _MOST[kind]))

    made = [Asked("about", f"What does `{name}` in `{path}` do?") for path, name in once[: most("about")]]
    made += _recall(once, talks)[: most("recall")]
    made += _unreal(snapshot, once, most("unreal"))
    made += _files(snapshot, most("file"))
    return made + [Asked("canary", canary.prompt) for canary in CANARIES]


def rounds(asked: Sequence[Asked], with_passages: bool) -> list[list[tuple[int, bool]]]:
    """Batches of (index, with passages?), in rounds of one of each kind: wherever time runs out, all kinds have been
    asked about equally often. Canaries, files and secrets are asked without passages only."""
    by_kind: dict[str, list[int]] = {}
    for index, one in enumerate(asked):
        by_kind.setdefault(one.kind, []).append(index)
    batches: list[list[tuple[int, bool]]] = []
    most = max(map(len, by_kind.values()), default=0)
    for number in range(-(-most // BATCH)):
        for kind, indexes in by_kind.items():
            size = _CANARY_BATCH if kind == "canary" else BATCH
            chosen = indexes[number * size : (number + 1) * size]
            arms = (False, True) if with_passages and kind in ("about", "recall", "unreal") else (False,)
            batches += [[(index, flag) for index in chosen] for flag in arms if chosen]
    return batches


def _defined_once(defined: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those whose name says which one is meant."""
    counts = Counter(name for _, name in defined)
    return [(path, name) for path, name in defined if counts[name] == 1 and len(name) > 2]


def _recall(defined: Sequence[tuple[str, str]], talks: Sequence[tuple[str, str]]) -> list[Asked]:
    kept = [Asked("recall", question, answer) for question, answer in talks if len(answer) <= _SHORT_ANSWER]
    where = [
        Asked("recall", f"In which file is `{name}` defined? Answer with its path.", path) for path, name in defined
    ]
    return [one for pair in zip(kept, where, strict=False) for one in pair] + (kept + where)[2 * len(kept) :]


def _unreal(snapshot: Snapshot, defined: Sequence[tuple[str, str]], count: int) -> list[Asked]:
    """Names made of parts of real ones, which the snapshot does not have: they look as if they belonged there."""
    existing = Existing(snapshot)
    parts = [re.findall(r"[A-Z]?[a-z]+", name.rpartition(".")[2]) for _, name in defined]
    heads, tails = [p[0] for p in parts if len(p) > 1], [p[-1] for p in parts if len(p) > 1]
    made = [f"{head}_{tail}".lower() for head, tail in zip(heads, reversed(tails), strict=True)]
    real = {name for _, name in defined}
    names = [UNREAL, *dict.fromkeys(name for name in made if name not in real and not existing.has_word(name))]
    return [Asked("unreal", f"What does `{name}` do in {snapshot.repository}?") for name in names[:count]]


def _files(snapshot: Snapshot, count: int) -> list[Asked]:
    """How the files begin that changed last, asked as the corpus asks it."""
    files = sorted(snapshot.files, key=lambda file: (-file.changed, file.path))
    long = [file for file in files if len(file.text) > 200][:count]
    begins = ["".join(file.text.splitlines(keepends=True)[:_FIRST_LINES])[:_FIRST_CHARS] for file in long]
    return [
        Asked("file", f"What does `{file.path}` look like in the `{snapshot.repository}` repository?", begin)
        for file, begin in zip(long, begins, strict=True)
    ]
