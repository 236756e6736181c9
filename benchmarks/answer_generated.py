"""Questions that a program makes from the syntax tree of a Python repository: for code that no rule has seen."""

from __future__ import annotations

import ast
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from answer_questions import KINDS, Definition, Task, default_of, raised_by


@dataclass(frozen=True, slots=True)
class Defined:
    """A function, method or class: `name` is dotted, `path` relative to the repository."""

    path: str
    name: str
    node: Definition


def generate_tasks(repository: str, tree: Path, each: int, seed: int = 7) -> list[Task]:
    """Up to `each` questions of every kind, about names that are defined once in `tree`/src; the same for a seed."""
    every = list(_defined(tree))
    count = Counter(one.name.rsplit(".", 1)[-1] for one in every)
    once = [one for one in every if count[one.name.rsplit(".", 1)[-1]] == 1 and not one.name.startswith("_")]
    made = [(kind, *question) for kind in KINDS for question in _sample(once, kind, each, random.Random(seed))]
    return [Task(n, repository, kind, *question) for n, (kind, *question) in enumerate(made)]


def _defined(tree: Path) -> Iterator[Defined]:
    for file in sorted((tree / "src").rglob("*.py")):
        path = file.relative_to(tree).as_posix()
        yield from (Defined(path, name, node) for name, node in _walk(ast.parse(file.read_text()), ""))


def _walk(node: ast.Module | Definition, scope: str) -> Iterator[tuple[str, Definition]]:
    for child in node.body:
        if isinstance(child, Definition):
            yield scope + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from _walk(child, f"{scope}{child.name}.")


def _sample(every: list[Defined], kind: str, most: int, dice: random.Random) -> list[tuple[str, str, str]]:
    questions = [question for one in every if (question := _ask(one, kind, dice))]
    return dice.sample(questions, min(most, len(questions)))


def _ask(one: Defined, kind: str, dice: random.Random) -> tuple[str, str, str] | None:
    """(question, expected, about) of that kind, None when `one` is no subject for it."""
    last = one.name.rsplit(".", 1)[-1]
    is_function = not isinstance(one.node, ast.ClassDef)
    if kind == "file":
        return f"Which file defines {one.name}?", one.path.rsplit("/", 1)[-1], ""
    if kind == "function":
        sentence = re.split(r"(?<=[.!?])\s|\n\n", ast.get_docstring(one.node) or "")[0].replace("\n", " ").strip(" .")
        told = len(sentence.split()) >= 5 and last not in sentence
        return (f"Which function, method or class is this: {sentence}?", last, "") if told else None
    if kind == "default" and is_function:
        defaults = {name: value for name, value in default_of(one.node).items() if value != "None"}
        name = dice.choice(sorted(defaults)) if defaults else ""
        return (f"What is the default of {name} in {one.name}?", defaults[name], name) if name else None
    if kind == "exception" and is_function and len(raised := raised_by(one.node)) == 1:
        [exception] = raised
        return (f"Which exception does {one.name} raise?", exception, "") if exception[0].isupper() else None
    return None
