"""How good are the answers: 100 questions over two repositories whose answers the syntax tree gives, 40 about nothing.

usage: ./run bench answers write --runs FOLDER --model NAME [options] requests=TREE itsdangerous=TREE
       ./run bench answers report --runs FOLDER requests=TREE itsdangerous=TREE

`write` has a model write its completions, through the product's own search and prompt, into one file of FOLDER for each
configuration; it goes on where it stopped, and ends after --minutes. `report` prints the tables as Markdown, from those
files alone: nothing is generated again when a threshold changes. TREE is the unpacked source distribution of
requests 2.32.3 and itsdangerous 2.2.0 (`pip download --no-deps --no-binary :all: NAME==VERSION`). Of any other TREE
that `report` is given, it asks questions that a program makes of the syntax tree.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from answer_generated import generate_tasks
from answer_questions import Task, load_tasks
from answer_tables import print_generated, print_report

from indexer.index import Index, open_index
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from server.base_model import resolve_base_model
from server.doors import Doors
from server.generation import Engine, Finish, Sampling
from server.prompt import Question, render_prompt
from server.retrieval import Found, retrieve
from server.serving import Serving
from server.settings import ServerSettings

PASSAGES = 5
MAX_TOKENS = 64
CONTEXT = 1536
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Run:
    """One configuration: which weights, whether it reads passages, and how it is kept from repeating itself."""

    model: str
    adapter: str
    retrieval: bool
    penalty: float

    @property
    def file(self) -> str:
        name = Path(self.model).stem
        how = f"frequency{self.penalty}" if self.penalty else "plain"
        return f"{name}__{self.adapter}__{'passages' if self.retrieval else 'alone'}__{how}.jsonl"


def index_doors(index: Index) -> Doors:
    """The index as answering sees it; no model."""

    async def search(query: str, k: int, overlays: Any) -> Any:
        return await asyncio.to_thread(index.search, query, k, overlays)

    async def find_named(text: str, overlays: Any) -> Any:
        return await asyncio.to_thread(index.find_named, text, overlays)

    return Doors(search, lambda p: True, None, None, find_named, index.knows)  # type: ignore[arg-type]


async def write(run: Run, tasks: Sequence[Task], doors: dict[str, Doors], folder: Path, minutes: float) -> None:
    """Have the model answer `tasks`, in an order that makes every prefix a fair sample; append what it writes."""
    file = folder / run.file
    there = {json.loads(line)["number"] for line in file.read_text().splitlines()} if file.exists() else set()
    left = [task for task in sorted(tasks, key=lambda t: t.number * 37 % 101) if task.number not in there]
    deadline = time.monotonic() + minutes * 60
    workspace = Workspace(folder)
    settings = ServerSettings(engine_context=CONTEXT, eager=True)
    base = resolve_base_model(run.model, settings.models_cache, lambda text: print(text, file=sys.stderr))
    serving = Serving(workspace, settings, base)
    try:
        async with serving.borrow(run.adapter) as engine:
            print(f"{run.file}: {len(left)} questions", file=sys.stderr)
            queue = iter(left)
            with file.open("a") as out:
                await asyncio.gather(*(_answer_from(queue, run, engine, doors, out, deadline) for _ in range(AT_ONCE)))
    finally:
        await serving.stop()


async def _answer_from(
    queue: Any, run: Run, engine: Engine, doors: dict[str, Doors], out: Any, deadline: float
) -> None:
    for task in queue:
        if time.monotonic() > deadline:
            return
        started = time.monotonic()
        found = await retrieve(Question(task.text), PASSAGES, doors[task.repository]) if run.retrieval else Found(())
        sampling = Sampling(MAX_TOKENS, frequency_penalty=run.penalty)
        prompt = render_prompt(Question(task.text), found.passages, engine.count_tokens, CONTEXT - MAX_TOKENS - 32)
        text, finish = "", Finish("error", 0, 0)
        async with aclosing(engine.generate(prompt.messages, sampling)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    finish = piece
                else:
                    text += piece
        places = [(p.path, p.start_line) for p in found.passages]
        row = {"number": task.number, "text": text, "finish": asdict(finish), "seconds": time.monotonic() - started}
        row["passages"] = [asdict(p) for p in found.passages]
        row["read"] = [places.index((p.path, p.start_line)) + 1 for p in prompt.passages]
        print(json.dumps(row), file=out, flush=True)


@asynccontextmanager
async def open_doors(trees: dict[str, Path]) -> AsyncIterator[dict[str, Doors]]:
    """The doors to the index of every tree, which is brought up to date first."""
    with ExitStack() as stack:
        doors = {}
        for name, tree in trees.items():
            index = stack.enter_context(open_index(Workspace(tree.resolve()), IndexerSettings()))
            index.update()
            index.search("warm up", 1)
            doors[name] = index_doors(index)
        yield doors


async def main(arguments: argparse.Namespace) -> None:
    trees = {name: Path(tree) for name, _, tree in (one.partition("=") for one in arguments.trees)}
    tasks = load_tasks(trees)
    async with open_doors(trees) as doors:
        if arguments.what == "write":
            run = Run(arguments.model, arguments.adapter, not arguments.alone, arguments.penalty)
            asked = [task for task in tasks if task.kind != "nothing"]
            await write(run, asked, doors, arguments.runs, arguments.minutes)
        else:
            await print_report(tasks, doors, arguments.runs)
            for name in trees.keys() - {task.repository for task in tasks}:
                await print_generated(generate_tasks(name, trees[name], each=25), doors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "report"])
    parser.add_argument("trees", nargs="+", metavar="NAME=TREE")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the completions")
    parser.add_argument("--model", default="smollm2-135m", help="as [server] model")
    parser.add_argument("--adapter", default="none", help="a version in FOLDER/.nightschool/adapters")
    parser.add_argument("--alone", action="store_true", help="without passages")
    parser.add_argument("--penalty", type=float, default=0.0, help="frequency penalty")
    parser.add_argument("--minutes", type=float, default=7)
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    given.runs = given.runs.resolve()
    asyncio.run(main(given))
