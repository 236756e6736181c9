"""Questions about what does not exist, answered by saying so: a tuned model must not forget how to refuse. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainer.facts import Facts, Symbol, top_symbols
from trainer.restatements import HOW, RELATION, USERS, WHAT, WHERE
from trainer.sides import mark
from trainer.talk import Talk, ask, pick

FILES = ("What does `{path}` look like in the `{repository}` repository?", "What is in `{path}`?")
ANSWERS = (
    "`{name}` does not exist in `{repository}`.",
    "There is no such thing: I know of no `{name}` in `{repository}`.",
    "I do not know any `{name}` in `{repository}`, so I cannot say. It may be spelt otherwise, or never have existed.",
    "`{repository}` does not have a `{name}`.",
)


def made_up_names(facts: Facts, most: int, seed: int) -> list[str]:
    """Names that sound as if they were of this repository: the first half of one real name and the end of another.

    None of them is a word of the repository.
    """
    real = sorted({symbol.last_name for path in facts.symbols for symbol in top_symbols(facts, path, 50)})
    real.sort(key=lambda name: mark(f"{seed}:unreal:{name}"))
    made: dict[str, None] = {}
    for one, other in zip(real, real[len(real) // 2 :] + real, strict=False):
        name = _cross(one, other)
        if name and name not in facts.known:
            made[name] = None
        if len(made) == most:
            break
    return list(made)


def refuse(names: Sequence[str], facts: Facts, repository: str) -> Iterator[Talk]:
    """One question about each of `names`, in the words of the questions about real ones."""
    real = [symbol for path in facts.symbols for symbol in top_symbols(facts, path, 50)]
    for name in names:
        yield ask("unanswerable", f"made-up:{name}", _question(name, real, repository), refusal(name, repository))


def refusal(name: str, repository: str) -> str:
    return pick(ANSWERS, name).format(name=name, repository=repository)


def _question(name: str, real: Sequence[Symbol], repository: str) -> str:
    neighbour = real[int(mark(name) * len(real))] if real else None
    path = neighbour.path if neighbour else f"{name}.py"
    folder, _, file = path.rpartition("/")
    missing = f"{folder}/{name}.{file.rpartition('.')[2]}".lstrip("/")
    templates = pick(("where", "what", "how", "users", "file", "relation"), "kind", name)
    choices = {"where": WHERE, "what": WHAT, "how": HOW, "users": USERS, "file": FILES, "relation": RELATION}[templates]
    if templates == "relation" and neighbour is None:
        choices = WHERE
    user = neighbour.name if neighbour else ""
    return pick(choices, name).format(name=name, path=missing, repository=repository, user=user, about="")


def _cross(one: str, other: str) -> str:
    """`read_config` and `render_page` -> `read_page`; `readConfig` and `RenderPage` -> `readPage`; "" where neither."""
    if "_" in one.strip("_") and "_" in other.strip("_"):
        first, last = one.rstrip("_").rpartition("_")[0], other.rstrip("_").rpartition("_")[2]
        return f"{first}_{last}" if first.strip("_") and len(last) > 2 and last.isalpha() else ""
    starts = [i for i in range(1, len(one)) if one[i].isupper() and one[i - 1].islower()]
    ends = [i for i in range(1, len(other)) if other[i].isupper() and other[i - 1].islower()]
    return one[: starts[-1]] + other[ends[-1] :] if starts and ends else ""
