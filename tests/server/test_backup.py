"""Backup and restore: what cannot be made again goes out and comes back whole, or not at all."""

import hashlib
import io
import json
import os
import resource
import signal
import sqlite3
import stat
import sys
import tarfile
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import numpy as np
import pytest
from safetensors.numpy import save_file

from indexer.lock import own_folder
from indexer.opening import index_folder
from indexer.quarantine import read_quarantine
from indexer.workspace import Workspace
from server.adapter import find_adapter, finish_adapter, promote, read_current
from server.auth import read_or_make_token
from server.backup import make_backup
from server.backup_format import FILES, HEAD, BackupError, Head
from server.feedback import Exchange, Feedback
from server.restore import finish_restore, list_backup, restore
from trainer.only_one import only_one

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
OLD, NEW = "2026-11-23-0230-abc", "2026-11-24-0230-def"
REPOSITORY, LEFT = "shop-0123abcd", "gone-89ef4567"  # one of a fleet, and one that left it
AUDITED = '{"user": "anna", "route": "/ask"}\n'


def add_adapter(workspace, version, value=1.0):
    staging = workspace.adapters / f".staging-{version}"
    staging.mkdir(parents=True)
    save_file({"layer.lora_A.weight": np.full((64, 64), value, np.float32)}, staging / "adapter_model.safetensors")
    (staging / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    (staging / "report.md").write_text(f"# {version} é 🙂\n")
    base = {"name": "tiny", "revision": "1", "sha256": "ab" * 32}
    finish_adapter(
        staging, workspace.adapters, {"version": version, "created_at": NOON, "base_model": base, "prompt_version": 1}
    )


def ask(workspace, number):
    Feedback(workspace).note_answer(
        Exchange(f"id{number}", NOON.isoformat(), f"q{number}?", f"a{number} é", None, "c0ffee", None, "tiny")
    )


@pytest.fixture
def full(workspace):
    """A workspace with everything in it: what a backup holds, and what it must not."""
    workspace.make_state_folder()
    for version in (OLD, NEW):
        add_adapter(workspace, version)
        promote(workspace.adapters, version)
    ask(workspace, 1)
    workspace.settings_file.write_text("[server]\nfeedback = true # é\n")
    quarantine = {"version": 1, "paths": {"secret.py": "private"}, "sources": {}}
    (workspace.state / "quarantine.json").write_text(json.dumps(quarantine))
    (workspace.state / "team.json").write_text('{"users": []}')
    (workspace.state / "team.json").chmod(0o600)
    for name in ("nights/2026-11-24-0230.json", "nights/last_promoted.json", "nights/state.json", "backend.json"):
        (workspace.state / name).parent.mkdir(exist_ok=True)
        (workspace.state / name).write_text("{}")
    for name in ("generated/abc", "merged/x/model.safetensors", "index/catalogue.sqlite", "engines.json", "logs/a.log"):
        (workspace.state / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace.state / name).write_text("text of a model")
    read_or_make_token(workspace)
    fill_fleet(workspace)
    (workspace.logs / "audit.jsonl").write_text(AUDITED * 2 + '{"half')
    (workspace.logs / "audit.jsonl.1").write_text(AUDITED)
    return workspace


def of_fleet(workspace, repository=REPOSITORY):
    return Workspace(workspace.root / "clone", workspace.state / "fleet" / repository)


def fill_fleet(workspace):
    """What is kept of two repositories, and what is made again."""
    shop = of_fleet(workspace)
    shop.make_state_folder()
    add_adapter(shop, NEW, 7.0)
    promote(shop.adapters, NEW)
    ask(shop, 3)
    of_fleet(workspace, LEFT).make_state_folder()
    for place, path in ((shop, "a.py"), (of_fleet(workspace, LEFT), "b.py")):
        (place.state / "quarantine.json").write_text(json.dumps({"version": 1, "paths": {path: ""}, "sources": {}}))
    for name in ("nights/last_failed.json", "nights/state.json", "corpus/x/ledger.json", "index/catalogue.sqlite"):
        (shop.state / name).parent.mkdir(parents=True, exist_ok=True)
        (shop.state / name).write_text("{}")
    (workspace.state / "fleet/chroma").mkdir()
    (workspace.state / "fleet/chroma/quarantine.json").write_text("{}")
    (workspace.state / "fleet/embeddings.sqlite").write_text("")


@pytest.fixture
def other(tmp_path_factory):
    return Workspace(tmp_path_factory.mktemp("other"))


@pytest.fixture
def archive(full, tmp_path_factory):
    file = tmp_path_factory.mktemp("backups") / "app.tar.gz"
    make_backup(full, file)
    return file


def tree(workspace):
    """Every file that matters: path -> bytes."""
    ignored = ("index/lock", "fleet/lock", "night.lock", ".gitignore")
    files = [path for path in workspace.root.rglob("*") if path.is_file() or path.is_symlink()]
    return {
        path.relative_to(workspace.root).as_posix(): path.read_bytes()
        for path in files
        if not path.as_posix().endswith(ignored)
    }


def names(file):
    return set(list_backup(file).inventory.files)


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "manifest.json", "report.md")
IN_IT = {
    "nightschool.toml", ".nightschool/quarantine.json", ".nightschool/team.json", ".nightschool/feedback.sqlite",
    ".nightschool/adapters/current.json", ".nightschool/nights/2026-11-24-0230.json",
    ".nightschool/nights/last_promoted.json",
    *(f".nightschool/adapters/{version}/{name}" for version in (OLD, NEW)
      for name in ADAPTER_FILES),
    ".nightschool/logs/audit.jsonl", ".nightschool/logs/audit.jsonl.1",
    f".nightschool/fleet/{LEFT}/quarantine.json",
    *(f".nightschool/fleet/{REPOSITORY}/{name}" for name in (
        "quarantine.json", "feedback.sqlite", "adapters/current.json", "nights/last_failed.json",
        *(f"adapters/{NEW}/{name}" for name in ADAPTER_FILES))),
}  # fmt: skip


