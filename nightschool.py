"""The front door: parses, opens doors, calls, prints. No logic. What is heavy is imported where it is needed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.workspace import find_workspace
from nightschool_corpus import check, corpus_app, show_collected
from nightschool_demo import demo
from nightschool_training import FRONT, base_model, choose_model, collect_corpus, train_adapter, trainer_settings_of
from server.adapter_commands import adapters_app, loss_line
from server.backup_commands import backup, restore
from server.doctor_command import doctor
from server.feedback_commands import feedback_app
from server.fleet_commands import fleet_app
from server.forget_command import forget
from server.mcp_command import mcp
from server.options import JsonOption, WorkspaceOption
from server.team_commands import team_app
from server.ui_command import open_page
from trainer.fleet_night_command import add_fleet_night
from trainer.night_command import add_night
from trainer.serve_command import print_backend_unit
from trainer.sweep_command import add_sweep

if TYPE_CHECKING:
    from collections.abc import Iterator


# Private by default: no command of ours lets a library report anything or look for anything on the network by itself.
QUIET = {
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    # And quiet: bars for weights that load in a blink would stand between the user and our own progress.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
# What typer makes of Ctrl-C.
INTERRUPTED = 130
OUR_PACKAGES = ("indexer", "server", "trainer")

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)


@app.callback()
def about() -> None:
    """A coding assistant that studies your repository at night and answers from its current code by day.

    Everything runs on this machine. `nightschool COMMAND --help` shows examples.
    """


@app.command()
def init(workspace: WorkspaceOption = None) -> None:
    """Write nightschool.toml with every setting, its meaning and its default, all commented out.

    Examples: `nightschool init`, `nightschool init --workspace ~/src/app`
    """
    from indexer.fleet_settings import FleetSettings
    from indexer.settings import IndexerSettings, SectionSettings, write_defaults
    from server.settings import ServerSettings
    from trainer.corpus_settings import CorpusSettings
    from trainer.settings import TrainerSettings

    sections: list[type[SectionSettings]] = [IndexerSettings, FleetSettings, ServerSettings]
    sections += [TrainerSettings, CorpusSettings]
    print(f"wrote {write_defaults(find_workspace(workspace), sections)}")


@app.command()
def index(
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    explain: Annotated[str | None, typer.Option(help="Say why this file is or is not in the index.")] = None,
) -> None:
    """Bring the index up to the working tree. Interrupted, it goes on where it stopped.

    Examples: `nightschool index`, `nightschool index --explain src/app.py`
    """
    from server.console import fail, out, print_table
    from server.local import explain_file, index_line, update_index

    place = find_workspace(workspace)
    if explain is not None:
        why = asyncio.run(explain_file(place, explain))
        print(json.dumps({"path": explain, "why": why})) if as_json else out.print(why)
        return
    report = asyncio.run(update_index(place))
    if fault := report.get("store_fault"):
        fail(f"searches find by words only: {fault}")
    if as_json:
        print(json.dumps(report))
        raise typer.Exit(int(bool(fault or report["failed"])))
    print(index_line(report))
    skipped = sorted(report["skipped"].items(), key=lambda item: -item[1])
    if skipped:
        print_table("not indexed", ["reason", "files"], [[reason, str(count)] for reason, count in skipped])
    if report["failed"]:
        print_table("failed", ["repository", "why"], list(report["failed"].items()))
    raise typer.Exit(int(bool(fault or report["failed"])))


@app.command()
def search(
    query: Annotated[str | None, typer.Argument(help="What to look for: words, a symbol, a question.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=200, help="How many passages.")] = 10,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Queries on stdin, one a line; one JSON object a line.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the passages that answer a query.

    Examples: `nightschool search "where are retries configured"`, `nightschool search --jsonl < queries.txt`
    """
    from server.console import print_passages, say
    from server.local import open_search

    if (query is None) == (not jsonl):
        raise typer.BadParameter("give a QUERY, or --jsonl with queries on standard input")

    async def run() -> None:
        async with open_search(find_workspace(workspace)) as find:
            for line in _lines(query):
                found = await find(line, k)
                if "notice" in found:
                    say(found["notice"])
                print(json.dumps(found), flush=True) if jsonl or as_json else print_passages(found["passages"])

    asyncio.run(run())


@app.command()
def collect(
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    only_check: Annotated[
        bool,
        typer.Option("--check", help="Make none: look for leaks in the newest one; exit code 1 when there is one."),
    ] = False,
) -> None:
    """Write the corpus: what tonight's training would read, with a ledger of every example's source.

    Examples: `nightschool collect`, `nightschool collect --check`, then `nightschool corpus show`
    """
    place = find_workspace(workspace)
    if only_check:
        check(place, as_json)
        return
    report = collect_corpus(place, base_model(place))
    print(json.dumps(report, default=str)) if as_json else show_collected(report)


