"""`nightschool restore`: a backup back into its workspace, checked before anything changes; all of it, or nothing.

`.nightschool/restore/new` is filled and checked; writing `plan.json` is the point from which it happens; then each unit
changes places by a rename. Killed before that point nothing has changed; killed after it, the next start finishes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from indexer.fleet_settings import fleet_folder, is_fleet
from indexer.lock import IndexUnavailable, own_folder
from indexer.opening import index_folder
from indexer.quarantine import BadQuarantine, read_quarantine
from indexer.settings import BadSettings
from indexer.workspace import NIGHT_LOCK, Workspace, write_atomically
from server.adapter import MANIFEST, AdapterError, find_adapter, read_current
from server.adapter_files import digests
from server.backup_format import AUDIT_FILES, BackupError, Inventory, is_feedback, is_pointer, mode_of, unit_of
from server.backup_read import Contents, read_backup, skip
from server.base_model_cache import digest_file
from server.feedback import FEEDBACK_FILE, Feedback, FeedbackError

FOLDER = "restore"
PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did: units (a file, or an adapter's folder) that were put there, and those there already.

    `kept`: audit logs of the backup that were left out, because the workspace has written on its own.
    """

    contents: Contents
    restored: tuple[str, ...]
    same: tuple[str, ...]
    kept: tuple[str, ...] = ()


def list_backup(file: Path) -> Contents:
    """What is in a backup, all of it read and checked. Raises `BackupError`."""
    return read_backup(file, skip)


def restore(workspace: Workspace, file: Path, force: bool = False) -> RestoreReport:
    """Put what is in the backup `file` in its place; with `force` also where something else is.

    Adapters that are there and not in the backup stay. Raises `BackupError`, and then nothing was changed.
    """
    with _alone(workspace):
        _finish(workspace)
        folder = workspace.state / FOLDER
        try:
            contents = _unpack(file, folder / "new")
            _check(file, Workspace(folder / "new"), contents.inventory)
            units = sorted(
                {unit_of(name) for name in contents.inventory.files}, key=lambda unit: (is_pointer(unit), unit)
            )
            same = [unit for unit in units if _is_same(folder / "new" / unit, workspace.root / unit)]
            kept = _audit_that_stays(workspace, units)
            todo = [unit for unit in units if unit not in (*same, *kept)]
            _refuse_to_overwrite([unit for unit in todo if os.path.lexists(workspace.root / unit)], force)
            _make_room(workspace, todo)
            write_atomically(folder / PLAN, json.dumps(todo))
            _put_in_place(workspace, todo)
        except OSError as error:
            raise BackupError(f"{file} cannot be restored: {error.strerror or error}; nothing was changed") from error
        finally:
            _tidy(folder)
    return RestoreReport(contents, tuple(todo), tuple(same), tuple(unit for unit in kept if unit not in same))


def _audit_that_stays(workspace: Workspace, units: list[str]) -> list[str]:
    """The audit logs of the backup where there is one already: what is written down there is replaced by nothing."""
    has_one = any((workspace.root / name).exists() for name in AUDIT_FILES)
    return [unit for unit in units if unit in AUDIT_FILES] if has_one else []


def finish_restore(workspace: Workspace) -> None:
    """Finish what a killed restore left, if one did. Raises `BackupError` when it cannot be."""
    if (workspace.state / FOLDER).exists():
        with _alone(workspace):
            _finish(workspace)


def _finish(workspace: Workspace) -> None:
    folder = workspace.state / FOLDER
    try:
        units = json.loads((folder / PLAN).read_text("utf-8"))
    except FileNotFoundError:
        units = []
    try:
        _put_in_place(workspace, units)
    except OSError as error:
        raise BackupError(f"a restore was cut short and cannot be finished: {error}") from error
    _tidy(folder)


