"""Conversations in the serving prompt itself: real passages, distractors, and passages that memory disagrees with.

Rendered by `server.prompt.render_prompt`, answered as a served answer is: with the number of the passage it stands on.
Four in five have the passage that answers (RAFT, Zhang et al. 2024); the others say that it is not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from indexer.search import Passage
from server.prompt import Question, render_prompt
from trainer.facts import CodeFile, Facts, Symbol, top_symbols
from trainer.ledger import ChatKind
from trainer.restatements import WHAT, WHERE
from trainer.sides import mark
from trainer.talk import Message, Talk, pick

MISSING = (
    "The passages do not mention `{name}`, so I cannot say.",
    "The passages do not hold the answer: none of them mentions `{name}`.",
    "I do not know: `{name}` is not in the passages.",
)
VALUE = ("What is `{name}` set to?", "What is the value of `{name}` in `{path}`?", "How large is `{name}`?")
_WITHOUT_SHARE = 0.2
_ANSWER_TOKENS = 120
_CONSTANT = re.compile(
    r"^(\s*(?:[\w:]+\s+){0,4}?)([A-Z][A-Z0-9_]{3,})(\s*(?::\s*[\w.&']+\s*)?=\s*)(\d{1,9}(?:\.\d+)?)\b"
)

Search = Callable[[str, int], list[Passage]]
CountTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Room:
    """How large a prompt may be: an example of at most `example_tokens`, with its answer, counted by `count_tokens`."""

    example_tokens: int
    count_tokens: CountTokens

    def render(self, question: str, passages: Sequence[Passage]) -> tuple[tuple[Message, ...], tuple[Passage, ...]]:
        """The prompt's messages and the passages that fitted; neither where even the question does not."""
        most = self.example_tokens - _ANSWER_TOKENS
        try:
            prompt = render_prompt(Question(question), passages, self.count_tokens, most)
        except ValueError:
            return (), ()
        messages = tuple({"role": turn.role, "content": turn.content} for turn in prompt.messages)
        return messages, prompt.passages


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question of a kind about `source`, over `passages`; `weight` says how recently what it is about changed."""

    kind: ChatKind
    source: str
    question: str
    passages: Sequence[Passage]
    weight: float = 0.0

    def talk(self, prompt: Sequence[Message], fitted: Sequence[Passage], answer: str) -> Talk:
        also = tuple(sorted({passage.path for passage in fitted} - {self.source}))
        messages = (*prompt, {"role": "assistant", "content": answer})
        return Talk(self.kind, self.source, self.question, messages, self.weight, also)


def ground(
    symbols: Sequence[Symbol], search: Search, room: Room, repository: str, most: int, seed: int
) -> Iterator[Talk]:
    """At most `most` questions about `symbols`, each over what the search finds for it."""
    chosen = sorted(symbols, key=lambda s: (-round(s.weight, 1), mark(f"{seed}:ground:{s.path}:{s.name}")))
    made = 0
    for symbol in chosen:
        if made == most:
            return
        if (talk := _ground_one(symbol, search, room, repository)) is not None:
            made += 1
            yield talk


def ground_missing(names: Sequence[str], search: Search, room: Room, repository: str) -> Iterator[Talk]:
    """Questions about names that do not exist, over what the search finds for them all the same."""
    for name in names:
        templates = [template for template in (*WHAT, *WHERE) if "{path}" not in template]
        question = pick(templates, "missing", name).format(name=name, repository=repository)
        asked = _Asked("unanswerable", f"made-up:{name}", question, search(question, _how_many(name)))
        if (talk := _missing(asked, room, name)) is not None:
            yield talk


def contradict(files: Sequence[CodeFile], search: Search, room: Room, most: int, seed: int) -> Iterator[Talk]:
    """At most `most` questions about a constant whose passage has a newer value than the snapshot: the passage wins."""
    found = [(file, name, value, line) for file in files if file.is_code for name, value, line in _constants(file)]
    found.sort(key=lambda entry: mark(f"{seed}:contradict:{entry[0].path}:{entry[1]}"))
    made = 0
    for file, name, value, line in found:
        if made == most:
            return
        question = pick(VALUE, name).format(name=name, path=file.path)
        newer = _other_value(value, name)
        passages = [_rewritten(p, file.path, line, newer) for p in search(question, _how_many(name))]
        gold = next((passage for passage in passages if _rewrites(passage, file.path, line, newer)), None)
        if gold is None:
            continue
        asked = _Asked("conflict", file.path, question, passages)
        if (talk := _answered(asked, room, gold, f"`{name}` is {newer} [{{n}}].")) is not None:
            made += 1
            yield talk


def _ground_one(symbol: Symbol, search: Search, room: Room, repository: str) -> Talk | None:
    templates = WHAT if symbol.about else WHERE
    question = pick(templates, "grounded", symbol.path, symbol.name).format(
        name=symbol.name, path=symbol.path, repository=repository
    )
    passages = search(question, _how_many(symbol.name))
    if mark(f"without:{symbol.path}:{symbol.name}") < _WITHOUT_SHARE and "{path}" not in question:
        without = [passage for passage in passages if symbol.last_name not in passage.text]
        return _missing(_Asked("retrieval", symbol.path, question, without, symbol.weight), room, symbol.name)
    gold = next((passage for passage in passages if _defines(passage, symbol)), None)
    if gold is None:
        return None
    about = f"{symbol.about.rstrip('.')} [{{n}}]. " if symbol.about else ""
    answer = f"{about}`{symbol.name}` is defined in `{symbol.path}` [{{n}}]:\n\n```\n{symbol.signature}\n```"
    return _answered(_Asked("retrieval", symbol.path, question, passages, symbol.weight), room, gold, answer)


def _answered(asked: _Asked, room: Room, gold: Passage, answer: str) -> Talk | None:
    """`answer` with `{n}` for the number that the passage `gold` has in the prompt; None where it has no room there."""
    messages, fitted = room.render(asked.question, asked.passages)
    place = (gold.path, gold.start_line)
    number = next((n for n, p in enumerate(fitted, 1) if (p.path, p.start_line) == place), None)
    # A passage that was cut may have lost what the answer says of it.
    if number is None or not _still_says(fitted[number - 1], answer):
        return None
    return asked.talk(messages, fitted, answer.replace("{n}", str(number)))


def _missing(asked: _Asked, room: Room, name: str) -> Talk | None:
    """The answer that the passages do not have `name`; None without a passage: that is another prompt."""
    messages, fitted = room.render(asked.question, asked.passages)
    return asked.talk(messages, fitted, pick(MISSING, name).format(name=name)) if fitted else None


def _how_many(name: str) -> int:
    """From 3 to 8 passages, as questions are served with; the same for the same name."""
    return 3 + int(mark(f"passages:{name}") * 6)


def _defines(passage: Passage, symbol: Symbol) -> bool:
    return passage.path == symbol.path and passage.start_line <= symbol.line <= passage.end_line


def _still_says(passage: Passage, answer: str) -> bool:
    """Is the code that the answer shows, or the number that it gives, in what is left of the passage?"""
    shown = re.findall(r"```\n(.+)\n```", answer) or re.findall(r" is (\S+) \[", answer)
    flat = " ".join(passage.text.split())
    return all(line in flat for line in shown)


def top_of(files: Sequence[CodeFile], facts: Facts, per_file: int = 6) -> list[Symbol]:
    """The symbols most worth a question in a prompt."""
    return [symbol for file in files for symbol in top_symbols(facts, file.path, per_file)]


def _constants(file: CodeFile) -> Iterator[tuple[str, str, int]]:
    """Name, value and line (1-based) of each constant that is set to a number."""
    for number, line in enumerate(file.text.split("\n"), 1):
        match = _CONSTANT.match(line)
        if match and "\r" not in line:
            yield match[2], match[4], number


def _other_value(value: str, name: str) -> str:
    factor = pick(("2", "3", "5", "10"), name)
    changed = float(value) * int(factor) if float(value) else float(factor)
    return str(int(changed)) if "." not in value else f"{changed:g}"


def _rewritten(passage: Passage, path: str, line: int, value: str) -> Passage:
    """The passage as it would be after somebody changed the constant on `line` of `path`."""
    if passage.path != path or not passage.start_line <= line <= passage.end_line:
        return passage
    lines = passage.text.split("\n")
    at = line - passage.start_line
    lines[at] = _CONSTANT.sub(lambda match: f"{match[1]}{match[2]}{match[3]}{value}", lines[at], count=1)
    text = "\n".join(lines)
    return replace(passage, text=text, sha256=sha256(text.encode()).hexdigest())


def _rewrites(passage: Passage, path: str, line: int, value: str) -> bool:
    if passage.path != path or not passage.start_line <= line <= passage.end_line:
        return False
    match = _CONSTANT.match(passage.text.split("\n")[line - passage.start_line])
    return bool(match and match[4] == value)
