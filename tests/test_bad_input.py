"""Bad input gets one clear line that says what to do, exit 1 or 2, and nothing is lost. No engine is started here."""

import json
import socket

import pytest


def one_line(process):
    lines = [line for line in process.stderr.strip().splitlines() if line.startswith("nightschool:")]
    assert len(lines) == 1, process.stderr
    assert "Traceback" not in process.stderr
    return process.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("command", [["index"], ["collect"], ["train"], ["serve"], ["ask", "q?"], ["search", "q?"]])
def test_a_path_that_is_no_directory(command, cli, tmp_path):
    file = tmp_path / "file.txt"
    file.touch()
    refused = cli(*command, "--workspace", str(file))
    assert refused.returncode == 1
    assert "is not a directory" in one_line(refused)


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["search"], ["search", "x", "--jsonl"], ["train", "--budget", "-1"]]
)
def test_wrong_usage_is_exit_2(arguments, cli, tmp_path):
    assert cli(*arguments, cwd=tmp_path).returncode == 2


def test_an_empty_repository_has_an_empty_index_and_no_corpus(cli, tmp_path, make_git):
    make_git.git(tmp_path, "init", "--quiet")
    report = cli("index", "--json", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    assert (json.loads(report.stdout)["files"], json.loads(report.stdout)["chunks"]) == (0, 0)
    refused = cli("collect", cwd=tmp_path, NIGHTSCHOOL_SERVER__MODEL="smollm2-135m")
    assert refused.returncode == 1
    assert one_line(refused)


def test_a_repository_without_recognised_source_says_why(cli, tmp_path, make_git):
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (tmp_path / "empty.py").touch()
    make_git(tmp_path)
    report = json.loads(cli("index", "--json", cwd=tmp_path).stdout)
    assert report["chunks"] == 0
    assert report["skipped"].get("binary") == 1
    assert "binary" in cli("index", "--explain", "image.png", cwd=tmp_path).stdout


def test_training_without_a_corpus_says_what_to_do(cli, tmp_path):
    refused = cli("train", cwd=tmp_path, NIGHTSCHOOL_SERVER__MODEL="smollm2-135m")
    assert refused.returncode == 1
    assert "nightschool collect" in one_line(refused)


def test_a_port_in_use(cli, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = cli("serve", "--port", str(port), cwd=tmp_path)
    assert refused.returncode == 1
    assert f"port {port} is in use" in one_line(refused)


def test_an_address_that_is_not_loopback(cli, tmp_path):
    refused = cli("serve", cwd=tmp_path, NIGHTSCHOOL_SERVER__HOST="0.0.0.0")
    assert refused.returncode == 1
    assert "not loopback" in one_line(refused)


def test_no_memory_for_the_engine(cli, tmp_path, make_git):
    (tmp_path / "app.py").write_text("def run():\n    return 'é 🙂'\n")
    make_git(tmp_path)
    try:
        settings = {"NIGHTSCHOOL_SERVER__ENGINE_MEMORY_GIB": "100000", "NIGHTSCHOOL_SERVER__MODEL": "smollm2-135m"}
        refused = cli("ask", "what does run do?", cwd=tmp_path, **settings)
        assert refused.returncode == 1
        assert "no memory for the engine" in one_line(refused)
        assert "take a smaller model" in refused.stderr.replace("\n", " ")
        found = cli("search", "--jsonl", "-k", "1", cwd=tmp_path, stdin="run\nwhat does é do?\n")
    finally:
        assert cli("stop", cwd=tmp_path).stdout == "stopped\n"
    answers = [json.loads(line) for line in found.stdout.splitlines()]
    assert [a["query"] for a in answers] == ["run", "what does é do?"]
    assert [p["path"] for p in answers[0]["passages"]] == ["app.py"]
    assert not (tmp_path / ".nightschool" / "backend.json").exists()


def test_a_chroma_server_that_is_not_there(cli, tmp_path, make_git):
    (tmp_path / "app.py").write_text("def run():\n    return 1\n")
    make_git(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    refused = cli("index", "--json", cwd=tmp_path, NIGHTSCHOOL_INDEXER__CHROMA=address)
    assert (refused.returncode, json.loads(refused.stdout)["files"]) == (1, 1)
    assert address in one_line(refused)
    found = cli("search", "run", "--json", cwd=tmp_path, NIGHTSCHOOL_INDEXER__CHROMA=address)
    assert (found.returncode, json.loads(found.stdout)["passages"][0]["path"]) == (0, "app.py")
    assert found.stderr.startswith("searched by words only: ")
    assert address in found.stderr


def test_an_unknown_adapter(cli, tmp_path):
    for command in ("promote", "show"):
        refused = cli("adapters", command, "2020-01-01-0000-nothing", cwd=tmp_path)
        assert refused.returncode == 1
        assert "2020-01-01-0000-nothing" in one_line(refused)
    assert cli("adapters", "promote", "../../etc", cwd=tmp_path).returncode == 1


def test_an_unknown_base_model_lists_the_known_ones(cli, tmp_path):
    (tmp_path / "app.py").write_text("x = 1\n")
    refused = cli("collect", cwd=tmp_path, NIGHTSCHOOL_SERVER__MODEL="no-such-model")
    assert refused.returncode == 1
    assert "smollm2-135m" in one_line(refused)


@pytest.mark.parametrize(
    "command", ["index", "search", "collect", "train", "serve", "ask", "lsp", "demo", "stop", "backup", "restore"]
)
def test_every_command_has_a_help_text(command, cli, tmp_path):
    shown = cli(command, "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "Usage: " in shown.stdout
