"""Does what somebody wrote about a function find it, once that is taken out of the code? MRR and found in ten.

usage: ./run bench docstrings NAME=TREE ... [--most 150]

Every docstring, or comment above a declaration, that is used as a question is removed from a copy of the tree; its
first sentence is the question, the function below it the answer. At most `--most` of a repository, by lot.
"""

from __future__ import annotations

import argparse
import ast
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unlabelled import Asked, ask, passage_rank, recall, table
from word_vectors.descriptions import (
    COMMENT,
    DECLARES,
    declaration,
    first_sentence,
    is_described,
    words_of,
)

from indexer.files import SourceFile, source_files
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Description:
    """A sentence, the lines that hold it (0-based, `end` not included), and its function's first and last line."""

    sentence: str
    first: int
    end: int
    first_of_code: int
    last_of_code: int


def descriptions(path: str, text: str) -> list[Description]:
    """What is said of functions in this file, in order."""
    if not is_described(path, text):
        return []
    return list(_docstrings(text) if path.endswith(".py") else _comments(text))


def _docstrings(text: str) -> Iterator[Description]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
            continue
        sentence, said = first_sentence(ast.get_docstring(node) or ""), node.body[0]
        shares_a_line = said.lineno == node.lineno or node.body[1].lineno == said.end_lineno
        if sentence and not shares_a_line:
            last = (node.end_lineno or 0) - 1
            yield Description(sentence, said.lineno - 1, said.end_lineno or 0, node.lineno - 1, last)


def _comments(text: str) -> Iterator[Description]:
    for comment in COMMENT.finditer(text):
        rest = text[comment.end() : comment.end() + 4_000].split("\n")
        sentence = first_sentence(words_of(comment["inside"] or comment["lines"] or ""))
        lines = declaration(rest) if DECLARES.match(rest[0]) and "(" in rest[0] else []
        if sentence and len(lines) >= 3:
            first, end = text.count("\n", 0, comment.start()), text.count("\n", 0, comment.end())
            yield Description(sentence, first, end, end, end + len(lines) - 1)


def without(text: str, taken: list[Description]) -> tuple[str, list[tuple[int, int]]]:
    """`text` without these descriptions, and the lines of each function in what is left, 1-based and inclusive."""
    gone = {line for one in taken for line in range(one.first, one.end)}
    kept = [line for number, line in enumerate(text.split("\n")) if number not in gone]

    def place(number: int) -> int:
        return number + 1 - sum(line < number for line in gone)

    return "\n".join(kept), [(place(one.first_of_code), place(one.last_of_code)) for one in taken]


def ask_without(tree: Path, bare: Path, most: int) -> list[Asked]:
    """Write the tree without its descriptions under `bare`; returns the questions, `most` of them by lot.

    A sentence that stands at two functions is no question.
    """
    found: list[Asked] = []
    sources = source_files(Workspace(tree.resolve()), IndexerSettings())
    for source in (one for one in sources if isinstance(one, SourceFile)):
        taken = descriptions(source.path, source.text)
        text, places = without(source.text, taken)
        (bare / source.path).parent.mkdir(parents=True, exist_ok=True)
        (bare / source.path).write_text(text)
        found += [
            Asked(one.sentence, ({"path": source.path, "start_line": first, "end_line": last},))
            for one, (first, last) in zip(taken, places, strict=True)
        ]
    uses = Counter(asked.text for asked in found)
    once = [asked for asked in found if uses[asked.text] == 1]
    random.Random(0).shuffle(once)
    return once[:most]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="+", metavar="NAME=TREE")
    parser.add_argument("--most", type=int, default=150)
    options = parser.parse_args()
    tasks, windows = [], {}
    for one in options.trees:
        name, _, tree = one.partition("=")
        with tempfile.TemporaryDirectory() as bare:
            questions = ask_without(Path(tree), Path(bare), options.most)
            asked, windows[name] = ask(name, Path(bare), questions)
        tasks += asked
    print(table(tasks, windows, {"MRR": passage_rank, "found in 10": recall}))


if __name__ == "__main__":
    main()
