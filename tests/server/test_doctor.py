"""The doctor: true lines, what to do where something is wrong, and proofs that fail when they should."""

import json
import socket
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from server.base_model import BaseModel
from server.doctor import cluster, coverage, engine, token_mode, versions, watches
from server.doctor_proofs import CANARY, fingerprint, prove_adapter, prove_freshness
from server.model_folder import made_whole
from server.quantise import DONE

READY = {"engine": {"name": "ready", "reason": ""}, "base_model": "b", "adapter": None}


async def test_a_fresh_folder_is_looked_at_whole_and_left_as_it_was(cli, tmp_path, make_git):
    (tmp_path / "vault.py").write_text("def open_vault(code):\n    return code == 4711\n")
    (tmp_path / "nightschool.toml").write_text("[server]\nmodel = 'smollm2-135m'\n")
    (tmp_path / "picture.bin").write_bytes(b"\0" * 10)
    make_git(tmp_path)
    run = cli("doctor", "--json", "--workspace", str(tmp_path))
    report = json.loads(run.stdout)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert list(found) == [
        "Python", "disk", "memory", "GPU", "vLLM", "versions", "watches", "token", "base model", "embedder", "engine",
        "index", "freshness", "adapter",
    ]  # fmt: skip
    assert found["index"]["found"] == "2 files, 2 chunks; left out: 1 binary"
    assert found["embedder"]["found"] == "word-vectors-1, 256 dimensions"
    assert found["freshness"]["ok"], found["freshness"]
    assert run.returncode == (0 if report["ok"] else 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".git",
        ".nightschool",
        "nightschool.toml",
        "picture.bin",
        "vault.py",
    ]


def test_something_wrong_is_exit_1_with_what_to_do(cli, tmp_path):
    (tmp_path / "nightschool.toml").write_text("[server]\nmodel = '/no/such/folder'\n[indexer]\nembedder = '/none'\n")
    run = cli("doctor", "--workspace", str(tmp_path))
    assert run.returncode == 1
    assert "look base model: " in run.stdout
    assert "set [server] model" in run.stdout
    assert "ok   Python: 3." in run.stdout


async def test_an_index_that_sees_nothing_or_never_forgets_is_caught(tmp_path):
    place = Workspace(tmp_path)

    async def nothing():
        pass

    async def blind(query):
        return []

    async def stale(query):
        return [CANARY.format(query.split("canary_word_")[1].split(" ")[0])]

    for search, said in ((blind, "was not found"), (stale, "was still found after it was removed")):
        finding = await prove_freshness(place, search, nothing, within_s=0.2)
        assert (finding.ok, said in finding.found) == (False, True)
    assert list(tmp_path.iterdir()) == []


async def test_what_a_killed_doctor_left_goes(tmp_path):
    left = tmp_path / CANARY.format("abc")
    left.touch()

    async def nothing():
        pass

    async def search(query):
        return [path.name for path in tmp_path.iterdir()]

    assert (await prove_freshness(Workspace(tmp_path), search, nothing)).ok
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def weights(tmp_path):
    """Folders: an adapter, its base, the two merged as the engine reads them."""
    generator = torch.Generator().manual_seed(1)

    def noise(*shape, scale=1.0):
        return scale * torch.randn(*shape, generator=generator)

    base, down, up = noise(64, 64, scale=0.1), noise(4, 64, scale=0.1), noise(64, 4, scale=0.02)
    folders = [tmp_path / name for name in ("adapter", "base", "merged")]
    for folder in folders:
        folder.mkdir()
    layer = "model.layers.0.self_attn.q_proj"
    pair = {f"base_model.model.{layer}.lora_A.weight": down, f"base_model.model.{layer}.lora_B.weight": up}
    save_file(pair, folders[0] / "adapter_model.safetensors")
    (folders[0] / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 8}')
    for folder, tensor in ((folders[1], base), (folders[2], base + 2 * up @ down)):
        save_file({f"{layer}.weight": tensor.bfloat16()}, folder / "model.safetensors")
    return folders


def test_an_adapter_is_known_again_in_its_merged_weights_only(weights):
    adapter, base, merged = weights
    assert fingerprint(adapter, base, merged) > 0.9
    assert abs(fingerprint(adapter, base, base)) < 0.1  # the bare base model is served
    assert fingerprint(adapter, merged, base) < -0.9


def test_rounded_weights_are_compared_as_they_were_before(weights, tmp_path):
    adapter, base, merged = weights
    base_model = BaseModel("m", "", "", base, "", 4096, "", None, 1, "asked for")
    for origin, is_in in ((merged, True), (base, False)):
        with made_whole(tmp_path / "rounded", DONE, origin) as rounded:
            name = "model.layers.0.self_attn.q_proj.weight"
            save_file({name: torch.ones(64, 64, dtype=torch.int8)}, rounded / "model.safetensors")
        known = SimpleNamespace(folder=adapter, version="v1")
        assert prove_adapter(known, base_model, tmp_path / "rounded").ok is is_in


def test_another_shape_is_an_error_that_says_so(weights):
    adapter, base, merged = weights
    (merged / "model.safetensors").unlink()
    with pytest.raises(KeyError, match="q_proj"):
        fingerprint(adapter, base, merged)


def test_a_token_that_others_can_read_is_told(tmp_path):
    place = Workspace(tmp_path)
    assert token_mode(place).ok
    place.make_state_folder()
    (place.state / "token").write_text("x")
    (place.state / "token").chmod(0o644)
    assert (token_mode(place).ok, token_mode(place).found) == (False, "mode 644")
    (place.state / "token").chmod(0o600)
    assert token_mode(place).ok


def test_too_few_watches_are_told_with_the_command_that_helps(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    limit = tmp_path / "limit"
    limit.write_text("3\n")
    assert "sysctl fs.inotify.max_user_watches=524288" in watches(tmp_path, limit).todo
    assert not watches(tmp_path, limit).ok
    limit.write_text("4\n")
    assert watches(tmp_path, limit).ok


def test_other_versions_than_the_locks_are_named(tmp_path):
    (tmp_path / "cpu.lock").write_text("pytest==0.0.1\nno-such-package==1.0\n")
    (tmp_path / "gpu.lock").write_text((tmp_path / "cpu.lock").read_text())
    finding = versions(tmp_path)
    assert not finding.ok
    assert "(lock: 0.0.1), no-such-package missing (lock: 1.0)" in finding.found
    assert versions(tmp_path / "nowhere").ok


def test_the_engine_and_the_index_are_judged_by_what_they_say():
    assert engine(READY).ok
    assert engine(None).ok
    assert not engine(READY | {"engine": {"name": "failed", "reason": "no memory"}}).ok
    assert not coverage({"files": 0, "chunks": 0, "skipped": {}}).ok
    assert coverage({"files": 1, "chunks": 2, "skipped": {"binary": 3, "data": 4}}).found.endswith("4 data, 3 binary")
    without_chroma = coverage({"files": 1, "chunks": 2, "skipped": {}, "store_fault": "http://x does not answer"})
    assert (without_chroma.ok, "http://x" in without_chroma.found) == (False, True)


def test_the_cluster_is_looked_for_where_one_is_set():
    assert list(cluster(IndexerSettings())) == []
    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        assert [one.ok for one in cluster(IndexerSettings(ray=address))] == [True]
    (gone,) = cluster(IndexerSettings(ray=address))
    assert (gone.ok, f"no Ray cluster answers at {address}" in gone.found) == (False, True)
    assert next(cluster(IndexerSettings(ray="local"))).ok
