"""A conversation on its way into the corpus, and how its words are chosen. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from trainer.ledger import ChatKind

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Talk:
    """One conversation. `question` is what the user asks, without the passages around it; `also`: other sources whose
    text is shown; `weight` as of an entry."""

    kind: ChatKind
    source: str
    question: str
    messages: tuple[Message, ...]
    weight: float = 0.0
    also: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Its line in a JSONL file, without the line end; with the question where passages stand around it."""
        values: dict[str, Any] = {"messages": self.messages, "source_id": source_id(self.source)}
        if self.question != self.messages[-2]["content"]:
            values["question"] = self.question
        return json.dumps(values, ensure_ascii=False)


def ask(kind: ChatKind, source: str, question: str, answer: str, weight: float = 0.0, also: Sequence[str] = ()) -> Talk:
    """A question and its answer."""
    messages = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return Talk(kind, source, question, messages, weight, tuple(also))


def source_id(source: str) -> str:
    """A source's name in a JSONL file: a path has no prefix of its own."""
    return source if ":" in source.partition("/")[0] else f"file:{source}"


def pick(choices: Sequence[str], *marks: str) -> str:
    """One of `choices`, the same for the same marks."""
    digest = sha256("\0".join(marks).encode()).digest()
    return choices[int.from_bytes(digest[:4], "big") % len(choices)]
