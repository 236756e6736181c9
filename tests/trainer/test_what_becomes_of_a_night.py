"""Whatever a night comes to is on disk and at the webhook; and it does not begin where it cannot end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from indexer.workspace import Workspace
from server.base_model import BaseModel
from trainer.job import Note, TrainingError, TrainingEvent
from trainer.night import Workshop, run_and_record
from trainer.night_record import NightRecord, read_last_night, send_to_webhook
from trainer.night_state import settings_mark
from trainer.presets import find_preset
from trainer.process import Job
from trainer.readiness import Machine, lora_parameters, too_little_changed, what_is_missing
from trainer.settings import TrainerSettings

SETTINGS = TrainerSettings(backend="trl")
GB = 1_000_000_000
ROOMY = Machine(100 * GB, 64 * GB, None)


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address on loopback and what was posted to it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(404 if self.path == "/gone" else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def repository(git_workspace: tuple[Path, Callable[..., str]]) -> Workspace:
    root, commit = git_workspace
    commit(1, {"a.py": "x = 1\n"})
    return Workspace(root)


def fails(job: Job, on_event: Callable[[TrainingEvent], None], module: str) -> None:
    raise TrainingError(f"no room below {job.run}")


def test_a_night_that_fails_is_recorded_and_told_without_paths(
    repository: Workspace, tiny_base: BaseModel, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    url, posted = webhook
    settings = SETTINGS.model_copy(update={"webhook": url})
    with pytest.raises(TrainingError):
        run_and_record(Workshop(repository, settings, tiny_base, lambda _: None, fails))
    record = read_last_night(repository)
    assert record is not None
    assert record.outcome == "failed"
    assert str(repository.root) in record.reason
    assert record == NightRecord(**json.loads((repository.state / "nights" / "last_failed.json").read_text()))
    (told,) = posted
    assert told["outcome"] == "failed"
    assert told["text"].startswith("nightschool, workspace: failed. no room below workspace/.nightschool/runs/")
    assert str(repository.root) not in json.dumps(told)


def test_a_night_that_is_interrupted_is_a_failed_one(repository: Workspace, tiny_base: BaseModel) -> None:
    def interrupted(job: Job, on_event: Callable[[TrainingEvent], None], module: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_and_record(Workshop(repository, SETTINGS, tiny_base, lambda _: None, interrupted))
    record = read_last_night(repository)
    assert record is not None
    assert (record.outcome, record.reason) == ("failed", "KeyboardInterrupt")


def test_a_webhook_that_does_not_answer_is_a_note_and_changes_nothing(
    repository: Workspace, tiny_base: BaseModel, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    heard: list[TrainingEvent] = []
    settings = SETTINGS.model_copy(update={"webhook": f"{webhook[0]}/gone", "require_gpu": True})
    report = run_and_record(Workshop(repository, settings, tiny_base, heard.append, fails))
    assert (report.outcome, report.reason) == ("skipped", "there is no GPU, and [trainer] require_gpu asks for one")
    (note,) = [event for event in heard if isinstance(event, Note)]
    assert note.text.startswith("the webhook could not be told: Client error '404 Not Found'")
    record = read_last_night(repository)
    assert record is not None
    assert (record.outcome, record.reason) == (report.outcome, report.reason)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "no address", "http://é é/"])
def test_a_bad_address_never_raises(url: str, tmp_path: Path) -> None:
    record = NightRecord("refused", "é", "n", "v", "", "")
    assert "the webhook could not be told" in send_to_webhook(url, Workspace(tmp_path), record)


def test_no_night_no_record(tmp_path: Path) -> None:
    assert read_last_night(Workspace(tmp_path)) is None


def test_a_night_is_skipped_where_the_machine_cannot_hold_it(tiny_base: BaseModel) -> None:
    large = replace(tiny_base, parameters=7_000_000_000)
    assert what_is_missing(ROOMY, SETTINGS, large) == ""
    assert what_is_missing(replace(ROOMY, disk=GB), SETTINGS, large).startswith("a night needs 19.6 GB of disk and 1.0")
    assert "42.7 GB of memory and 8.0 GB are free" in what_is_missing(replace(ROOMY, memory=8 * GB), SETTINGS, large)
    on_gpu = replace(ROOMY, memory=GB, gpu=24 * GB)
    assert what_is_missing(on_gpu, SETTINGS, large) == ""
    assert "GPU memory and 6.0 GB are free: end what uses it" in what_is_missing(
        replace(on_gpu, gpu=6 * GB), SETTINGS, large
    )


def test_the_size_of_a_lora_is_about_that_of_mistral(tiny_base: BaseModel) -> None:
    mistral = replace(tiny_base, parameters=7_241_732_096)
    assert lora_parameters(mistral, find_preset("default")) == pytest.approx(64 * 2_621_440, rel=0.01)


def test_too_few_new_lines_are_not_worth_a_night(git_workspace: tuple[Path, Callable[..., str]]) -> None:
    root, commit = git_workspace
    older, newer = commit(1, {"a.py": "x = 1\n"}), commit(2, {"a.py": "x = 1\ny = 2\nz = 3\n"})
    place = Workspace(root)
    assert too_little_changed(place, older, newer, 2) == ""
    assert too_little_changed(place, older, newer, 3).startswith("2 lines were added since the last night")
    assert too_little_changed(place, "0" * 40, newer, 3) == ""


def test_only_what_decides_a_night_makes_the_same_code_worth_another(tiny_base: BaseModel) -> None:
    mark = settings_mark(SETTINGS, tiny_base)
    beside = SETTINGS.model_copy(update={"webhook": "http://x", "nightly": "02:30", "keep_adapters": 3})
    assert settings_mark(beside, tiny_base) == mark
    assert settings_mark(SETTINGS.model_copy(update={"rank": 7}), tiny_base) != mark
    assert settings_mark(SETTINGS, replace(tiny_base, sha256="cd" * 32)) != mark
