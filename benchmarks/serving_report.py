"""`serving.md`: a section for each measurement, with date, machine and load; measuring again replaces it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import psutil

from indexer.workspace import write_atomically

TITLE = """# The server: what it adds, what it holds, and whether it stays so

Made by `./run bench serving speed|swap|adapters|soak --repository ITSDANGEROUS --markdown benchmarks/serving.md`; the
repository is itsdangerous 2.2.0, the model SmolLM2-135M. Machines differ and are shared: read the ratios and the
differences.
"""


def about_machine() -> str:
    """This machine now, in one line."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.+)$", info, re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().total / (1 << 30)
    matrix = " with AMX" if "amx_tile" in info else ""
    return f"{cores} of {os.cpu_count()} cores ({model[1] if model else 'unknown'}{matrix}), {memory:.0f} GiB"


def told(lines: Sequence[str], started: datetime, load_before: float, title: str) -> str:
    """A section of `serving.md`. `load_before`: of the minute before the measurement began."""
    until = datetime.now().astimezone()
    when = f"{started:%Y-%m-%d %H:%M} to {until:%H:%M}"
    about = f"{when}, {about_machine()}, load {load_before:.1f} before and {os.getloadavg()[0]:.1f} at the end."
    return "\n".join([f"## {title}", "", about, "", *lines]) + "\n"


def put_section(file: Path, section: str) -> None:
    """Write `section` into `file` in the place of the one with its title, or at the end."""
    text = file.read_text("utf-8") if file.exists() else TITLE
    title = section.splitlines()[0]
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    kept = [part.rstrip() + "\n" for part in sections]
    places = [n for n, part in enumerate(kept) if part.splitlines()[0] == title]
    if places:
        kept[places[0]] = section
    else:
        kept.append(section)
    write_atomically(file, "\n".join([head.rstrip() + "\n", *kept]))
