"""Questions about pages, pull requests and commits, answered by their own words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from indexer.chunking import Chunk, chunk_text
from trainer.facts import first_sentence
from trainer.sources.document import Document
from trainer.talk import Talk, ask, pick

EXPLAIN = (
    "Explain to me how {title} is used in `{repository}`.",
    "Explain {title} in `{repository}` to me.",
    "What do I have to know about {title} in `{repository}`?",
    "Tell me everything that the {where} of `{repository}` says about {title}.",
)
SECTION = (
    "What does the page {title} say about {heading}?",
    "{title}: how does {heading} work in `{repository}`?",
    "How do I go about {heading} in `{repository}`?",
    "Why does {title} have a part about {heading}, and what does it say?",
)
WHICH_PAGE = (
    "Which page of the {where} of `{repository}` is about {heading}?",
    "Where in the {where} of `{repository}` do I read about {heading}?",
)
OVERVIEW = (
    "What is the page {title} of `{repository}` about?",
    "Summarise the page {title} for me.",
    "What do I find on the page {title}?",
)
PULL = (
    "What does {name} of `{repository}` change?",
    "Why was {name} made?",
    "Summarise {name} for me.",
    "What was {name} about?",
)
CHANGE = (
    "Make this change in `{repository}`: {asked}",
    "How would you write this in `{repository}`? {asked}",
    "{asked}\n\nShow me the diff for `{repository}`.",
)
REVIEWED = (
    "A reviewer of `{repository}` says: {asked}\n\nWhat do you change?",
    "Answer this review comment with a diff: {asked}",
)
_FIELD = re.compile(r"^(?:Description|URL|Created at|Merged at|File): ?", re.MULTILINE)
_FILE = re.compile(r"^File: (.+?), Status: ", re.MULTILINE)
_CHANGED = frozenset({"commit", "review"})
_MAX_SECTION_CHARS = 3_000


def explain(page: Document, answer: str, repository: str) -> Talk:
    """The instruction of a page: its own text answers it."""
    words = {"title": page.title, "repository": repository, "where": page.kind}
    return ask("page-question", page.source_id, pick(EXPLAIN, page.source_id).format(**words), answer)


def restate_page(page: Document, repository: str, most: int) -> Iterator[Talk]:
    """At most `most` questions about a page: an overview, and what each of its headings says."""
    sections = [chunk for chunk in chunk_text(page.title, page.text, "markdown") if chunk.symbol]
    words = {"title": page.title, "repository": repository, "where": page.kind}
    made: list[Talk] = []
    lead = first_sentence(re.sub(r"^#.*$", "", page.text, flags=re.MULTILINE))
    headings = list(dict.fromkeys(_heading(chunk) for chunk in sections if _heading(chunk) != page.title))
    if lead or headings:
        parts = [lead] if lead else []
        parts += ["It has these parts:\n" + "\n".join(f"- {heading}" for heading in headings[:20])] if headings else []
        question = pick(OVERVIEW, page.source_id).format(**words)
        made.append(ask("restatement", page.source_id, question, "\n\n".join(parts)))
    for chunk in sections:
        heading = _heading(chunk)
        body = chunk.text.split("\n", 1)[1].strip() if chunk.text.startswith("#") and "\n" in chunk.text else ""
        if not body or heading == page.title or len(body) > _MAX_SECTION_CHARS:
            continue
        marks = (page.source_id, chunk.symbol)
        made.append(ask("restatement", page.source_id, pick(SECTION, *marks).format(**words, heading=heading), body))
        answer = f"{page.title} ({chunk.symbol})."
        made.append(
            ask("restatement", page.source_id, pick(WHICH_PAGE, *marks).format(**words, heading=heading), answer)
        )
    yield from made[:most]


def restate_pull(pull: Document, repository: str) -> Iterator[Talk]:
    """What a pull request changes, and why."""
    name = pull.source_id.replace("pr:", "PR #", 1) if pull.source_id.startswith("pr:") else pull.title
    files = list(dict.fromkeys(_FILE.findall(pull.text)))
    parts = [pull.title, _description(pull.text)]
    if files:
        more = f"\n- and {len(files) - 20} more" if len(files) > 20 else ""
        parts.append("It changes:\n" + "\n".join(f"- `{path}`" for path in files[:20]) + more)
    question = pick(PULL, pull.source_id).format(name=name, repository=repository)
    yield ask("restatement", pull.source_id, question, "\n\n".join(filter(None, parts)))


def change_talk(change: Document, repository: str) -> Iterator[Talk]:
    """What was asked (a commit message, a review comment), answered by the diff that followed: the house's style."""
    if change.kind in _CHANGED and change.asked.strip() and change.answered.strip():
        templates = REVIEWED if change.kind == "review" else CHANGE
        question = pick(templates, change.source_id).format(repository=repository, asked=change.asked.strip())
        yield ask("change", change.source_id, question, f"```diff\n{change.answered.rstrip()}\n```")


def _heading(chunk: Chunk) -> str:
    return chunk.symbol.rsplit(" > ", 1)[-1].strip(" `*_")


def _description(text: str) -> str:
    """The description of a pull request, without what follows it."""
    start = re.search(r"^Description: ?", text, re.MULTILINE)
    if start is None:
        return ""
    end = _FIELD.search(text, start.end())
    return text[start.end() : end.start() if end else len(text)].strip()[:2_000]
