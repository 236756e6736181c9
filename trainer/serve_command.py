"""`nightschool serve --systemd`: the backend's unit, printed."""

from __future__ import annotations

from collections.abc import Mapping

from indexer.workspace import Workspace
from trainer.schedule import read_time
from trainer.units import backend_unit


def print_backend_unit(place: Workspace, options: Mapping[str, str | int | None]) -> None:
    """Print a unit for `nightschool serve` with those `options` (name -> value) that are set. Raises `BadTime`."""
    if (nightly := options.get("nightly")) is not None:
        read_time(str(nightly))
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    name, text = backend_unit(place, words)
    print(f"# /etc/systemd/system/{name}.service\n{text}")
    print("# Only .nightschool can be written there, so make it first: nightschool index")
    print(f"# then: systemctl daemon-reload && systemctl enable --now {name}.service")
