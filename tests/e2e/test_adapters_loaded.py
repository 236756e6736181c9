"""Adapters loaded into a real vLLM at run time: they answer, change places under load, and are back after a kill -9.

On a CPU it is slow, and what is tested is the same as on a GPU: the routes, the names, and what the engine then writes.
"""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from indexer.workspace import Workspace
from server.adapter import finish_adapter, promote
from server.base_model import resolve_base_model
from server.loading import PROBE_TEXT
from server.prompt import PROMPT_VERSION
from server.settings import ServerSettings

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1500)]
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FIRST, SECOND = "2026-01-01-0000-first", "2026-01-02-0000-second"
ASKED = {"question": "What is a version control system good for?", "retrieval": False, "max_tokens": 8}


def make_adapter(place, base, version, seed):
    """A LoRA of rank 8 with chance in it, strong enough to be read in what it writes."""
    chance, tensors = torch.Generator().manual_seed(seed), {}
    with safe_open(base.folder / "model.safetensors", "pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - no mapping
            if name.split(".")[-2] in MODULES:
                out, into = weights.get_slice(name).get_shape()
                layer = f"base_model.model.{name.removesuffix('.weight')}"
                tensors[f"{layer}.lora_A.weight"] = torch.randn(8, into, generator=chance) / math.sqrt(into)
                tensors[f"{layer}.lora_B.weight"] = torch.randn(out, 8, generator=chance) * 0.08
    place.adapters.mkdir(parents=True, exist_ok=True)
    staging = place.adapters / f".{version}"
    staging.mkdir()
    save_file(tensors, staging / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 8, "target_modules": list(MODULES)}
    (staging / "adapter_config.json").write_text(json.dumps(config))
    about = {"version": version, "created_at": datetime.now(UTC), "prompt_version": PROMPT_VERSION}
    trained_on = {"name": base.name, "revision": base.revision, "sha256": base.sha256}
    return finish_adapter(staging, place.adapters, about | {"base_model": trained_on})


@pytest.fixture(scope="module")
def house(tmp_path_factory, make_git, wait):
    """A small workspace whose backend loads adapters; two are kept, the first is in service. Ended when left."""
    root = tmp_path_factory.mktemp("loaded") / "house"
    root.mkdir()
    (root / "signer.py").write_text("class Signer:\n    def sign(self, value):\n        return value\n")
    settings = "[server]\nmodel = 'smollm2-135m'\neager = true\nadapters = 'loaded'\nrequests_per_minute = 0\n"
    (root / "nightschool.toml").write_text(settings)
    make_git(root)
    place = Workspace(root)
    place.make_state_folder()
    base = resolve_base_model("smollm2-135m", ServerSettings().models_cache.expanduser(), print)
    kept = [make_adapter(place, base, version, seed) for seed, version in enumerate((FIRST, SECOND))]
    promote(place.adapters, FIRST)
    command = [sys.executable, "-m", "nightschool", "serve", "--workspace", str(root)]
    with (root.parent / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait((place.state / "backend.json").exists, 60, "the backend does not answer", process)
        headers = {"Authorization": f"Bearer {(place.state / 'token').read_text().strip()}"}
        url = json.loads((place.state / "backend.json").read_text())["url"]
        with httpx.Client(base_url=url, headers=headers, timeout=400, trust_env=False) as http:
            wait(lambda: http.get("/readyz").status_code == 200, 400, "the engine is not ready", process)
            yield SimpleNamespace(http=http, place=place, base=base, kept=kept, root=root)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ask(house, **more):
    answer = house.http.post("/ask", json=ASKED | more).raise_for_status().json()
    assert answer["base_model"] == "smollm2-135m", answer["notices"]
    return answer


def in_service(house):
    return house.http.get("/adapters").json()["in_service"]


def engine_of(house):
    """The guard of the newest engine, and the port that vLLM listens on."""
    pid, _ = json.loads((house.place.state / "engines.json").read_text())[-1]
    command = psutil.Process(pid).cmdline()
    return pid, int(command[command.index("--port") + 1])


def test_it_answers_as_the_adapter_says_and_the_base_model_answers_beside_it(house, cli):
    first, base, second = ask(house), ask(house, adapter="none"), ask(house, adapter=SECOND)
    assert [answer["adapter"] for answer in (first, base, second)] == [FIRST, None, SECOND]
    assert len({answer["answer"] for answer in (first, base, second)}) == 3
    served = house.http.get("/adapters/served").json()
    assert (served["adapter"], served["served"], served["loaded"]) == (FIRST, "loaded", [FIRST, SECOND])
    # What the engine reads with it is what PEFT reads with it: the right adapter, at the right strength.
    assert served["difference"] == pytest.approx(difference_by_peft(house), rel=0.1)
    assert f'nightschool_adapter_loaded{{adapter="{FIRST}"}} 1.0' in house.http.get("/metrics").text
    (found,) = [
        finding
        for finding in json.loads(cli("doctor", "--json", cwd=house.root).stdout)["findings"]
        if finding["name"] == "adapter"
    ]
    assert found["ok"], found
    assert f"{FIRST}: loaded into the engine" in found["found"]


def difference_by_peft(house):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = torch.tensor([AutoTokenizer.from_pretrained(house.base.folder)(PROBE_TEXT)["input_ids"]])
    model = AutoModelForCausalLM.from_pretrained(house.base.folder, dtype=torch.float32)

    def read(model):
        with torch.no_grad():
            logprobs = model(ids).logits.log_softmax(-1)
        return logprobs[0, :-1].gather(-1, ids[0, 1:, None])

    without = read(model)
    return float((read(PeftModel.from_pretrained(model, house.kept[0].folder)) - without).abs().mean())


def test_nobody_but_its_backend_is_answered_by_the_engine(house):
    _, port = engine_of(house)
    hole = {"name": "hole", "src": str(house.kept[0].folder)}
    chat = {"model": "served", "messages": [{"role": "user", "content": "?"}]}
    load = {"lora_name": "hole", "lora_path": hole["src"]}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as stranger:
        for path, body in (("/adapters", hole), ("/invocations", chat), ("/v1/load_lora_adapter", load)):
            assert stranger.post(path, json=body).status_code == 401, path
        for path in ("/v1/models", "/health", "/docs", "/metrics"):
            assert stranger.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401, path
    assert house.http.get("/adapters/served").json()["loaded"] in ([FIRST], [FIRST, SECOND])


@contextmanager
def asking(house, clients=4):
    """Clients that ask one question after the other: (the adapters of their answers, what failed)."""
    answered, failed, over = [], [], threading.Event()

    def keep_asking():
        while not over.is_set():
            try:
                answered.append(ask(house, max_tokens=2)["adapter"])
            except Exception as error:  # what is counted here
                failed.append(repr(error))

    threads = [threading.Thread(target=keep_asking) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answered, failed
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_adapters_change_places_under_load_in_seconds_and_nothing_fails(house, wait):
    pid, _ = engine_of(house)
    took = {}
    with asking(house) as (answered, failed):
        wait(lambda: answered, 100, f"nobody is answered: {failed}")
        for step, path, wanted in (
            ("promote", f"/adapters/{SECOND}/promote", SECOND),
            ("rollback", "/adapters/rollback", FIRST),
            ("rollback to the base model", "/adapters/rollback", None),
        ):
            began = time.monotonic()
            house.http.post(path).raise_for_status()
            wait(lambda wanted=wanted: in_service(house) == wanted, 200, f"{step} has no effect; failed: {failed}")
            took[step] = round(time.monotonic() - began, 1)
            wait(lambda wanted=wanted: answered[-1] == wanted, 300, f"{step} is not seen; failed: {failed}")
    print(f"seconds until it is in service: {took}; {len(answered)} answers meanwhile")
    assert failed == []
    assert engine_of(house)[0] == pid  # no second engine
    assert max(took["rollback"], took["rollback to the base model"]) < 30
    wait(lambda: house.http.get("/adapters/served").json()["loaded"] in ([], [SECOND]), 30, "the old stay loaded")


def test_after_kill_9_the_adapter_is_there_again_before_it_is_ready(house, wait):
    house.http.post(f"/adapters/{SECOND}/promote").raise_for_status()
    wait(lambda: house.http.get("/readyz").json()["adapter"] == SECOND, 100, f"{SECOND} is not in service")
    pid, _ = engine_of(house)
    os.killpg(pid, signal.SIGKILL)
    wait(lambda: house.http.get("/readyz").status_code == 503, 30, "that it is gone is not seen")
    wait(lambda: house.http.get("/readyz").status_code == 200, 400, "it does not come back")
    assert house.http.get("/adapters/served").json()["loaded"] == [SECOND]
    assert ask(house)["adapter"] == SECOND
    assert engine_of(house)[0] != pid
    assert Path(f"/proc/{pid}").exists() is False
