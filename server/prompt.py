"""The prompt: what the model reads for a question. A contract: the trainer renders its examples with it.

`PROMPT_VERSION` changes with every change of what is rendered; an adapter trained on another version is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from indexer.search import Passage

PROMPT_VERSION = 1

SYSTEM = (
    "You answer questions about the code of one repository. Use only the passages below; name the passage you use by "
    "its number in square brackets, like [1]. If the passages do not hold the answer, say so."
)
SYSTEM_WITHOUT_PASSAGES = "You answer questions about the code of one repository. If you do not know, say so."

# Zero-width, bidirectional-control and tag characters: what a reader cannot see must not steer the model.
_HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier message of the conversation; `role` is user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Question:
    """What the user asks, and what stands open in front of them.

    `path` is relative to the workspace, `buffer` the unsaved text of that file, `selection` the marked part of it,
    `overlays` other unsaved files as (path, text), `conversation` what was said before, oldest first, `instructions`
    what a client's own system message asks for.
    """

    text: str
    path: str | None = None
    buffer: str | None = None
    selection: str = ""
    conversation: tuple[Turn, ...] = ()
    instructions: str = ""
    overlays: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages for the model, and the passages that fitted: `passages[i]` is the one marked `[i + 1]`; `fence` is what
    stands around each of them in angle brackets."""

    messages: tuple[Turn, ...]
    passages: tuple[Passage, ...]
    fence: str = ""

    def without_fences(self, text: str) -> str:
        """`text` without the fences that a model copied into its answer."""
        return re.sub(rf" ?</?{self.fence}>", "", text) if self.fence else text


CountTokens = Callable[[str], int]


def render_prompt(
    question: Question, passages: Sequence[Passage], count_tokens: CountTokens, max_tokens: int
) -> Prompt:
    """The prompt for `question` over the best of `passages` (best first) that fit in `max_tokens`.

    The question is never cut. What gives way, in this order: the oldest turns, the selection's end, the last passages;
    a passage is in whole or not at all, except the best one, which is cut at a line end when it alone is too long.
    Raises `ValueError` when the question alone does not fit.
    """
    fence = _fence(question, passages)
    left = max_tokens - _overhead(question, count_tokens)
    if left < 0:
        raise ValueError(f"the question is {-left} tokens too long for a prompt of {max_tokens}")
    selection = _cut(question.selection, left // 2, count_tokens)
    left -= count_tokens(selection)
    chosen, used = _choose(passages, left, count_tokens, fence)
    turns = _last_turns(question.conversation, left - used, count_tokens)
    system = "\n".join(filter(None, [SYSTEM if chosen else SYSTEM_WITHOUT_PASSAGES, question.instructions]))
    text = _user_text(replace(question, selection=selection), chosen, fence)
    return Prompt((Turn("system", system), *turns, Turn("user", text)), tuple(chosen), fence)


def visible(text: str) -> str:
    """`text` without the characters that a reader cannot see."""
    return _HIDDEN.sub("", text)


def _fence(question: Question, passages: Sequence[Passage]) -> str:
    """What opens and closes each passage: a hash over all of them, so that no retrieved text can hold its own closing
    fence and go on as us. Not random: the same question over the same code reads the same prompt."""
    return sha256("\0".join([question.text, *(p.text for p in passages)]).encode()).hexdigest()[:8]


def _overhead(question: Question, count_tokens: CountTokens) -> int:
    texts = (SYSTEM, question.instructions, question.text, question.path or "")
    # 40: the chat template's own tokens, and what tokenising in parts differs from tokenising the whole.
    return sum(map(count_tokens, texts)) + 40


def _choose(passages: Sequence[Passage], left: int, count_tokens: CountTokens, fence: str) -> tuple[list[Passage], int]:
    chosen: list[Passage] = []
    used = 0
    for passage in passages:
        cost = count_tokens(_block(len(chosen) + 1, passage, fence))
        if used + cost <= left:
            chosen.append(passage)
            used += cost
        elif not chosen and (shorter := _shorten(passage, left, count_tokens, fence)) is not None:
            return [shorter], left
    return chosen, used


def _shorten(passage: Passage, left: int, count_tokens: CountTokens, fence: str) -> Passage | None:
    text = _cut(passage.text, left - count_tokens(_block(1, replace(passage, text=""), fence)), count_tokens)
    if not text:
        return None
    lines = text.count("\n") + (not text.endswith("\n"))
    return replace(
        passage, text=text, end_line=passage.start_line + lines - 1, sha256=sha256(text.encode()).hexdigest()
    )


def _cut(text: str, tokens: int, count_tokens: CountTokens) -> str:
    """The first lines of `text` that fit in `tokens`; "" when not even one does."""
    lines = text.split("\n")
    while lines and count_tokens("\n".join(lines)) > max(tokens, 0):
        del lines[len(lines) * 3 // 4 :]
    return "\n".join(lines)


def _last_turns(conversation: Sequence[Turn], left: int, count_tokens: CountTokens) -> list[Turn]:
    kept: list[Turn] = []
    for turn in reversed(conversation):
        left -= count_tokens(turn.content) + 8
        if left < 0:
            break
        kept.insert(0, turn)
    return kept


def _user_text(question: Question, passages: Sequence[Passage], fence: str) -> str:
    parts = [_block(number, passage, fence) for number, passage in enumerate(passages, 1)]
    if question.selection:
        where = question.path or "their editor"
        parts.append(f"The user has marked this in {where}:\n{visible(question.selection)}\n")
    elif question.path:
        parts.append(f"The user has {question.path} open.\n")
    parts.append(f"Question: {question.text}")
    return "\n".join(parts)


def _block(number: int, passage: Passage, fence: str) -> str:
    head = f"[{number}] {passage.path}, lines {passage.start_line}-{passage.end_line}"
    return f"{head} <{fence}>\n{visible(passage.text).rstrip()}\n</{fence}>\n"
