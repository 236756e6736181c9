"""The workspace's git history, by the `git` command: which commit, its files, what changed last and what came after."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

# A repository's own configuration can name programs that git would run (fsmonitor, gpg, textconv, external diff).
_GIT = (
    "git",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "log.showSignature=false",
    "-c",
    "safe.directory=*",
    "-c",
    "core.quotepath=false",
)
_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+(\d+)(?:,(\d+))? @@")


class NoHistory(Exception):
    """There is no git history to read; the message says why."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: full hash, and when it was committed (UTC)."""

    sha: str
    date: datetime


@dataclass(frozen=True, slots=True)
class ToldChange:
    """A commit with its message: full hashes (`parents`, the first is the main line's), date of commit, UTC."""

    sha: str
    parents: tuple[str, ...]
    author: str
    email: str
    date: datetime
    message: str


@dataclass(frozen=True, slots=True)
class AddedLines:
    """Lines `[start, end]` (1-based, inclusive) of `path`, as the newer commit has it, that the older one has not."""

    path: str
    start: int
    end: int


class History:
    """The history of the repository at `root`, or of the part of a repository that lies in that folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def head(self) -> Commit:
        """The commit that is checked out. Raises `NoHistory` without git, a repository or a commit."""
        return self.commit("HEAD")

    def commit(self, name: str) -> Commit:
        """The commit called `name`. Raises `NoHistory`."""
        line = self._run("log", "-1", "--format=%H %ct", name, "--").strip()
        if not line:
            raise NoHistory(f"{self._root}: no commit {name}")
        return _commit(line)

    def commit_at(self, name: str, until: datetime | None) -> Commit | None:
        """The newest commit of the main line of `name` that is not newer than `until`; None when all are."""
        newest = self.commit(name)
        if until is None or newest.date <= until:
            return newest
        before = f"--before={until.isoformat()}"
        line = self._run("log", "-1", "--first-parent", "--format=%H %ct", before, name, "--").strip()
        return _commit(line) if line else None

    def recent(self, count: int, until: str = "HEAD") -> list[Commit]:
        """The last `count` commits of the main line up to `until`, newest first."""
        text = self._run("log", f"-{count}", "--first-parent", "--format=%H %ct", until, "--", ".")
        return [_commit(line) for line in text.splitlines()]

    def files(self, commit: str, max_bytes: int) -> Iterator[tuple[str, bytes]]:
        """Path ("/", relative to the root) and bytes of every plain file at `commit`, those over `max_bytes` left
        out.
        """
        listed = [entry.split("\t", 1) for entry in self._run("ls-tree", "-rlz", commit, ".").split("\0") if entry]
        wanted = [(path, *head.split()) for head, path in listed]
        plain = [
            (path, sha) for path, mode, _, sha, size in wanted if mode.startswith("100") and int(size) <= max_bytes
        ]
        with subprocess.Popen(
            [*_GIT, "cat-file", "--batch"], cwd=self._root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as batch:
            assert batch.stdin
            assert batch.stdout
            for path, sha in plain:
                batch.stdin.write(f"{sha}\n".encode())
                batch.stdin.flush()
                size = int(batch.stdout.readline().split()[2])
                yield path, batch.stdout.read(size + 1)[:-1]

    def changes(self, commit: str, count: int) -> dict[str, list[int]]:
        """For each path changed in the last `count` commits up to `commit`: how many commits ago, ascending, 0 the
        newest.
        """
        text = self._run(
            "log", f"-{count}", "--no-merges", "--format=%x01", "--name-only", "--relative", commit, "--", "."
        )
        changed: dict[str, list[int]] = {}
        for age, block in enumerate(text.split("\x01")[1:]):
            for path in filter(None, block.split("\n")):
                changed.setdefault(path, []).append(age)
        return changed

    def last_changed(self, commit: str, paths: Sequence[str]) -> dict[str, datetime]:
        """When each of `paths` was last changed on the main line up to `commit`, UTC."""
        missing = set(paths)
        dates: dict[str, datetime] = {}
        # A date line begins with \x01, which no path in `--name-only` does: git quotes it.
        command = ["log", "--first-parent", "-m", "--no-renames", "--name-only", "--relative", "--format=%x01%ct"]
        date = datetime.fromtimestamp(0, UTC)
        for line in self._lines(*command, commit, "--", *sorted({path.partition("/")[0] for path in paths})):
            if line.startswith("\x01"):
                date = datetime.fromtimestamp(int(line[1:]), UTC)
            elif line in missing:
                dates[line] = date
                missing.discard(line)
                if not missing:
                    break
        return dates

    def changes_told(self, commit: str, count: int, *, main_line: bool = False) -> Iterator[ToldChange]:
        """The last `count` commits up to `commit` that touch this folder, newest first: with `main_line` only what came
        to it (merges and squashes whole), else every commit but merges.
        """
        which = "--first-parent" if main_line else "--no-merges"
        form = "--format=%x01%H%x00%P%x00%an%x00%ae%x00%ct%x00%B%x00"
        text = self._run("log", f"-{count}", which, form, commit, "--", ".", errors="replace")
        for record in text.split("\0\n\x01"):
            sha, parents, author, email, seconds, message, *_ = (*record.lstrip("\x01").split("\0"), *[""] * 6)
            if sha:
                date = datetime.fromtimestamp(int(seconds), UTC)
                yield ToldChange(sha, tuple(parents.split()), author, email, date, message.strip())

    def diff(self, change: ToldChange, max_bytes: int) -> str | None:
        """What `change` did to this folder, against its first parent; None when that is longer than `max_bytes`.

        Bytes that are no UTF-8 become surrogates.
        """
        before = change.parents[:1] or ("--root",)
        arguments = (
            "-r -p -M --no-commit-id --no-color --no-ext-diff --no-textconv --relative --src-prefix=a/ --dst-prefix=b/"
        )
        with subprocess.Popen(
            [*_GIT, "diff-tree", *arguments.split(), *before, change.sha, "--", "."],
            cwd=self._root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            assert process.stdout
            read = process.stdout.read(max_bytes + 1)
            process.kill()
        return read.decode("utf-8", "surrogateescape") if len(read) <= max_bytes else None

    def between(self, older: str, newer: str) -> list[str]:
        """The commits that `newer` has and `older` has not."""
        return self._run("rev-list", newer, f"^{older}", "--").split()

    def line_dates(self, commit: str, path: str) -> list[int]:
        """When each line of `path` was last changed up to `commit`; seconds since 1970. Raises `NoHistory`."""
        text = self._run("blame", "--line-porcelain", commit, "--", path, errors="replace")
        return [int(line[15:]) for line in text.split("\n") if line.startswith("committer-time ")]

    def added_lines(self, older: str, newer: str) -> list[AddedLines]:
        """What `newer` has that `older` has not, by file and run of lines."""
        text = self._run(
            "diff", "--no-ext-diff", "--no-textconv", "--no-renames", "--relative", "-U0", older, newer, "--", ".",
            errors="replace",
        )  # fmt: skip
        return list(_read_hunks(text))

    def clone(self, commit: str, folder: Path) -> str:
        """Write `commit` into `folder`, as a repository of its own without remotes that borrows our objects; where this
        one's root lies in it ("" at the top). Raises `NoHistory`.
        """
        top, inside, *_ = self._run("rev-parse", "--show-toplevel", "--show-prefix").split("\n")
        self._run("clone", "--quiet", "--shared", "--no-checkout", "--no-tags", top, str(folder))
        other = History(folder)
        other._run("remote", "remove", "origin")
        other._run("-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "--detach", commit)
        return inside

    def tracks(self, path: str) -> bool:
        """Is the file at `path` committed, or about to be?"""
        try:
            return bool(self._run("ls-files", "--", path))
        except NoHistory:
            return False

    def _lines(self, *arguments: str) -> Iterator[str]:
        """What git prints, line by line, for as long as it is read."""
        with subprocess.Popen(
            [*_GIT, "--literal-pathspecs", *arguments],
            cwd=self._root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="surrogateescape",
        ) as process:  # fmt: skip
            assert process.stdout
            try:
                for line in process.stdout:
                    yield line.rstrip("\n")
            finally:
                process.kill()

    def subjects(self, older: str, newer: str) -> list[str]:
        """The first lines of the messages of the commits after `older` up to `newer`, the newest first."""
        return self._run("log", "--no-merges", "--format=%s", f"{older}..{newer}", "--", ".").splitlines()

    def removed_text(self, older: str, newer: str) -> str:
        """The lines that `older` has and `newer` has not, one after the other."""
        text = self._run(
            "diff", "--no-ext-diff", "--no-textconv", "--no-renames", "--relative", "-U0", older, newer, "--", ".",
            errors="replace",
        )  # fmt: skip
        return "\n".join(line[1:] for line in text.split("\n") if line.startswith("-") and not line.startswith("---"))

    def _run(self, *arguments: str, errors: str = "surrogateescape") -> str:
        try:
            done = subprocess.run([*_GIT, *arguments], cwd=self._root, capture_output=True, check=True)
        except FileNotFoundError:
            raise NoHistory("git is not installed") from None
        except subprocess.CalledProcessError as error:
            last = error.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise NoHistory(f"{self._root}: {last[0] if last else 'git failed'}") from error
        return done.stdout.decode("utf-8", errors)


def _commit(line: str) -> Commit:
    sha, seconds = line.split()
    return Commit(sha, datetime.fromtimestamp(int(seconds), UTC))


def _read_hunks(diff: str) -> Iterator[AddedLines]:
    path = ""
    for line in diff.split("\n"):
        if line.startswith("+++ "):
            path = line[6:].rstrip("\t\r") if line.startswith("+++ b/") else ""
        elif path and (found := _HUNK.match(line)):
            start, count = int(found[1]), int(found[2] or 1)
            if count:
                yield AddedLines(path, start, start + count - 1)
