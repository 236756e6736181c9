"""Flow 1: a question becomes a grounded answer, by every door, with a real vLLM and nothing faked."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from hashlib import sha256

import openai
import psutil
import pytest
from lsprotocol import types
from pygls.lsp.client import LanguageClient

pytestmark = pytest.mark.engine
QUESTION = "Which class signs values with a timestamp?"


def check_answer(answer, repository, commit):
    """Every citation of a whole answer stands in the file, at the commit; the passages are the repository's."""
    assert answer["base_model"] == "smollm2-135m"
    assert answer["freshness"]["commit"] == commit
    assert any(p["path"] == "src/itsdangerous/timed.py" for p in answer["passages"])
    for citation in answer["citations"]:
        lines = (
            (repository / citation["path"]).read_text().split("\n")[citation["start_line"] - 1 : citation["end_line"]]
        )
        text = "\n".join(lines)
        assert citation["sha256"] in {sha256(text.encode()).hexdigest(), sha256((text + "\n").encode()).hexdigest()}
        assert (citation["commit"], citation["verified"]) == (commit, True)


@pytest.fixture
def commit(repository, make_git):
    return make_git.git(repository, "rev-parse", "HEAD")


def test_from_the_command_line(backend, repository, commit, cli):
    done = cli("ask", QUESTION, "--json", cwd=repository)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["answer"]
    check_answer(answer, repository, commit)
    shown = cli("ask", QUESTION, cwd=repository)
    assert "Passages read" in shown.stdout
    assert "src/itsdangerous/timed.py" in shown.stdout
    assert commit[:12] in shown.stdout


def test_over_http_with_the_official_client(backend, repository, commit):
    client = openai.OpenAI(base_url=f"{backend.url}/v1", api_key=backend.token, max_retries=0)
    messages = [{"role": "user", "content": QUESTION}]
    assert {"nightschool", "smollm2-135m"} <= {model.id for model in client.models.list()}
    whole = client.chat.completions.create(model="nightschool", messages=messages, max_tokens=24)
    stream = client.chat.completions.create(model="nightschool", messages=messages, max_tokens=24, stream=True)
    chunks = list(stream)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == whole.choices[0].message.content != ""
    extension = chunks[-1].model_extra["nightschool"]
    check_answer(extension, repository, commit)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="2020-01-01-0000-nothing", messages=messages)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{backend.url}/v1", api_key="wrong", max_retries=0).models.list()


async def test_from_an_editor(backend, repository, commit):
    client, deltas = LanguageClient("test", "1"), []
    await client.start_io(sys.executable, "-m", "nightschool", "lsp", "--stdio")

    @client.feature(types.PROGRESS)
    def on_progress(params):
        if str(params.token) == "answer":
            deltas.append(params.value)

    folder = types.WorkspaceFolder(repository.as_uri(), "itsdangerous")
    capabilities = types.ClientCapabilities()
    await client.initialize_async(
        types.InitializeParams(capabilities=capabilities, process_id=os.getpid(), workspace_folders=[folder])
    )
    client.initialized(types.InitializedParams())
    asked = {"question": QUESTION, "partialResultToken": "answer"}
    answer = await asyncio.wait_for(client.protocol.send_request_async("nightschool/ask", asked), 400)
    assert answer.answer
    assert len(deltas) > 1
    assert any(p.path == "src/itsdangerous/timed.py" for p in answer.passages)
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()


def test_two_backends_of_one_workspace_are_one_too_many(backend, repository, cli):
    second = cli("serve", cwd=repository)
    assert second.returncode == 1
    assert f"a backend of {repository} runs already: {backend.url}" in second.stderr.replace("\n", " ")


def test_a_reader_that_leaves_stops_the_engine(backend):
    with backend.http.stream("POST", "/ask", json={"question": QUESTION, "max_tokens": 2000},
                             headers={"Accept": "text/event-stream"}) as stream:  # fmt: skip
        next(stream.iter_lines())
    # The engine has one core: were the first answer still being written, this one would take its time.
    short = backend.http.post("/ask", json={"question": "Say yes.", "retrieval": False, "max_tokens": 1})
    assert short.json()["timings_ms"]["total"] < 5000


@contextmanager
def held(processes):
    """Stopped, until left."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def test_an_interrupted_ask_says_so_in_one_line(backend, repository):
    command = [sys.executable, "-m", "nightschool", "ask", QUESTION, "--workspace", str(repository)]
    # The quoted code needs no engine; with the engine held the answer cannot be over before it is interrupted.
    with held(psutil.Process(backend.process.pid).children(recursive=True)):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said.strip().splitlines()[-1] == "nightschool: interrupted; what was finished is kept"
