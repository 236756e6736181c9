"""A Chroma server: its address, whose it is for us there, and the key that it or the proxy before it demands."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from indexer.settings import IndexerSettings


class NoKey(Exception):
    """The key cannot be had, or may not be sent; the message says why, without it."""


@dataclass(frozen=True, slots=True)
class ChromaServer:
    """`address`: http(s)://host:port; `headers` hold the key and are shown nowhere."""

    address: str
    tenant: str = "default_tenant"
    database: str = "default_database"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def server_of(settings: IndexerSettings) -> ChromaServer | None:
    """The server that the settings name; None for an embedded Chroma. Raises `NoKey`."""
    if not settings.chroma:
        return None
    key = _key(settings)
    if key and not _is_private(settings.chroma):
        raise NoKey("a key goes to an https:// address or to this machine only: change [indexer] chroma")
    header = settings.chroma_key_header
    headers = {header: f"Bearer {key}" if header.lower() == "authorization" else key} if key else {}
    return ChromaServer(settings.chroma, settings.chroma_tenant, settings.chroma_database, headers)


def _key(settings: IndexerSettings) -> str:
    if settings.chroma_key_file is None:
        return settings.chroma_key.get_secret_value()
    file = Path(settings.chroma_key_file).expanduser()
    try:
        if (mode := file.stat().st_mode & 0o777) & 0o077:
            raise NoKey(f"{file} can be read by others (mode {mode:o}): chmod 600 {file}")
        key = file.read_text("ascii").strip()
    except OSError as error:
        raise NoKey(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise NoKey(f"{file} holds no key: it is not ASCII") from error
    if not key.isprintable() or not key or " " in key:
        raise NoKey(f"{file} holds no key: one line without spaces is one")
    return key


def _is_private(address: str) -> bool:
    """Does what is sent there stay unread on the way?"""
    url = urlsplit(address)
    if url.scheme == "https" or url.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.hostname or "").is_loopback
    except ValueError:
        return False
