"""Settings of the index, and how every package reads its own: `nightschool.toml`, then the environment, which wins."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from indexer.workspace import Workspace, write_atomically


class BadSettings(Exception):
    """A setting is unknown or out of range; the message names it. Nothing is ever replaced by a default."""


class SectionSettings(BaseSettings):
    """One section of `nightschool.toml`; `NIGHTSCHOOL_<SECTION>__<FIELD>` in the environment wins over the file."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)
    section: ClassVar[str]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    @classmethod
    def read(cls, workspace: Workspace) -> Self:
        """This section as it stands for `workspace`. Raises `BadSettings` with one line per fault."""
        unknown = sorted(
            name
            for name in os.environ
            if name.startswith(f"NIGHTSCHOOL_{cls.section.upper()}__")
            and name.split("__", 1)[1].lower() not in cls.model_fields
        )
        if unknown:
            raise BadSettings(f"the environment sets {', '.join(unknown)}, which nightschool does not know")
        with bad_settings(cls.section):
            return cls(**_read_table(workspace, cls.section))


@contextmanager
def bad_settings(section: str) -> Iterator[None]:
    """What pydantic finds wrong with a section, as `BadSettings` in one line."""
    try:
        yield
    except ValidationError as error:
        faults = "; ".join(f"[{section}] {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadSettings(f"nightschool.toml or the environment: {faults}") from error


def write_defaults(workspace: Workspace, sections: Sequence[type[SectionSettings]]) -> Path:
    """Write `nightschool.toml` with every field of `sections` commented out; the file's path. Raises `BadSettings`
    when there is one already: it is the user's."""
    if workspace.settings_file.exists():
        raise BadSettings(f"{workspace.settings_file} is there already: edit it, or move it away")
    lines = ["# Remove the # in front of what you change. The environment wins: NIGHTSCHOOL_<SECTION>__<FIELD>."]
    for section in sections:
        lines += ["", f"[{section.section}]"]
        for name, field in section.model_fields.items():
            default = field.get_default(call_default_factory=True)
            value = "" if default is None else json.dumps(default, default=str)
            lines += [f"# {field.description}", f"# {name} = {value}".rstrip()]
    write_atomically(workspace.settings_file, "\n".join(lines) + "\n")
    return workspace.settings_file


def _read_table(workspace: Workspace, section: str) -> dict[str, Any]:
    try:
        with workspace.settings_file.open("rb") as file:
            table = tomllib.load(file).get(section, {})
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{workspace.settings_file}: not valid TOML: {error}") from error
    if not isinstance(table, dict):
        raise BadSettings(f"{workspace.settings_file}: [{section}] must be a table")
    return table


class IndexerSettings(SectionSettings):
    """[indexer]"""

    section: ClassVar[str] = "indexer"
    model_config = SettingsConfigDict(env_prefix="NIGHTSCHOOL_INDEXER__", extra="forbid", frozen=True)

    embedder: str = Field(
        "word-vectors-1",
        description="word-vectors-1 (our own), all-MiniLM-L6-v2 (a package), or a sentence-transformers name",
    )
    max_file_bytes: int = Field(1_000_000, gt=0, description="files larger than this are not indexed; bytes")
    chroma: str = Field(
        "", description="empty: an embedded Chroma in .nightschool; or http://host:port of a Chroma server"
    )
    chroma_tenant: str = Field("default_tenant", min_length=1, description="whose the collections are on that server")
    chroma_database: str = Field("default_database", min_length=1, description="the database that they are in there")
    chroma_key: SecretStr = Field(
        SecretStr(""),
        description="the key that the server, or the proxy before it, demands; rather in the environment, as "
        "NIGHTSCHOOL_INDEXER__CHROMA_KEY, or in chroma_key_file, than in a file that is committed",
    )
    chroma_key_file: Path | None = Field(None, description="a file with that key, which only you can read (mode 0600)")
    chroma_key_header: str = Field(
        "X-Chroma-Token",
        pattern=r"^[A-Za-z0-9-]+$",
        description="the header that it is sent in; in Authorization it is sent as a bearer token",
    )
    ray: str = Field(
        "", pattern=r"^$|^local$|^(ray://)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$",
        description="where a large backlog is embedded: empty: here; local: a Ray cluster started here for it; "
        "host:port or ray://host:port of one that runs: chunks of your code go there",
    )  # fmt: skip
    ray_workers: int = Field(0, ge=0, description="workers to use of the Ray cluster; 0: one for each GPU, else CPU")
