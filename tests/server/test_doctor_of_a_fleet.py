"""What goes wrong around a fleet: one clear line each from the doctor, and the rest is looked at all the same."""

from __future__ import annotations

import json
import socket
from contextlib import closing

import pytest

from indexer.settings import IndexerSettings
from server.doctor_servers import chroma as look_at_chroma
from server.doctor_servers import endpoints
from server.settings import ServerSettings


@pytest.fixture
def nobody():
    """An address where nobody answers."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_each_of_a_fleets_faults_is_one_line_and_the_rest_goes_on(cli, tmp_path, make_git, nobody):
    fleet, app = tmp_path / "fleet", tmp_path / "app"
    fleet.mkdir()
    app.mkdir()
    (app / "app.py").write_text("def run():\n    return 1\n")
    make_git(app)
    (fleet / ".nightschool").mkdir()
    for secret in (tmp_path / "key", fleet / ".nightschool" / "token", fleet / ".nightschool" / "team.json"):
        secret.write_text("{}")
        secret.chmod(0o644)
    (fleet / "nightschool.toml").write_text(
        f'[indexer]\nchroma = "http://{nobody}"\nray = "{nobody}"\n'
        f'[server]\nmodel = "smollm2-135m"\nengine_urls = ["http://{nobody}/v1", "http://{nobody}/v2"]\n'
        f'[[fleet.repositories]]\nname = "app"\nsource = "{app}"\n'
        '[[fleet.repositories]]\nname = "gone"\nsource = "../not-there"\n'
    )
    run = cli("doctor", "--json", "--workspace", str(fleet))
    found = {finding["name"]: finding for finding in json.loads(run.stdout)["findings"]}
    faults = {
        "token": "mode 644",
        "team": "others",
        "cluster": f"no Ray cluster answers at {nobody}",
        f"engine http://{nobody}/v1": "does not answer",
        f"engine http://{nobody}/v2": "does not answer",
        "Chroma": f"Chroma at http://{nobody} cannot be opened: ConnectError",
        "repository gone": "its folder",
    }
    assert {name: said in found[name]["found"] for name, said in faults.items()} == dict.fromkeys(faults, True), found
    assert [name for name in faults if found[name]["ok"] or "\n" in found[name]["found"]] == []
    assert all(found[name]["todo"] for name in faults)
    assert found["watched folders"]["ok"]
    assert "Traceback" not in run.stderr


def test_a_chroma_that_answers_is_well_unless_the_backend_searches_by_words(chroma):
    settings = IndexerSettings(chroma=chroma.address)
    (well,) = look_at_chroma(settings, {"words_only": ""})
    assert (well.ok, well.found) == (True, f"{chroma.address} answers")
    (full,) = look_at_chroma(settings, {"words_only": "no space left"})
    assert (full.ok, full.found) == (False, "it answers, but no space left")
    assert list(look_at_chroma(IndexerSettings(), None)) == []


def test_a_key_that_others_can_read_is_a_line_of_its_own(chroma, tmp_path):
    key = tmp_path / "key"
    key.write_text("secret-77")
    key.chmod(0o640)
    (found,) = look_at_chroma(IndexerSettings(chroma=chroma.address, chroma_key_file=key), None)
    assert (found.ok, found.found) == (False, f"{key} can be read by others (mode 640): chmod 600 {key}")


def test_engines_are_asked_here_only_while_no_backend_knows_of_them(chroma, nobody):
    settings = ServerSettings(engine_urls=[f"{chroma.address}/v1", f"http://me:secret@{nobody}/v1"])
    answers, silent = endpoints(settings, None)
    assert (answers.ok, answers.found) == (False, "answers 404 to /models")
    assert (silent.ok, "secret" in silent.name + silent.found) == (False, False)
    assert list(endpoints(settings, {"engine": {}})) == []
    assert list(endpoints(ServerSettings(), None)) == []