def _tidy(folder: Path) -> None:
    (folder / PLAN).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """While no backend, night or other restore is at work here, nor begins; on no repository of a fleet either."""
    fleet = fleet_folder(workspace)
    try:
        with ExitStack() as stack:
            stack.enter_context(own_folder(index_folder(workspace)))
            if _has_fleet(workspace):
                fleet.mkdir(exist_ok=True)
                stack.enter_context(own_folder(fleet))
            for state in (workspace.state, *(folder for folder in fleet.glob("*") if folder.is_dir())):
                if state == workspace.state or (state / NIGHT_LOCK).exists():
                    night = stack.enter_context((state / NIGHT_LOCK).open("a"))
                    fcntl.lockf(night, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except IndexUnavailable as error:
        raise BackupError(f"{error} (`nightschool stop` ends a backend)") from error
    except BlockingIOError as error:
        raise BackupError("a night or a sweep is at work here: let it end first") from error


def _has_fleet(workspace: Workspace) -> bool:
    try:
        return fleet_folder(workspace).is_dir() or is_fleet(workspace)
    except BadSettings:  # nothing starts with them; the backup may bring better ones
        return False


def _unpack(file: Path, new: Path) -> Contents:
    """The files of the backup below `new`, on the disk for good."""

    def keep(name: str, mode: int, pieces: Iterator[bytes]) -> None:
        target = new / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as unpacked:
            unpacked.writelines(pieces)
            unpacked.flush()
            os.fsync(unpacked.fileno())
        target.chmod(mode_of(name, mode))

    new.mkdir(parents=True, mode=0o700)
    return read_backup(file, keep)


def _check(file: Path, new: Workspace, inventory: Inventory) -> None:
    """Is what was unpacked what nightschool can read? By those who will read it."""
    try:
        for state in inventory.states():
            kept = Workspace(new.root, new.root / state)
            for version in inventory.adapters(state):
                find_adapter(kept.adapters, version, digest=True)
            read_current(kept.adapters)
            read_quarantine(kept)
            if f"{state}/{FEEDBACK_FILE}" in inventory.files:
                Feedback(kept).read()
        for name in inventory.files:
            if name.endswith(".toml"):
                tomllib.loads((new.root / name).read_text("utf-8"))
            elif name.endswith(".json"):
                json.loads((new.root / name).read_text("utf-8"))
    except (AdapterError, BadQuarantine, FeedbackError) as error:
        said = str(error).replace(f"{new.root}/", "")
        raise BackupError(f"{file}: {said}") from error
    except (ValueError, RecursionError) as error:  # of JSON, TOML and UTF-8
        raise BackupError(f"{file}: {name} cannot be read: {error}") from error


def _is_same(new: Path, there: Path) -> bool:
    """Is there already what would be put there? Of an adapter what is served counts, not its reports."""
    if there.is_symlink() or new.is_dir() != there.is_dir():
        return False
    if new.is_dir():
        manifests = [folder / MANIFEST for folder in (new, there)]
        if not manifests[1].is_file() or manifests[0].read_bytes() != manifests[1].read_bytes():
            return False
        return digests(new) == digests(there)
    return there.is_file() and digest_file(new) == digest_file(there)


def _refuse_to_overwrite(taken: list[str], force: bool) -> None:
    if taken and not force:
        more = f" and {len(taken) - 3} more" if len(taken) > 3 else ""
        raise BackupError(f"{', '.join(taken[:3])}{more} would be replaced: --force does it; nothing was changed")


def _make_room(workspace: Workspace, units: list[str]) -> None:
    """The folders that are missing; all on the disk where the new files lie, so that a rename is enough."""
    here = (workspace.state / FOLDER).stat().st_dev
    for parent in {(workspace.root / unit).parent for unit in units}:
        parent.mkdir(parents=True, exist_ok=True)
        if parent.stat().st_dev != here:
            raise BackupError(f"{parent} lies on another disk than {workspace.state}: nothing was changed")


def _put_in_place(workspace: Workspace, units: list[str]) -> None:
    """Every unit that is not there yet. A failure takes back what was done."""
    new, old = workspace.state / FOLDER / "new", workspace.state / FOLDER / "old"
    done: list[str] = []
    try:
        for unit in units:
            if not (new / unit).exists():
                continue  # it was put there before we were killed
            done.append(unit)
            for there in _in_the_way(workspace, unit):
                aside = old / there.relative_to(workspace.root)
                aside.parent.mkdir(parents=True, exist_ok=True)
                there.rename(aside)
            (new / unit).rename(workspace.root / unit)
    except BaseException:  # Ctrl-C too
        for unit in reversed(done):
            _take_back(workspace.root / unit, new / unit, old / unit)
        raise


def _in_the_way(workspace: Workspace, unit: str) -> list[Path]:
    target = workspace.root / unit
    # An old journal beside a new database would be played into it.
    journal = [target.with_name(f"{target.name}-journal")] if is_feedback(unit) else []
    return [path for path in (*journal, target) if os.path.lexists(path)]


def _take_back(target: Path, new: Path, old: Path) -> None:
    if not new.exists():
        target.rename(new)
    if os.path.lexists(old):
        old.rename(target)
