"""The edge to editors: the language server's start over stdio. Stdout is the protocol; nothing here prints.

`nightschool lsp` or `python -m server.lsp --workspace PATH`. The handlers are in `lsp_handlers`.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path

from server.lsp_hello import early_answer, read_first, write_now
from server.lsp_wire import claim_stdout


def serve_stdio(fallback: Path | None = None) -> int:
    """Serve one editor over stdin and stdout until it leaves; the exit code. `fallback`: where it names no folder."""
    stdout = claim_stdout()
    first, framing = read_first(0)
    if first is None:
        return 1
    answer = early_answer(first)
    if answer is not None:
        write_now(stdout, answer)
    # The imports make nothing but what stays; looking for garbage in between costs a tenth of them.
    gc.disable()
    from server.lsp_handlers import serve

    gc.freeze()
    gc.enable()
    return serve(fallback, stdout, framing, first, is_answered=answer is not None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nightschool lsp", description="the language server, over stdio")
    parser.add_argument("--workspace", type=Path, help="the folder for an editor that names none")
    parser.add_argument("--stdio", action="store_true", help="accepted, as editors append it; there is nothing else")
    options = parser.parse_args(arguments)
    return serve_stdio(options.workspace.resolve() if options.workspace else None)


if __name__ == "__main__":
    sys.exit(main())
