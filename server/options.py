"""The options that commands of the front door share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace", "-w", help="The repository. Default: the nearest folder with nightschool.toml or .git."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
