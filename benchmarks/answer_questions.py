"""The questions of benchmarks/answers.py and their answers, which the syntax tree of the repository gives.

`answers.tsv`: repository, kind, locator, question. The phrasing is by hand; the locator says where the answer stands:
`FILE:Name` (which file, which function), `FILE:function(parameter)` and `FILE:NAME` (which default),
`FILE:function!Exception` (which exception), `-` (about something that does not exist). A locator that the tree does
not bear out stops the benchmark.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("answers.tsv")
KINDS = ("file", "function", "default", "exception")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Task:
    """One question with its answer: `expected` is a file's name, a symbol, a literal or an exception; "" for a thing
    that does not exist. `about` is the parameter or constant whose default is asked for, else ""."""

    number: int
    repository: str
    kind: str
    text: str
    expected: str
    about: str

    @property
    def calibrates(self) -> bool:
        """Every other question sets the thresholds; the figures are of the rest."""
        return self.number % 2 == 0


def load_tasks(trees: dict[str, Path]) -> list[Task]:
    """The questions about those repositories that are in `trees`, answers looked up. Raises `ValueError`."""
    rows = [line.split("\t") for line in FILE.read_text().splitlines()]
    return [
        Task(number, repository, kind, text, _expected(trees[repository], kind, locator), _about(kind, locator))
        for number, (repository, kind, locator, text) in enumerate(rows)
        if repository in trees
    ]


def holds(task: Task, answer: str) -> bool:
    """Does `answer` hold the right answer? A default must stand behind its name (`sep=b"."`) or be the first literal
    of the text: `False` alone stands everywhere."""
    text = _plain(answer)
    if task.kind != "default":
        return bool(re.search(_word(task.expected), text))
    behind = rf"\b{re.escape(task.about)}\b\s*(?::[^=\n]+)?=\s*{_literal(task.expected)}"
    return bool(re.search(behind, text)) or names_first(task, answer, frozenset(("True", "False", "None")))


def names_first(task: Task, answer: str, rivals: frozenset[str]) -> bool:
    """Is the right answer the first of its kind (`rivals` and itself) that `answer` names, the question's own apart?"""
    asked = {*re.findall(r"[\w.]+", task.text), *re.findall(r"\w+", task.text)}
    every = {task.expected} | {rival for rival in rivals if rival not in asked}
    form = _literal if task.kind == "default" else _word
    text = _plain(answer)
    text = text[max(0, text.find(task.about)) :]
    found = [(match.start(), one) for one in every if (match := re.search(form(one), text))]
    return bool(found) and min(found)[1] == task.expected


def _word(text: str) -> str:
    return rf"(?<![\w.]){re.escape(text)}(?![\w])"


def _literal(value: str) -> str:
    """A literal as code writes it, or where it is a longer string, as prose does."""
    bare = value.removeprefix("b").strip("'")
    quoted = re.escape(value) if bare == value else rf"b?'{re.escape(bare)}'"
    forms = [quoted, re.escape(bare)] if len(bare) > 3 else [quoted]
    return rf"(?<![\w.])(?:{'|'.join(forms)})(?!\w)"


def rivals_of(tasks: list[Task]) -> dict[tuple[str, str], frozenset[str]]:
    """(repository, kind) -> every answer that a question of that kind could have had."""
    keys = {(task.repository, task.kind) for task in tasks}
    return {key: frozenset(t.expected for t in tasks if (t.repository, t.kind) == key) for key in keys}


def _plain(text: str) -> str:
    """`text` without folders, backticks, markers and line numbers; one kind of quote."""
    text = re.sub(r"\[\d+\]|\blines? [\d, -]+", "", text)
    return re.sub(r"(?:[\w.-]+/)+(?=\w+\.\w)", "", text).replace("`", "").replace('"', "'")


def _expected(tree: Path, kind: str, locator: str) -> str:
    if kind == "nothing":
        return ""
    path, _, what = locator.partition(":")
    name, parameter, exception = _parse(what)
    module = ast.parse((tree / path).read_text())
    if kind == "default" and not parameter:
        return _constant(module, name)
    definition = _find(module, name)
    if kind == "default":
        return default_of(definition)[parameter]
    if kind == "exception":
        if exception not in raised_by(definition):
            raise ValueError(f"{locator} raises {sorted(raised_by(definition))}")
        return exception
    return path.rsplit("/", 1)[-1] if kind == "file" else name.rsplit(".", 1)[-1]


def _about(kind: str, locator: str) -> str:
    if kind != "default":
        return ""
    name, parameter, _ = _parse(locator.partition(":")[2])
    return parameter or name.rsplit(".", 1)[-1]


def _parse(what: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"([\w.]+)(?:\((\w+)\)|!(\w+))?", what)
    if match is None:
        raise ValueError(f"no locator: {what}")
    return match[1], match[2] or "", match[3] or ""


def _find(module: ast.Module, name: str) -> Definition:
    node: ast.Module | Definition = module
    for part in name.split("."):
        # The last of several: the ones before are overloads for type checkers.
        found = [n for n in node.body if isinstance(n, Definition) and n.name == part]
        if not found:
            raise ValueError(f"{name} is not defined")
        node = found[-1]
    assert not isinstance(node, ast.Module)
    return node


def _constant(module: ast.Module, name: str) -> str:
    *scope, last = name.split(".")
    body = _find(module, ".".join(scope)).body if scope else module.body
    for node in body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == last for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            return ast.unparse(node.value)
    raise ValueError(f"{name} is assigned nowhere")


def default_of(definition: Definition) -> dict[str, str]:
    """Parameter -> its default as Python writes it, of those that have one."""
    if isinstance(definition, ast.ClassDef):
        return {}
    arguments = definition.args
    plain = [*arguments.posonlyargs, *arguments.args]
    last = plain[len(plain) - len(arguments.defaults) :]
    found = {a.arg: ast.unparse(value) for a, value in zip(last, arguments.defaults, strict=True)}
    keyword_only = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return found | {a.arg: ast.unparse(value) for a, value in keyword_only if value}


def raised_by(definition: Definition) -> set[str]:
    """What `definition` raises by name."""
    raised = [node.exc for node in ast.walk(definition) if isinstance(node, ast.Raise) and node.exc]
    return {ast.unparse(exc.func if isinstance(exc, ast.Call) else exc) for exc in raised}
