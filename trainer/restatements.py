"""Questions about files and their symbols, answered by what the code says of itself: many words for the same facts.

Variety is what teaches: one wording repeated is learnt as a wording (EntiGraph, Yang et al. 2024). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from indexer.places import is_test
from trainer.facts import CodeFile, Facts, Symbol, Use, about_file, top_symbols
from trainer.talk import Talk, ask, pick

WHERE = (
    "Where is `{name}` defined in the `{repository}` repository?",
    "Which file of `{repository}` defines `{name}`?",
    "In which file do I find `{name}`?",
    "I have to change `{name}`. Which file do I open?",
    "Where does `{name}` live?",
)
WHAT = (
    "What does `{name}` in `{path}` do?",
    "What is `{name}` for?",
    "Can you explain `{name}` to me?",
    "Why is there a `{name}` in `{repository}`?",
    "What is the purpose of `{name}`?",
)
HOW = (
    "How is `{name}` used?",
    "How do I use `{name}`?",
    "Show me how `{name}` is called.",
    "Is there an example of `{name}` in `{repository}`?",
)
WHICH = (
    "Which part of `{repository}` does this: {about}",
    "What in `{repository}` is described as follows? {about}",
    "I am looking for the code that does this: {about}",
)
SUMMARY = (
    "What is in `{path}`?",
    "Give me an overview of `{path}`.",
    "What does the file `{path}` define?",
    "Summarise `{path}` for somebody who is new to `{repository}`.",
)
RELATION = (
    "How are `{user}` and `{name}` related?",
    "What does `{user}` have to do with `{name}`?",
    "What does `{user}` need `{name}` for?",
)
USERS = (
    "Who uses `{name}`?",
    "Which code depends on `{name}`?",
    "What would I have to look at when I change `{name}`?",
)
_Fits = Callable[[str, str], bool]


def restate(file: CodeFile, facts: Facts, repository: str, most: int, fits: _Fits) -> Iterator[Talk]:
    """At most `most` questions about a file: an overview, and what its symbols are, where, and how they are used.

    `fits(a, b)`: may a conversation about the source a show a line of b?
    """
    symbols = top_symbols(facts, file.path, most)
    made: list[Talk] = []
    if summary := _summary(file, facts, repository):
        made.append(summary)
    # First one of each kind of question for the best symbols, then the rest.
    asked = [list(_about(symbol, facts, repository, fits)) for symbol in symbols]
    for turn in range(4):
        for number, talks in enumerate(asked):
            made += talks[(number + turn) % len(talks) :][:1] if turn < len(talks) else []
    yield from made[:most]


def relate(file: CodeFile, facts: Facts, repository: str, most: int, fits: _Fits) -> Iterator[Talk]:
    """At most `most` questions about what a symbol of this file has to do with those that use it."""
    made: list[Talk] = []
    for symbol in top_symbols(facts, file.path, 40):
        uses = [use for use in facts.uses.get(symbol.name, ()) if fits(symbol.path, use.path)]
        named = [use for use in uses if use.where and use.where.rsplit(".", 1)[-1] != symbol.last_name]
        if named:
            made.append(_relation(symbol, named[0]))
        if len({use.path for use in uses}) > 1:
            made.append(_users(symbol, uses))
    yield from made[:most]


def _about(symbol: Symbol, facts: Facts, repository: str, fits: _Fits) -> Iterator[Talk]:
    words = {"name": symbol.name, "path": symbol.path, "repository": repository, "about": symbol.about}

    def talk(templates: Sequence[str], answer: str, also: Sequence[str] = ()) -> Talk:
        question = pick(templates, symbol.path, symbol.name).format(**words)
        return ask("restatement", symbol.path, question, answer, symbol.weight, also)

    if symbol.about:
        yield talk(WHAT, f"{symbol.about}\n\n`{symbol.name}` is defined in `{symbol.path}`: `{symbol.signature}`")
    yield talk(WHERE, _where(symbol))
    uses = [use for use in facts.uses.get(symbol.name, ()) if fits(symbol.path, use.path)]
    if uses:
        use = min(uses, key=lambda use: is_test(use.path))
        place = f"in `{use.where}` of `{use.path}`" if use.where else f"in `{use.path}`"
        answer = f"{_where(symbol)}\n\nIt is used {place}:\n\n{_code(use.text)}"
        yield talk(HOW, answer, [use.path] if use.path != symbol.path else [])
    if symbol.about:
        yield talk(WHICH, f"`{symbol.name}` in `{symbol.path}`.")


def _summary(file: CodeFile, facts: Facts, repository: str) -> Talk | None:
    symbols = facts.symbols.get(file.path, ())
    names = [symbol for symbol in symbols if symbol.name.count(".") == 0] or list(symbols)
    about = about_file(file.text)
    if not names and not about:
        return None
    parts = [about] if about else []
    if names:
        parts.append(f"`{file.path}` defines:\n" + "\n".join(map(_item, names[:12])))
    question = pick(SUMMARY, file.path).format(path=file.path, repository=repository)
    return ask("restatement", file.path, question, "\n\n".join(parts), file.weight_of(1, 10**9))


def _relation(symbol: Symbol, use: Use) -> Talk:
    question = pick(RELATION, symbol.name, use.where).format(name=symbol.name, user=use.where)
    purpose = f" {symbol.about}" if symbol.about else ""
    fact = f"`{use.where}` in `{use.path}` uses `{symbol.name}`, which `{symbol.path}` defines."
    answer = f"{fact}{purpose}\n\n{_code(use.text)}"
    also = [use.path] if use.path != symbol.path else []
    return ask("relation", symbol.path, question, answer, symbol.weight, also)


def _users(symbol: Symbol, uses: Sequence[Use]) -> Talk:
    question = pick(USERS, symbol.name).format(name=symbol.name)
    places = [f"- `{use.path}`{f' (`{use.where}`)' if use.where else ''}: `{use.text}`" for use in uses]
    also = sorted({use.path for use in uses} - {symbol.path})
    answer = f"`{symbol.name}` is defined in `{symbol.path}`. It is used in:\n" + "\n".join(places)
    return ask("relation", symbol.path, question, answer, symbol.weight, also)


def _where(symbol: Symbol) -> str:
    shown = (
        "`{name}` is defined in `{path}`:\n\n{code}",
        "In `{path}`:\n\n{code}",
        "It is in `{path}`, as `{line}`.",
    )
    words = {"name": symbol.name, "path": symbol.path, "code": _code(symbol.signature), "line": symbol.signature}
    return pick(shown, "where", symbol.path, symbol.name).format(**words)


def _item(symbol: Symbol) -> str:
    return f"- `{symbol.name}`" + (f": {symbol.about}" if symbol.about else "")


def _code(line: str) -> str:
    return f"```\n{line}\n```"
