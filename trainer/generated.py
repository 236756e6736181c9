"""What a model has to write: question-answer pairs for each page, and the base model's answers to general questions.

Cached by content: a night pays for what changed. Every pair is checked before it is kept; what is no JSON is counted.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from indexer.secrets import mask_secrets
from indexer.workspace import write_atomically
from trainer.ledger import ChatKind
from trainer.page_answers import Pair, check_pairs, read_pairs
from trainer.talk import Message, Talk, ask

_VERSION = 1  # of what is asked: another one makes the cache anew
_PAGE_CHARS = 6_000
_PAIR_TOKENS, _GENERAL_TOKENS = 120, 320
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "pairs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
                "required": ["question", "answer"],
            },
        }
    },
    "required": ["pairs"],
}
_ASK_PAIRS = (
    "Write {count} different questions that a colleague could ask and that the page below answers, each with its "
    "answer. Ask how, why, where and what. Take every fact from the page, in its own words and its own language. Do "
    'not write "the page" or "the text". Reply with JSON only: '
    '{{"pairs": [{{"question": "...", "answer": "..."}}]}}\n\n'
    "# {title}\n\n{text}"
)
_LANGUAGES = "Python, JavaScript, TypeScript, Go, Rust, Java, C, C++, Ruby, Kotlin, SQL, Bash".split(", ")
_TASKS = (
    "Write a function in {language} that reverses a linked list.",
    "How do I read a file line by line in {language}?",
    "What is the difference between a list and a set, with an example in {language}?",
    "Write a unit test in {language} for a function that adds two numbers.",
    "How do I handle an error in {language}?",
    "Explain recursion with a short example in {language}.",
    "Write a {language} program that counts the words in a text.",
    "How do I sort records by two keys in {language}?",
    "What makes code in {language} easy to read?",
    "How do I parse JSON in {language}?",
    "Write binary search in {language}.",
    "When is it worth caching a result, and how is it done in {language}?",
)


class GeneratorError(Exception):
    """The generator cannot be reached or refuses; the message is fit to show."""


# Messages, the most tokens to write, and the JSON schema of what is wanted (None: free text) -> what the model wrote.
# Raises `GeneratorError`.
Generate = Callable[[Sequence[Message], int, Mapping[str, Any] | None], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Generator:
    """A model that can be opened when it is needed. `name` says which: answers are cached for it alone."""

    name: str
    open: Callable[[], AbstractAsyncContextManager[Generate]]
    at_once: int = 8


@dataclass(frozen=True, slots=True)
class Page:
    """A page to ask about; `source` is its id."""

    source: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Order:
    """One thing to be written, known by its content."""

    kind: ChatKind
    source: str
    messages: tuple[Message, ...]
    max_tokens: int
    schema: Mapping[str, Any] | None = None
    page: str = ""

    def key(self, model: str) -> str:
        return sha256(json.dumps([_VERSION, model, self.messages, self.max_tokens]).encode()).hexdigest()


@dataclass(slots=True)
class Written:
    """What came of the orders: conversations, why others were left out, and lines for the user."""

    talks: list[Talk] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)


def page_orders(pages: Sequence[Page], per_page: int) -> Iterator[Order]:
    """Pairs for each page; a long page is asked about piece by piece, its pairs shared out."""
    for page in pages if per_page else ():
        pieces = _pieces(page.text)
        for number, piece in enumerate(pieces):
            count = per_page // len(pieces) + (number < per_page % len(pieces))
            if count:
                content = _ASK_PAIRS.format(count=count, title=page.title, text=piece)
                message = {"role": "user", "content": content}
                yield Order("page-answer", page.source, (message,), _PAIR_TOKENS * count, _SCHEMA, piece)


def general_orders(most: int) -> list[Order]:
    """General coding questions, always the same ones (Capacity-Gated Forgetting: 100 of them halve the forgetting)."""
    questions = [task.format(language=language) for task in _TASKS for language in _LANGUAGES]
    # Every 5th, around and around: few of them are of all languages and tasks too.
    mixed = [questions[i * 5 % len(questions)] for i in range(len(questions))]
    return [
        Order("general", f"general:{question}", ({"role": "user", "content": question},), _GENERAL_TOKENS)
        for question in dict.fromkeys(mixed[:most])
    ]


def write_orders(
    orders: Sequence[Order], generator: Generator, cache: Path, tell: Callable[[int, int], None]
) -> Written:
    """Have `orders` written and read what was. What the cache has is not asked for again; killed, it goes on there.

    A generator that cannot be reached is a notice, and what the cache has is kept.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [order for order in orders if not (cache / order.key(generator.name)).is_file()]
    written = Written()
    if missing:
        try:
            asyncio.run(_write_missing(missing, generator, cache, tell))
        except GeneratorError as error:
            written.notices.append(f"the generator wrote less than was asked for: {error}")
    for order in orders:
        kept = cache / order.key(generator.name)
        if kept.is_file():
            _read(order, mask_secrets(kept.read_text("utf-8")).text, written)
        else:
            written.left_out["not written: no generator"] += 1
    return written


async def _write_missing(
    orders: Sequence[Order], generator: Generator, cache: Path, tell: Callable[[int, int], None]
) -> None:
    done = 0
    async with generator.open() as generate:
        waiting = iter(orders)

        async def work() -> None:
            nonlocal done
            for order in waiting:
                text = await generate(order.messages, order.max_tokens, order.schema)
                write_atomically(cache / order.key(generator.name), text)
                done += 1
                tell(done, len(orders))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(generator.at_once, len(orders))):
                    group.create_task(work())
        except* GeneratorError as failed:
            raise failed.exceptions[0] from None


def _read(order: Order, text: str, written: Written) -> None:
    if order.kind == "general":
        if text.strip():
            written.talks.append(ask("general", order.source, order.messages[0]["content"], text.strip()))
        else:
            written.left_out["generated: empty"] += 1
        return
    pairs = read_pairs(text)
    if pairs is None:
        written.left_out["generated: not the JSON that was asked for"] += 1
        return
    kept: list[Pair] = []
    for pair, fault in check_pairs(pairs, order.page):
        if fault:
            written.left_out[f"generated: {fault}"] += 1
        else:
            kept.append(pair)
    written.talks += [ask("page-answer", order.source, pair.question, pair.answer) for pair in kept]


def _pieces(text: str) -> list[str]:
    """A page in pieces of at most 6,000 characters, cut between paragraphs."""
    pieces = [""]
    for paragraph in text.split("\n\n"):
        if pieces[-1] and len(pieces[-1]) + len(paragraph) > _PAGE_CHARS:
            pieces.append("")
        pieces[-1] += paragraph[:_PAGE_CHARS] + "\n\n"
    return [piece.strip() for piece in pieces if piece.strip()]
