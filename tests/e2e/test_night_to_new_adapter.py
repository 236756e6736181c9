"""Flow 3: a training becomes the adapter in service, while questions go on being answered."""

import json
import threading

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1500)]


def test_a_new_adapter_comes_in_and_goes_out_without_a_dropped_request(backend, repository, cli, wait):
    # Without what the engine would write: 111 answers take more than five minutes on a machine without AMX, and
    # test_a_page_to_its_questions.py is about them.
    collected = cli("collect", "--json", cwd=repository, NIGHTSCHOOL_CORPUS__GENERATOR="off")
    assert collected.returncode == 0, collected.stderr
    assert json.loads(collected.stdout)["raw_examples"] > 0
    answers, failures, over = [], [], threading.Event()

    def keep_asking():
        # Twice a second at most: training and engine share the cores.
        while not over.wait(0.5):
            try:
                asked = {"question": "What is a Signer?", "max_tokens": 8, "k": 2}
                response = backend.http.post("/ask", json=asked)
                response.raise_for_status()
                body = response.json()
                assert body["answer"], body["notices"]
                answers.append(body["adapter"])
            except Exception as error:
                failures.append(error)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        trained = cli("train", "--budget", "1", "--json", cwd=repository, timeout_s=600)
        assert trained.returncode == 0, trained.stderr
        manifest = json.loads(trained.stdout)
        version = manifest["version"]
        wait(lambda: answers and answers[-1] == version, 500, f"{version} is not served; failures: {failures}")
        listed = json.loads(cli("adapters", "list", "--json", cwd=repository).stdout)
        assert listed["in_service"] == version
        rolled = cli("adapters", "rollback", cwd=repository)
        assert rolled.stdout.strip() == "in service: the base model"
        wait(lambda: answers[-1] is None, 500, f"the base model is not served again; failures: {failures}")
    finally:
        over.set()
        asking.join()
    assert failures == []
    assert answers[0] is None
    assert manifest["base_model"]["name"] == "smollm2-135m"
    assert manifest["losses"]["held_out_after"] < manifest["losses"]["held_out_before"]
    # One adapter at a time, in the order they were put in service: nobody was answered by an old one after a new one.
    changes = [version for before, version in zip([object(), *answers], answers, strict=False) if before != version]
    assert changes == [None, version, None]


def test_an_unknown_version_is_one_clear_line(repository, cli):
    refused = cli("adapters", "promote", "2020-01-01-0000-nothing", cwd=repository)
    assert refused.returncode == 1
    assert "2020-01-01-0000-nothing" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