def test_what_cannot_be_made_again_goes_out_and_comes_back_the_same(full, archive, other):
    assert names(archive) == IN_IT
    assert restore(other, archive).same == ()
    assert Feedback(other).read() == Feedback(full).read()
    before = tree(full)
    whole_lines = {".nightschool/logs/audit.jsonl": (AUDITED * 2).encode()}
    assert tree(other) == {name: before[name] for name in IN_IT} | whole_lines
    assert read_current(other.adapters).version == NEW
    assert find_adapter(other.adapters, OLD, digest=True)
    assert find_adapter(of_fleet(other).adapters, NEW, digest=True)
    assert read_current(of_fleet(other).adapters).version == NEW
    assert [each.answer for each in Feedback(of_fleet(other)).read()] == ["a3 é"]
    assert read_quarantine(of_fleet(other, LEFT)).paths == {"b.py": ""}
    for name in ("team.json", "feedback.sqlite", "logs/audit.jsonl", f"fleet/{REPOSITORY}/feedback.sqlite"):
        assert stat.S_IMODE((other.state / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600


def test_the_token_is_nowhere_in_it(full, archive):
    token = (full.state / "token").read_bytes().strip()
    with tarfile.open(archive) as tar:
        assert not [m.name for m in tar if token in tar.extractfile(m).read()]


def test_what_a_model_wrote_is_in_it_when_it_is_asked_for(full, tmp_path, other):
    file = tmp_path / "all.tar.gz"
    make_backup(full, file, with_generated=True)
    assert names(file) == IN_IT | {".nightschool/generated/abc"}
    restore(other, file)
    assert (other.state / "generated/abc").read_text() == "text of a model"


def test_an_empty_workspace_has_an_empty_backup(workspace, other, tmp_path_factory):
    file = tmp_path_factory.mktemp("backups") / "empty.tar.gz"
    assert make_backup(workspace, file).files == 0
    assert restore(other, file).restored == ()


def test_a_backup_made_while_answers_are_written_down_holds_whole_ones(full, archive, other):
    stop = threading.Event()

    def write():
        number = 2
        while not stop.is_set():
            ask(full, number)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2):
            make_backup(full, archive)
            restore(other, archive, force=True)
            ids = [exchange.id for exchange in Feedback(other).read()]
            assert ids == [f"id{n}" for n in range(1, len(ids) + 1)]
            with closing(sqlite3.connect(other.state / "feedback.sqlite")) as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        stop.set()
        writer.join()


def test_of_an_answer_that_was_half_written_when_its_writer_was_killed_nothing_is_in_it(full, archive, other):
    """A copy of the file alone would hold the half: it is the journal beside it that takes it back."""
    for number in range(2, 300):
        ask(full, number)

    def write_half():
        database = sqlite3.connect(full.state / "feedback.sqlite", isolation_level=None)
        database.execute("PRAGMA cache_size = 1")
        database.execute("BEGIN")
        database.execute("UPDATE exchange SET answer = hex(randomblob(2000))")
        die()

    assert in_a_child(write_half) == -signal.SIGKILL
    assert (full.state / "feedback.sqlite-journal").stat().st_size > 0
    make_backup(full, archive)
    restore(other, archive)
    assert [exchange.answer for exchange in Feedback(other).read()] == [f"a{n} é" for n in range(1, 300)]


def test_a_broken_adapter_is_left_out_and_named(full, archive, other):
    (full.adapters / NEW / "adapter_model.safetensors").write_bytes(b"cut off")
    report = make_backup(full, archive)
    assert report.adapters == (OLD, f"{REPOSITORY}/{NEW}")
    assert len(report.notices) == 2
    assert all(NEW in notice for notice in report.notices)
    restore(other, archive)
    assert read_current(other.adapters) is None


def test_nothing_that_differs_is_overwritten_without_force(archive, other):
    other.settings_file.write_text("[server]\nport = 1234\n")
    before = tree(other)
    with pytest.raises(BackupError, match=r"nightschool.toml would be replaced: --force"):
        restore(other, archive)
    assert tree(other) == before
    assert "nightschool.toml" in restore(other, archive, force=True).restored
    assert "feedback" in other.settings_file.read_text()


def test_a_second_restore_finds_everything_there(full, archive, other):
    restore(other, archive)
    before = tree(other)
    report = restore(other, archive)
    assert (report.restored, tree(other)) == ((), before)
    assert restore(full, archive).restored == ()


def test_adapters_that_are_not_in_the_backup_stay(archive, other):
    add_adapter(other, "mine", 2.0)
    add_adapter(other, OLD, 3.0)
    with pytest.raises(BackupError, match=OLD):
        restore(other, archive)
    restore(other, archive, force=True)
    assert find_adapter(other.adapters, "mine", digest=True)
    weights = (other.adapters / OLD / "adapter_model.safetensors").read_bytes()
    assert np.frombuffer(weights[-4:], np.float32) == 1.0


@contextmanager
def at_night(place):
    """While another process holds `place` as a night does; a process's own locks do not keep it out."""
    ready, go = os.pipe(), os.pipe()
    if not (child := os.fork()):
        with only_one(place):
            os.write(ready[1], b".")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        yield
    finally:
        os.write(go[1], b".")
        os.waitpid(child, 0)


def test_while_a_backend_or_a_night_is_at_work_nothing_is_restored(archive, other):
    with own_folder(index_folder(other)), pytest.raises(BackupError, match="has the index"):
        restore(other, archive)
    with at_night(other), pytest.raises(BackupError, match="a night or a sweep is at work"):
        restore(other, archive)
    assert restore(other, archive).restored


def test_while_a_fleet_is_served_or_one_of_its_nights_runs_nothing_is_restored(archive, other):
    fleet = other.state / "fleet"
    of_fleet(other).make_state_folder()
    with own_folder(fleet), pytest.raises(BackupError, match="nightschool stop"):
        restore(other, archive)
    with at_night(of_fleet(other)), pytest.raises(BackupError, match="a night or a sweep is at work"):
        restore(other, archive)
    assert restore(other, archive).restored


def test_an_audit_log_is_replaced_by_nothing_also_not_by_force(archive, other):
    other.logs.mkdir(parents=True)
    (other.logs / "audit.jsonl").write_text("mine\n")
    report = restore(other, archive, force=True)
    assert report.kept == (".nightschool/logs/audit.jsonl", ".nightschool/logs/audit.jsonl.1")
    assert (other.logs / "audit.jsonl").read_text() == "mine\n"
    assert not (other.logs / "audit.jsonl.1").exists()
    assert (find_adapter(other.adapters, OLD, digest=True)).version == OLD


def test_a_backup_of_the_format_before_is_restored(archive, other):
    newer = (".nightschool/fleet/", ".nightschool/logs/")

    def older(name, raw):
        if name == HEAD:
            return head_of(format=1)(name, raw)
        if name == FILES:
            files = json.loads(raw)["files"]
            kept = {each: about for each, about in files.items() if not each.startswith(newer)}
            return [(name, json.dumps({"files": kept}).encode())]
        return [] if name.startswith(newer) else [(name, raw)]

    repack(archive, older)
    restore(other, archive)
    assert set(tree(other)) == {name for name in IN_IT if not name.startswith(newer)}


# Archives that are not what they should be


def repack(archive, change):
    """The archive again, its members passed through `change(name, raw)` -> [(TarInfo or name, raw)]."""
    with tarfile.open(archive) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    with tarfile.open(archive, "w:gz") as tar:
        for name, raw in members:
            for info, content in change(name, raw):
                info = tarfile.TarInfo(info) if isinstance(info, str) else info
                info.size = len(content) if info.isreg() else 0
                tar.addfile(info, io.BytesIO(content) if info.isreg() else None)


def with_another(*more):
    """Puts these members before the inventory."""
    return lambda name, raw: [*(more if name == FILES else ()), (name, raw)]


def with_content(of, content):
    """Another content for a file, the inventory in agreement: only a look at the content itself can tell."""

    def change(name, raw):
        if name == of:
            return [(name, content)]
        if name == FILES:
            table = json.loads(raw)
            table["files"][of] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            return [(name, json.dumps(table).encode())]
        return [(name, raw)]

    return change


def link(kind, target):
    info = tarfile.TarInfo("nightschool.toml" if kind == tarfile.SYMTYPE else ".nightschool/team.json")
    info.type, info.linkname = kind, target
    return info, b""


def head_of(**changes):
    head = Head(format=1, made_at=NOON, workspace="app", program="nightschool 9").model_dump(mode="json") | changes
    return lambda name, raw: [(name, json.dumps(head).encode() if name == HEAD else raw)]


WEIGHTS = f".nightschool/adapters/{OLD}/adapter_model.safetensors"
TAMPERED = {
    "a path that escapes": (with_another(("../../escaped.py", b"x")), "does not belong"),
    "a path that escapes below": (with_another((".nightschool/adapters/../../x", b"x")), "does not belong"),
    "an absolute path": (with_another(("/tmp/escaped.py", b"x")), "does not belong"),
    "a token": (with_another((".nightschool/token", b"x")), "does not belong"),
    "code": (with_another(("src/app.py", b"x")), "does not belong"),
    "a symlink": (with_another(link(tarfile.SYMTYPE, "/etc/passwd")), "no plain file"),
    "a hard link": (with_another(link(tarfile.LNKTYPE, "nightschool.toml")), "no plain file"),
    "a device": (with_another(link(tarfile.CHRTYPE, "")), "no plain file"),
    "a fleet's path that escapes": (with_another((".nightschool/fleet/../../x-0123abcd/q", b"x")), "does not belong"),
    "a token of a fleet's repository": (
        with_another((f".nightschool/fleet/{REPOSITORY}/token", b"x")),
        "does not belong",
    ),
    "a file twice": (with_another(("nightschool.toml", b"")), "is in it twice"),
    "a file that is not in the inventory": (with_another((".nightschool/nights/2027.json", b"{}")), "changed since"),
    "a file that is gone": (lambda name, raw: [] if name.endswith("team.json") else [(name, raw)], "changed since"),
    "a changed file": (lambda name, raw: [(name, raw if "team" not in name else b"{} ")], "changed since"),
    "no inventory": (lambda name, raw: [] if name == FILES else [(name, raw)], "is cut off"),
    "something behind the inventory": (lambda name, raw: [(name, raw)] * (1 + (name == FILES)), "behind its end"),
    "a newer format": (head_of(format=3), "format 3 .nightschool 9.; this nightschool reads up to 2: update"),
    "a head that is none": (lambda name, raw: [(name, b"[]" if name == HEAD else raw)], "cannot be read"),
    "a foreign archive": (lambda name, raw: [("README", b"hello")], "is no backup of nightschool"),
    "weights that are a pickle": (with_content(WEIGHTS, b"\x80\x04pickle" * 9), "no safetensors file"),
    "weights with a foreign header": (
        with_content(WEIGHTS, (8).to_bytes(8, "little") + b'{"a": 1}'),
        "no safetensors file",
    ),
    "weights that are not the manifest's": (
        with_content(WEIGHTS, (48).to_bytes(8, "little") + b'{"a":{"data_offsets":[0,4]}}'.ljust(48) + b"abcd"),
        "changed since it was made",
    ),
    "feedback that is no database": (with_content(".nightschool/feedback.sqlite", b"no database" * 99), "feedback"),
    "settings that are no TOML": (with_content("nightschool.toml", b"[server"), "nightschool.toml cannot be read"),
    "a record that is no JSON": (with_content(".nightschool/team.json", b"{"), "team.json cannot be read"),
    "a bad quarantine": (with_content(".nightschool/quarantine.json", b"[]"), "quarantine"),
    "a bad quarantine in a fleet": (
        with_content(f".nightschool/fleet/{LEFT}/quarantine.json", b"[]"),
        "quarantine",
    ),
    "weights that are a pickle in a fleet": (
        with_content(f".nightschool/fleet/{REPOSITORY}/adapters/{NEW}/adapter_model.safetensors", b"\x80\x04p" * 9),
        "no safetensors file",
    ),
    "a pointer to nothing": (
        with_content(".nightschool/adapters/current.json", b'{"version": "gone", "previous": []}'),
        "gone",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_an_archive_that_is_not_as_it_was_made_changes_nothing(name, archive, other):
    change, said = TAMPERED[name]
    other.settings_file.write_text("# mine\n")
    before = tree(other)
    repack(archive, change)
    with pytest.raises(BackupError, match=said) as error:
        restore(other, archive, force=True)
    assert "\n" not in str(error.value)
    assert str(other.state) not in str(error.value)
    assert tree(other) == before
    assert not (other.state / "restore").exists()


def test_an_archive_that_is_cut_off_anywhere_or_damaged_changes_nothing(archive, other):
    other.settings_file.write_text("# mine\n")
    before, whole = tree(other), archive.read_bytes()
    for share in (0, 0.001, 0.01, 0.3, 0.6, 0.9, 0.99):
        archive.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BackupError):
            restore(other, archive, force=True)
    for place in range(20, len(whole) - 200, len(whole) // 9):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(BackupError):
            restore(other, archive, force=True)
    with pytest.raises(BackupError, match="No such file"):
        restore(other, archive.with_name("gone"))
    assert tree(other) == before


def test_what_is_no_backup_is_not_overwritten_by_one(full, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backups")
    precious = folder / "app.py"
    precious.write_text("x = 1\n")
    for file, said in [
        (precious, "is no backup"),
        (folder, "is no backup"),
        (full.state / "b.tar.gz", "write it elsewhere"),
        (folder / "no/b.tar.gz", "is no directory"),
    ]:
        with pytest.raises(BackupError, match=said):
            make_backup(full, file)
    assert precious.read_text() == "x = 1\n"


# What goes wrong on the way


def in_a_child(work):
    """Runs `work` in a forked process; its exit status (0: it returned, 1: BackupError, negative: a signal)."""
    if not (child := os.fork()):
        try:
            work()
        except BackupError as error:
            os.write(2, f"{error}\n".encode())
            os._exit(1)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_rename(number, act):
    """Does `act` in place of this process' rename of that number."""
    seen = iter(range(number + 1))
    sys.addaudithook(lambda event, _: act() if event == "os.rename" and next(seen, None) == number else None)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise OSError(28, "No space left on device")


@pytest.fixture
def taken(other):
    """A workspace in which much is there already."""
    add_adapter(other, OLD, 3.0)
    promote(other.adapters, OLD)
    ask(other, 7)
    other.settings_file.write_text("# mine\n")
    return other


def test_killed_at_any_step_a_restore_is_whole_or_never_was(archive, taken, tmp_path):
    before, whole = tree(taken), Workspace(tmp_path / "whole")
    whole.root.mkdir()
    restore(whole, archive)
    wanted = {**before, **tree(whole)}
    outcomes = []
    for number in range(80):
        status = in_a_child(lambda n=number: (at_rename(n, die), restore(taken, archive, force=True)))
        finish_restore(taken)
        now = tree(taken)
        assert now in (before, wanted), number
        outcomes.append(now == wanted)
        if status == 0:
            break
        restore_old(taken, before)
    assert status == 0
    assert number > 12
    assert outcomes == sorted(outcomes)  # nothing, nothing, and from the plan on everything
    assert 0 < sum(outcomes) < len(outcomes)


def restore_old(workspace, before):
    for name in tree(workspace).keys() - before.keys():
        (workspace.root / name).unlink()
    for path in sorted(workspace.state.rglob("*/"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for name, raw in before.items():
        (workspace.root / name).write_bytes(raw)


def test_a_step_that_fails_takes_back_those_before_it(archive, taken):
    before = tree(taken)
    for number in range(14):
        status = in_a_child(lambda n=number: (at_rename(n, fail), restore(taken, archive, force=True)))
        assert (status, tree(taken)) == (1, before), number
        assert not (taken.state / "restore").exists()


def bounded(most):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def test_a_full_disk_leaves_everything_as_it_was(full, archive, taken, capfd):
    """A bound on the size of files stands in for the disk: the system call fails in the same place."""
    before, made = tree(taken), archive.read_bytes()
    assert in_a_child(lambda: (bounded(9_000), restore(taken, archive, force=True))) == 1
    add_adapter(full, "2026-11-25-0230-aaa", 0.1)
    (full.state / "quarantine.json").write_bytes(
        json.dumps({"version": 1, "paths": {os.urandom(9000).hex(): ""}, "sources": {}}).encode()
    )
    assert in_a_child(lambda: (bounded(9_000), make_backup(full, archive))) == 1
    said = capfd.readouterr().err.splitlines()
    assert ["File too large; nothing was changed" in said[0], "what was there is untouched" in said[1]] == [True, True]
    assert (tree(taken), archive.read_bytes()) == (before, made)
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_a_killed_backup_leaves_the_one_before_and_the_next_one_tidies_up(full, archive):
    made = archive.read_bytes()
    ask(full, 2)
    assert in_a_child(lambda: (at_rename(0, die), make_backup(full, archive))) == -signal.SIGKILL
    assert archive.read_bytes() == made
    assert len(list(archive.parent.iterdir())) == 2
    make_backup(full, archive)
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    assert archive.read_bytes() != made


def test_the_commands_say_what_they_did_in_one_line_each(full, cli, tmp_path_factory, other):
    file = tmp_path_factory.mktemp("backups") / "app.tar.gz"
    made = cli("backup", str(file), "--json", cwd=full.root)
    report = json.loads(made.stdout)
    assert (report["files"], report["adapters"], report["bytes"]) == (
        len(IN_IT),
        [OLD, NEW, f"{REPOSITORY}/{NEW}"],
        file.stat().st_size,
    )
    listed = json.loads(cli("restore", str(file), "--list", "--json", cwd=other.root).stdout)
    assert (listed["format"], set(listed["files"])) == (2, IN_IT)
    assert not other.state.exists()
    assert NEW in cli("restore", str(file), "--list", cwd=other.root).stdout
    assert "restored 17, there already 0" in cli("restore", str(file), "-w", str(other.root)).stdout
    add_adapter(other, "zz")
    promote(other.adapters, "zz")
    refused = cli("restore", str(file), cwd=other.root)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--force" in refused.stderr
    assert "Traceback" not in refused.stderr
