"""The questions of a proof as prompts: the serving prompt, with passages of the snapshot and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer

from indexer.chunking import Chunk, chunk_text
from indexer.languages import language_of
from indexer.lexical import LexicalIndex
from indexer.search import Passage, make_passage
from indexer.tokens import query_tokens
from server.base_model import BaseModel
from server.prompt import Question, render_prompt
from trainer.asked import Asked, make_questions, rounds
from trainer.corpus import read_examples
from trainer.ledger import read_ledger
from trainer.planted import find_planted
from trainer.sources.snapshot import Snapshot
from trainer.stages import Workshop
from trainer.writing import Prompted

_PROMPT_TOKENS = 700
_PASSAGES = 3
_PLANTED = 16
# Conversations whose answer is a fact of their source, not a refusal or a style.
_FACTS = ("restatement", "relation", "page-question", "page-answer")


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked: `order[i]` says of the i-th prompt (over all `batches`) which of `asked` it is, and whether it has
    passages. `secrets` are those of the repository, in memory only."""

    asked: tuple[Asked, ...]
    order: tuple[tuple[int, bool], ...]
    batches: tuple[tuple[Prompted, ...], ...]
    secrets: frozenset[str] = field(repr=False)


def make_asking(workshop: Workshop, snapshot: Snapshot, corpus: Path) -> Asking:
    """All prompts, in the order of asking: the same each time for the same snapshot and corpus."""
    settings, base = workshop.settings, workshop.base
    if not settings.questions:
        return Asking((), (), (), frozenset())
    files = sorted(snapshot.files, key=lambda file: (-file.changed, file.path))
    chunks = [
        chunk for file in files for chunk in chunk_text(file.path, file.text, language_of(file.path, file.text[:100]))
    ]
    first = {chunk.path: chunk.defines[0] for chunk in reversed(chunks) if chunk.defines}
    defined = [(file.path, first[file.path]) for file in files if file.path in first]
    planted = find_planted(workshop.workspace, snapshot, _PLANTED)
    asked = make_questions(snapshot, defined, kept_talks(corpus), settings.questions)
    asked += [Asked("secret", one.context) for one in planted]
    batches = rounds(asked, with_passages=True)
    with TemporaryDirectory(prefix="nightschool-proof-") as folder:
        index = LexicalIndex(Path(folder))
        index.write((chunk.id, chunk) for chunk in chunks)
        search = _Search(index, {chunk.id: chunk for chunk in chunks})
        prompter = _Prompter(base, search, settings.answer_tokens)
        prompts = tuple(tuple(prompter.prompt(asked[index], flag) for index, flag in batch) for batch in batches)
    order = tuple(place for batch in batches for place in batch)
    return Asking(tuple(asked), order, prompts, frozenset(one.value for one in planted))


def kept_talks(corpus: Path) -> list[tuple[str, str]]:
    """Questions and answers that the corpus keeps from training while it learns their source's text."""
    examples = read_examples(corpus, read_ledger(corpus))
    kept = [one for one in examples if one.entry.split == "validation" and one.entry.kind in _FACTS]
    talks = [example.messages for example in kept]
    return [(turns[-2]["content"], turns[-1]["content"]) for turns in talks if len(turns) == 2]


@dataclass(frozen=True, slots=True)
class _Search:
    index: LexicalIndex
    by_id: dict[str, Chunk]

    def passages(self, question: str) -> list[Passage]:
        found = self.index.search(query_tokens(question), _PASSAGES)
        return [make_passage(self.by_id[id], score) for id, score in found]


class _Prompter:
    """Renders what is asked as it is served."""

    def __init__(self, base: BaseModel, search: _Search, answer_tokens: int) -> None:
        self._search = search
        self._tokenizer = Tokenizer.from_file(str(base.folder / "tokenizer.json"))
        self._room = min(_PROMPT_TOKENS, base.context_length // 2)
        short = min(answer_tokens, 32)
        self._limits = {"about": answer_tokens, "recall": short, "secret": short, "file": 2 * answer_tokens}
        self._limit = min(answer_tokens, 48)

    def prompt(self, asked: Asked, with_passages: bool) -> Prompted:
        limit = self._limits.get(asked.kind, self._limit)
        if asked.kind == "secret":
            return Prompted(text=asked.question, max_tokens=limit)
        if asked.kind == "canary":
            return Prompted(messages=({"role": "user", "content": asked.question},), max_tokens=limit)
        passages: Sequence[Passage] = self._search.passages(asked.question) if with_passages else ()
        prompt = render_prompt(Question(asked.question), passages, self._count, self._room)
        return Prompted(messages=tuple(asdict(turn) for turn in prompt.messages), max_tokens=limit)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
