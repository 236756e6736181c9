"""What two adapters differ in, by their manifests. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from server.adapter import Manifest

# What differs between any two adapters says nothing.
_ALWAYS = {"version", "created_at", "files", "seconds"}


@dataclass(frozen=True, slots=True)
class Row:
    """One field, dotted (`hyper_parameters.rank`), and its value in each; None where it has none."""

    field: str
    one: Any
    other: Any


def differences(one: Manifest, other: Manifest) -> list[Row]:
    """The fields of two manifests that are not equal, by name."""
    left, right = (dict(_flat(manifest.model_dump(mode="json", exclude=_ALWAYS))) for manifest in (one, other))
    return [
        Row(field, left.get(field), right.get(field))
        for field in sorted(left | right)
        if left.get(field) != right.get(field)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
