"""Does a commit's subject find the files that the commit changed? Recall@10 and MRR, as Markdown.

usage: ./run bench commits NAME=GIT_DIR@DATE ... [--commits 200] [--most-files 4]

The tree of the last commit before DATE is indexed, and asked with the subject of each of the next commits that is no
merge and changes 1 to `--most-files` source files of that tree.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from unlabelled import Asked, ask, recall, reciprocal_rank, table

_SOURCE = re.compile(r"\.(py|pyi|ts|tsx|js|jsx|mjs|go|rs|java|kt|scala|rb|php|cs|c|h|cc|cpp|hpp|swift|exs?|sh|mdx?)$")
_NOISE = re.compile(r"^(merge|bump|revert|release|version|chore\(deps\)|update dependenc|v?\d+\.\d+)", re.IGNORECASE)


def commits_after(git_dir: Path, base: str, most_files: int) -> Iterator[Asked]:
    """The questions: subjects of at least three words, of commits after `base`, oldest first."""
    known = set(_git(git_dir, "ls-tree", "-r", "--name-only", base).splitlines())
    # --no-renames: a snapshot may lack the contents of files, which the search for renames compares.
    log = _git(
        git_dir, "log", "--reverse", "--no-merges", "--no-renames", "--format=%x00%s", "--name-only", f"{base}..HEAD"
    )
    for commit in log.split("\0")[1:]:
        subject, *files = [line for line in commit.splitlines() if line] or [""]
        changed = tuple(file for file in files if file in known and _SOURCE.search(file))
        if 1 <= len(changed) <= most_files and len(subject.split()) >= 3 and not _NOISE.search(subject):
            yield Asked(subject.strip(), changed)


def export(git_dir: Path, commit: str, tree: Path) -> None:
    """The commit's files under `tree`; what the repository has no object for (a partial clone) is left out."""
    names = _git(git_dir, "ls-tree", "-r", "--name-only", "-z", commit).split("\0")[:-1]
    command = ["git", "--git-dir", str(git_dir), "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as batch:
        assert batch.stdin
        assert batch.stdout
        for name in (name for name in names if "\n" not in name):
            batch.stdin.write(f"{commit}:{name}\n".encode())
            batch.stdin.flush()
            header = batch.stdout.readline().split()
            if header[-1] == b"missing":
                continue
            content = batch.stdout.read(int(header[-1]) + 1)[:-1]
            if header[-2] == b"blob":
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                (tree / name).write_bytes(content)
        batch.stdin.close()


def _git(git_dir: Path, *arguments: str) -> str:
    command = ["git", "--git-dir", str(git_dir), "-c", "core.quotePath=false", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="+", metavar="NAME=GIT_DIR@DATE")
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--most-files", type=int, default=4)
    options = parser.parse_args()
    tasks, windows = [], {}
    for one in options.repositories:
        name, _, place = one.partition("=")
        git_dir, _, date = place.rpartition("@")
        base = _git(Path(git_dir), "rev-list", "-1", f"--before={date}", "HEAD").strip()
        questions = list(islice(commits_after(Path(git_dir), base, options.most_files), options.commits))
        with tempfile.TemporaryDirectory() as folder:
            export(Path(git_dir), base, Path(folder))
            asked, windows[name] = ask(name, Path(folder), questions)
        tasks += asked
    print(table(tasks, windows, {"recall@10": recall, "MRR": reciprocal_rank}))


if __name__ == "__main__":
    main()