@app.command()
def train(
    workspace: WorkspaceOption = None,
    budget: Annotated[float | None, typer.Option(min=0.1, help="Stop cleanly after this many MINUTES.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model; default: [server] model.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter on the newest corpus and put it in service. Interrupted, what is in service stays as it was.

    Examples: `nightschool train --budget 10`
    """
    choose_model(model)
    place = find_workspace(workspace)
    adapter = train_adapter(place, base_model(place), budget)
    if as_json:
        print(adapter.manifest.model_dump_json())
        return
    print(f"in service: {adapter.folder}")
    print(loss_line(adapter))


@app.command()
def serve(
    workspace: WorkspaceOption = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default: [server] port, or a free one.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model; default: [server] model.")] = None,
    nightly: Annotated[str | None, typer.Option(help="HH:MM in UTC: a night begins then, by itself.")] = None,
    systemd: Annotated[bool, typer.Option("--systemd", help="Print a system service that runs this.")] = False,
) -> None:
    """Run the backend: index, watcher, engine and HTTP on loopback, until Ctrl-C.

    Examples: `nightschool serve`, `nightschool serve --port 8765`, `nightschool serve --nightly 02:30`, `nightschool
    serve --systemd --port 8765`
    """
    if systemd:
        print_backend_unit(find_workspace(workspace), {"port": port, "model": model, "nightly": nightly})
        return
    from server.restore import finish_restore
    from server.run import run_backend
    from trainer.schedule import nights_of

    choose_model(model)
    if port is not None:
        os.environ["NIGHTSCHOOL_SERVER__PORT"] = str(port)
    place = find_workspace(workspace)
    finish_restore(place)
    trainer_settings = trainer_settings_of(place)
    nights = nights_of(place, nightly or trainer_settings.nightly, trainer_settings.nightly_grace_hours)
    run_backend(place, nights)


@app.command()
def stop(workspace: WorkspaceOption = None) -> None:
    """End the backend of this workspace, with its engine."""
    from server.client import stop_backend

    stopped = stop_backend(find_workspace(workspace))
    print("stopped" if stopped else "no backend was running")


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    retrieval: Annotated[bool, typer.Option(help="Search the index for passages.")] = True,
    adapter: Annotated[str | None, typer.Option(help="A kept version, or `none` for the bare base model.")] = None,
    path: Annotated[str | None, typer.Option(help="A file the question is about, relative to the workspace.")] = None,
) -> None:
    """Ask about the code. Starts the backend if it is not running.

    Examples: `nightschool ask "Where is the token checked?"`, `nightschool ask --adapter none --json "..."`
    """
    from server.asking import ask_and_show, wait_until_ready
    from server.client import start_backend
    from server.console import say

    body = {"question": question, "retrieval": retrieval, "adapter": adapter, "path": path}

    async def run() -> None:
        async with await start_backend(find_workspace(workspace), say) as backend:
            await wait_until_ready(backend)
            await ask_and_show(backend, body, as_json)

    asyncio.run(run())


@app.command()
def lsp(
    workspace: WorkspaceOption = None,
    stdio: Annotated[bool, typer.Option("--stdio", help="The only way; for editors.")] = True,
) -> None:
    """Run the language server on standard input and output; editors start it."""
    from server.lsp import serve_stdio

    sys.exit(serve_stdio(workspace))


def main() -> None:
    """Run the command line. Our own errors are one line on stderr and exit code 1; wrong usage is 2."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    # On a processor with bfloat16 it warns of a kernel that it would fetch from the Hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if sys.argv[1:2] == ["lsp"] and "--help" not in sys.argv:
        # Editors wait for it: not through typer's building of every other command.
        from server.lsp import main as serve_editor

        sys.exit(serve_editor(sys.argv[2:]))
    try:
        app()
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        _end("interrupted; what was finished is kept")
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if type(error).__module__.split(".")[0] not in OUR_PACKAGES and not isinstance(error, OSError):
            raise
        _end(str(error))


def _end(message: str) -> None:
    from server.console import fail

    fail(message)
    sys.exit(1)


def _lines(query: str | None) -> Iterator[str]:
    if query is not None:
        yield query
        return
    for line in sys.stdin:
        if line.strip():
            yield line.rstrip("\n")


# Help lists commands in this order after those above, then the groups: what one user does, the nights, an admin.
app.command()(demo)
app.command("ui")(open_page)
app.command()(mcp)
add_night(app, FRONT)
add_sweep(app, FRONT)
app.add_typer(corpus_app, name="corpus")
app.add_typer(adapters_app, name="adapters")
app.add_typer(feedback_app, name="feedback")
app.command()(doctor)
app.command()(forget)
app.command()(backup)
app.command()(restore)
app.add_typer(team_app, name="team")
app.add_typer(fleet_app, name="fleet")
add_fleet_night(fleet_app, FRONT)


if __name__ == "__main__":
    main()
