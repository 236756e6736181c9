"""The token for GitHub, from the environment or a file that only its owner reads; never logged, sent to one host."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from trainer.settings import TrainerSettings

URL_VARIABLE = "NIGHTSCHOOL_TRAINER__GITHUB_URL"
_TOKEN = re.compile(r"[A-Za-z0-9_.\-]{10,400}$")


class BadToken(Exception):
    """The token cannot be used; the message says what to do and never holds the token."""


def read_token(settings: TrainerSettings, environment: Mapping[str, str] = os.environ) -> str:
    """The token, "" where there is none. Raises `BadToken`.

    `nightschool.toml` comes with the repository, so it alone must not say where a token goes: to a host that is not
    GitHub's own it goes only when the environment names that host too.
    """
    token = environment.get(settings.github_token_variable, "").strip() or _from_file(settings.github_token_file)
    if not token:
        return ""
    if not _TOKEN.match(token):
        raise BadToken("the GitHub token is no token (letters, digits, _ . - in one line): look at where it is kept")
    parts = urlsplit(settings.github_url)
    host = parts.hostname or ""
    is_githubs = host == "api.github.com" or host.endswith(".ghe.com")
    if not is_githubs and environment.get(URL_VARIABLE) != settings.github_url:
        raise BadToken(f"no token is sent to {host}, since only nightschool.toml names it: set {URL_VARIABLE} too")
    if parts.scheme != "https" and host not in ("127.0.0.1", "localhost", "::1"):
        raise BadToken(f"no token is sent to {host} without encryption: use https in [trainer] github_url")
    return token


def _from_file(name: str) -> str:
    if not name:
        return ""
    file = Path(name).expanduser()
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise BadToken(f"others may read {file}: chmod 600 {file}")
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadToken(f"{file}, which [trainer] github_token_file names, cannot be read: {error}") from error
