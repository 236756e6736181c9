"""The wiki: a git repository that is fetched, or a folder; one document a page, with the date of its last change."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

from indexer.files import SourceFile, judge_content, judge_name
from indexer.secrets import mask_secrets
from trainer.sources.cleaning import clean_prose
from trainer.sources.document import Document
from trainer.sources.documentation import MARKUP, last_changes
from trainer.sources.gathering import Gathering
from trainer.sources.history import History, NoHistory

_MAX_PAGE_BYTES = 1_000_000
_FETCH_TIMEOUT_S = 600
_BRANCH = "refs/heads/pages"
_URL = re.compile(r"(?:https?|ssh|git|file)://\S+$|[\w.-]+@[\w.-]+:\S+$")
_NO_PAGES = re.compile(r"couldn't find remote ref|empty repository", re.IGNORECASE)
_NOT_THERE = re.compile(
    r"not found|does not exist|does not appear to be|could not read username|authentication failed|denied",
    re.IGNORECASE,
)


class WikiFailed(Exception):
    """The wiki cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it lies there: `path` below the wiki, "/"; `date` of its last change, UTC."""

    path: str
    content: bytes
    date: datetime


@dataclass(frozen=True, slots=True)
class WikiSource:
    """Where a wiki is: `place` a git URL or a folder, `web` what the address of a page begins with, "" for none."""

    place: str
    web: str = ""

    @property
    def is_url(self) -> bool:
        return bool(_URL.match(self.place))


def find_wiki(wiki: str, github: str, github_url: str) -> WikiSource | None:
    """What the settings name; None for no wiki. Raises `WikiFailed`."""
    if not wiki:
        return None
    if wiki != "github":
        return WikiSource(wiki)
    if not github:
        raise WikiFailed('wiki: "github" needs [trainer] github: set owner/name')
    parts = urlsplit(github_url)
    host = (parts.hostname or "").removeprefix("api.") if parts.path in ("", "/") else parts.netloc
    web = f"{parts.scheme}://{host}/{github}"
    return WikiSource(f"{web}.wiki.git", f"{web}/wiki")


def gather_wiki(source: WikiSource, copy: Path, token: str, gathering: Gathering) -> None:
    """A document for each page of the wiki, as of `gathering.until`. Without the network the copy that was fetched
    before; a wiki that cannot be had is a notice.
    """
    try:
        if source.is_url:
            fetch_wiki(source.place, copy, token)
    except WikiFailed as error:
        gathering.notice(f"wiki: {error}" + ("; the copy fetched before is used" if copy.exists() else ""))
        if not copy.exists():
            return
    folder = copy if source.is_url else Path(source.place).expanduser()
    try:
        pages = sorted(_pages(folder, _BRANCH if source.is_url else "HEAD", gathering), key=lambda page: page.path)
    except WikiFailed as error:
        gathering.notice(f"wiki: {error}")
        return
    before = len(gathering.documents)
    for page in pages:
        _take(page, source, gathering)
    if len(gathering.documents) == before:
        gathering.notice("wiki: it has no page to learn from")


def fetch_wiki(url: str, copy: Path, token: str = "") -> None:
    """Bring the bare repository `copy` up to `url`; killed at any point, what was there is whole. Raises `WikiFailed`.

    With `token`, and over https, as GitHub wants it: through git's environment, which no list of processes shows.
    """
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staging = copy.with_name(f".{copy.name}.part")
    target = copy if (copy / "HEAD").exists() else staging
    if target is staging:
        shutil.rmtree(staging, ignore_errors=True)
        _git(copy.parent, "init", "--quiet", "--bare", str(staging))
    # Left by a git that was killed; nobody else fetches here.
    (target / f"{_BRANCH}.lock").unlink(missing_ok=True)
    fetch = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--end-of-options", url, f"+HEAD:{_BRANCH}")
    _git(target, *fetch, **_authorised(url, token))
    if target is staging:
        shutil.rmtree(copy, ignore_errors=True)
        staging.replace(copy)


def _git(folder: Path, *arguments: str, **environment: str) -> None:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=20", "LC_ALL": "C"}
    # A line that stands still is given up; `ext::` would run a program.
    limits = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60", "-c", "protocol.ext.allow=never")
    command = ["git", *limits, "-c", "credential.interactive=false", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **quiet, **environment}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=_FETCH_TIMEOUT_S, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise WikiFailed("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise WikiFailed(f"git was not done after {_FETCH_TIMEOUT_S} s: resume later") from None
    if done.returncode:
        raise WikiFailed(_fault(done.stderr))


def _fault(said: str) -> str:
    if _NO_PAGES.search(said):
        return "it has no page yet"
    if _NOT_THERE.search(said):
        return "it is not there, or private: set GITHUB_TOKEN, or let git log in by itself"
    lines = [line for line in said.split("\n") if line.startswith(("fatal:", "error:"))] or ["git failed"]
    return f"resume later: {mask_secrets(lines[0]).text[:200]}"


def _authorised(url: str, token: str) -> dict[str, str]:
    if not token or not url.startswith("https://"):
        return {}
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{url}.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
    }


def _pages(folder: Path, branch: str, gathering: Gathering) -> Iterator[Page]:
    """Raises `WikiFailed` when there is no such folder."""
    if not folder.is_dir():
        raise WikiFailed(f"{folder} is no folder and no URL of a git repository: look at [trainer] wiki")
    history = History(folder)
    try:
        at = history.commit_at(branch, gathering.until)
    except NoHistory:
        yield from _loose_pages(folder)
        return
    if at is None:
        return
    found = {path: content for path, content in history.files(at.sha, _MAX_PAGE_BYTES) if _is_page(path)}
    dates = last_changes(history, at.sha, list(found))
    for path, content in found.items():
        yield Page(path, content, dates.get(path, at.date))


def _loose_pages(folder: Path) -> Iterator[Page]:
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder).as_posix()
        if file.is_file() and not file.is_symlink() and _is_page(path) and file.stat().st_size <= _MAX_PAGE_BYTES:
            yield Page(path, file.read_bytes(), datetime.fromtimestamp(int(file.stat().st_mtime), UTC))


def _is_page(path: str) -> bool:
    """Written in a markup language, and neither hidden nor the side bar or foot of every page."""
    *folders, name = path.split("/")
    return name.rpartition(".")[2].lower() in MARKUP and not any(p.startswith((".", "_")) for p in (*folders, name))


def _take(page: Page, source: WikiSource, gathering: Gathering) -> None:
    judged = judge_content(page.path, page.content)
    reason = judge_name(page.path) or (None if isinstance(judged, SourceFile) else judged.reason)
    if reason or not isinstance(judged, SourceFile):
        gathering.leave_out(reason or "")
        return
    done = clean_prose(judged.text)
    name = page.path.rpartition(".")[0]
    # A wiki's page is called as its file is: GitHub writes spaces as "-", and a heading of its own is not needed.
    title = name.rpartition("/")[2].replace("-", " ")
    url = f"{source.web}/{quote(name.rpartition('/')[2])}" if source.web else ""
    gathering.take(
        Document(f"wiki:{name}", "wiki", title, done.text, page.date, url, masked=done.masked, stripped=done.stripped)
    )
