"""`nightschool demo`: the whole loop on one repository. What is heavy is imported where it is needed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from indexer.workspace import find_workspace
from nightschool_training import base_model, choose_model, collect_corpus, train_adapter
from server.adapter_commands import loss_line


def demo(
    path: Annotated[Path, typer.Argument(help="The repository.")] = Path(),
    model: Annotated[str, typer.Option(help="Base model.")] = "auto",
    budget: Annotated[float, typer.Option(min=0.1, help="MINUTES of training.")] = 3.0,
    question: Annotated[
        str, typer.Option(help="What to ask at the end.")
    ] = "What does this repository do, and where does it start?",
    once: Annotated[bool, typer.Option("--once", help="End the backend after the answer.")] = False,
) -> None:
    """The whole loop on PATH: index, collect, train, serve, ask.

    Examples: `nightschool demo --once`, `nightschool demo ~/src/app --budget 10 --question "Where are retries set?"`
    """
    from server.asking import ask_and_show, wait_until_ready
    from server.client import page_address, start_backend, stop_backend
    from server.console import out, say
    from server.local import index_line, update_index

    place = find_workspace(path)
    choose_model(model)
    started = time.monotonic()

    def step(name: str) -> None:
        say(f"[{time.monotonic() - started:4.0f} s] {name}")

    step(f"1/5 index {place.root}")
    report = asyncio.run(update_index(place))
    print(index_line(report))
    step("2/5 collect")
    base = base_model(place)
    corpus = collect_corpus(place, base)
    print(f"{corpus['raw_examples']} raw and {corpus['chat_examples']} chat examples of {corpus['files']} files")
    step(f"3/5 train {base.name}, {budget:g} minutes")
    adapter = train_adapter(place, base, budget)
    print(loss_line(adapter))

    async def serve_and_ask() -> None:
        step("4/5 serve")
        async with await start_backend(place, say) as backend:
            await wait_until_ready(backend, adapter.version)
            step(f"5/5 ask: {question}")
            await ask_and_show(backend, {"question": question}, as_json=False)
            if not once:
                out.print(
                    f"\nThe backend runs at {backend.url} (token: {place.state / 'token'}). `nightschool stop` ends it."
                )
                page = page_address(place, backend.url) if out.is_terminal else "nightschool ui opens it"
                out.print(f"Its page: {page}")

    try:
        asyncio.run(serve_and_ask())
    finally:
        if once:
            stop_backend(place)
    step("done")
