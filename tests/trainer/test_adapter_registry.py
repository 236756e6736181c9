"""The registry of adapters: sound folders, one pointer, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from server.adapter import (
    Adapter,
    BrokenAdapter,
    UnknownAdapter,
    find_adapter,
    find_broken,
    finish_adapter,
    list_adapters,
    new_version,
    promote,
    prune,
    read_current,
    rollback,
)
from server.adapter_diff import differences
from server.base_model import BaseModel
from server.vocabulary import vocabulary_sha256

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def make_adapter(adapters: Path, version: str, minute: int = 0, **changes: Any) -> Adapter:
    import numpy as np

    staging = adapters / f".staging-{version}"
    staging.mkdir(parents=True)
    save_file({"layer.lora_A.weight": np.ones((2, 3), np.float32)}, staging / "adapter_model.safetensors")
    (staging / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    base = {"name": "tiny", "revision": "1", "sha256": "ab" * 32}
    manifest = {"version": version, "created_at": NOON.replace(minute=minute), "base_model": base, "prompt_version": 1}
    return finish_adapter(staging, adapters, manifest | changes)


def test_without_a_pointer_the_base_model_is_in_service(tmp_path: Path) -> None:
    assert read_current(tmp_path / "adapters") is None
    assert list_adapters(tmp_path / "adapters") == []


def test_promoting_and_rolling_back_walk_the_kept_history(tmp_path: Path) -> None:
    for minute, version in enumerate(("a", "b", "c")):
        make_adapter(tmp_path, version, minute)
    assert [adapter.version for adapter in list_adapters(tmp_path)] == ["c", "b", "a"]
    for version in ("a", "c"):
        assert promote(tmp_path, version).version == version
    pointer = json.loads((tmp_path / "current.json").read_text())
    assert (pointer["version"], pointer["previous"]) == ("c", ["a", None])
    assert datetime.fromisoformat(pointer["changed_at"]).tzinfo
    back = rollback(tmp_path)
    assert back is not None
    assert back.version == "a"
    assert rollback(tmp_path) is None
    assert read_current(tmp_path) is None


def test_promoting_the_one_in_service_again_changes_nothing(tmp_path: Path) -> None:
    make_adapter(tmp_path, "a")
    promote(tmp_path, "a")
    before = (tmp_path / "current.json").read_bytes()
    promote(tmp_path, "a")
    assert (tmp_path / "current.json").read_bytes() == before


def test_an_unknown_version_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    make_adapter(tmp_path, "a")
    with pytest.raises(UnknownAdapter, match=r"no adapter 'é'; known: a"):
        promote(tmp_path, "é")
    with pytest.raises(UnknownAdapter):
        find_adapter(tmp_path, "../a")


def test_a_changed_weight_file_is_not_promoted(tmp_path: Path) -> None:
    weights = make_adapter(tmp_path, "a").folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BrokenAdapter, match=r"changed since it was made: adapter_model\.safetensors"):
        promote(tmp_path, "a")
    assert read_current(tmp_path) is None


def test_a_cut_off_weight_file_is_reported_and_not_listed(tmp_path: Path) -> None:
    weights = make_adapter(tmp_path, "a").folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    assert list_adapters(tmp_path) == []
    assert "cut off" in find_broken(tmp_path)["a"]


def test_noise_instead_of_weights_is_reported(tmp_path: Path) -> None:
    weights = make_adapter(tmp_path, "a").folder / "adapter_model.safetensors"
    weights.write_bytes(b"\xff" * 100)
    assert "no safetensors file" in find_broken(tmp_path)["a"]


def test_a_pickle_in_an_adapter_folder_makes_it_refused(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path, "a").folder
    (folder / "optimizer.pt").write_bytes(pickle.dumps({"step": 1}))
    with pytest.raises(BrokenAdapter, match=r"optimizer\.pt does not belong there"):
        promote(tmp_path, "a")


def test_a_link_out_of_an_adapter_folder_makes_it_refused(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path, "a").folder
    (folder / "notes.json").symlink_to("/etc/passwd")
    assert "not a plain file" in find_broken(tmp_path)["a"]


@pytest.mark.parametrize("config", ['{"peft_type": "LORA", "r": 2, "use_dora": true}', '{"r": 2}', "[]", "nonsense"])
def test_a_config_that_cannot_be_served_is_refused(tmp_path: Path, config: str) -> None:
    folder = make_adapter(tmp_path, "a").folder
    (folder / "adapter_config.json").write_text(config)
    assert "adapter_config.json" in find_broken(tmp_path)["a"]


def test_an_unfinished_folder_is_reported(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path, "a").folder
    (folder / "manifest.json").unlink()
    assert "was not finished" in find_broken(tmp_path)["a"]


def test_rollback_passes_over_versions_that_are_gone(tmp_path: Path) -> None:
    for minute, version in enumerate(("a", "b", "c")):
        make_adapter(tmp_path, version, minute)
        promote(tmp_path, version)
    (tmp_path / "b" / "manifest.json").unlink()
    back = rollback(tmp_path)
    assert back is not None
    assert back.version == "a"


def test_pruning_keeps_the_one_in_service_and_the_one_before_it(tmp_path: Path) -> None:
    for minute, version in enumerate(("a", "b", "c", "d", "e")):
        make_adapter(tmp_path, version, minute)
    promote(tmp_path, "a")
    promote(tmp_path, "b")
    assert prune(tmp_path, keep=1) == ["d", "c"]
    assert [adapter.version for adapter in list_adapters(tmp_path)] == ["e", "b", "a"]


def test_a_new_version_is_new(tmp_path: Path) -> None:
    assert new_version(tmp_path, "AB12cd3456", NOON) == "2026-11-23-1200-12cd345"
    first = new_version(tmp_path, "ab12cd3456", NOON)
    assert first == "2026-11-23-1200-ab12cd3"
    make_adapter(tmp_path, first)
    assert new_version(tmp_path, "ab12cd3456", NOON) == "2026-11-23-1200-ab12cd3-2"


def test_an_adapter_of_other_weights_or_another_prompt_does_not_fit(tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path, "a")
    base = BaseModel("tiny", "1", "ab" * 32, tmp_path, "MIT", 512, "<e>", None, 10, "")
    assert adapter.misfit(base, 1) == ""
    assert "prompt version 1, now it is 2" in adapter.misfit(base, 2)
    other = BaseModel("other", "1", "cd" * 32, tmp_path, "MIT", 512, "<e>", None, 10, "")
    assert "was trained on tiny (abababababab), not on other" in adapter.misfit(other, 1)


def test_an_adapter_does_not_fit_its_base_model_with_another_tokenizer(tmp_path: Path, tiny_folder: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "base")
    base = BaseModel("tiny", "1", "ab" * 32, folder, "MIT", 512, "<e>", None, 10, "")
    trained_on = {"name": "tiny", "revision": "1", "sha256": "ab" * 32, "vocabulary": vocabulary_sha256(folder)}
    adapter = make_adapter(tmp_path / "adapters", "a", base_model=trained_on)
    assert adapter.misfit(base, 1) == ""
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    file.write_text(json.dumps({**tokenizer, "truncation": None}, indent=4))
    assert adapter.misfit(base, 1) == "", "written otherwise, it is the same tokenizer"
    one, other = list(tokenizer["model"]["vocab"])[:2]
    swapped = {one: tokenizer["model"]["vocab"][other], other: tokenizer["model"]["vocab"][one]}
    tokenizer["model"]["vocab"] |= swapped
    file.write_text(json.dumps(tokenizer))
    assert adapter.misfit(base, 1) == "adapter a was trained with another tokenizer than tiny has now"
    file.unlink()
    assert "another tokenizer" in adapter.misfit(base, 1)


def test_what_would_be_pruned_is_told_and_left(tmp_path: Path) -> None:
    for minute, version in enumerate(("a", "b", "c")):
        make_adapter(tmp_path, version, minute)
    assert prune(tmp_path, keep=1, dry_run=True) == ["b", "a"]
    assert [adapter.version for adapter in list_adapters(tmp_path)] == ["c", "b", "a"]


def test_a_clock_that_went_back_costs_neither_the_one_in_service_nor_the_way_back(tmp_path: Path) -> None:
    for minute, version in ((30, "old-but-dated-ahead"), (40, "before"), (1, "newest-by-a-clock-set-back")):
        make_adapter(tmp_path, version, minute)
    promote(tmp_path, "before")
    promote(tmp_path, "newest-by-a-clock-set-back")
    assert prune(tmp_path, keep=1) == ["old-but-dated-ahead"]
    current = read_current(tmp_path)
    assert current is not None
    assert current.version == "newest-by-a-clock-set-back"
    back = rollback(tmp_path)
    assert back is not None
    assert back.version == "before"
    make_adapter(tmp_path, "2026-11-23-1200-c0ffee1")
    assert new_version(tmp_path, "c0ffee1", NOON) == "2026-11-23-1200-c0ffee1-2"


def test_the_differences_of_two_adapters_are_those_of_their_manifests(tmp_path: Path) -> None:
    one = make_adapter(tmp_path, "a", 0, steps=10, hyper_parameters={"rank": 8, "alpha": 8}, commit="c0ffee")
    other = make_adapter(
        tmp_path, "b", 1, steps=10, hyper_parameters={"rank": 16, "alpha": 8, "backend": "é"}, losses={"train": 1.5}
    )
    found = differences(one.manifest, other.manifest)
    assert [(row.field, row.one, row.other) for row in found] == [
        ("commit", "c0ffee", ""),
        ("hyper_parameters.backend", None, "é"),
        ("hyper_parameters.rank", 8, 16),
        ("losses.train", None, 1.5),
    ]
    assert differences(one.manifest, one.manifest) == []


def test_the_commands_of_the_registry(cli: Any, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    adapters = tmp_path / ".nightschool" / "adapters"
    for minute, version in enumerate(("a", "b", "c")):
        make_adapter(adapters, version, minute, steps=minute)
    told = cli("adapters", "diff", "a", "b", "--json", cwd=tmp_path)
    assert json.loads(told.stdout) == [{"field": "steps", "one": 0, "other": 1}]
    assert cli("adapters", "prune", "--keep", "2", "--dry-run", cwd=tmp_path).stdout == "would delete a\n"
    assert json.loads(cli("adapters", "prune", "--keep", "2", "--json", cwd=tmp_path).stdout) == {"deleted": ["a"]}
    assert cli("adapters", "prune", "--keep", "2", cwd=tmp_path).stdout == "nothing to delete\n"
    refused = cli("adapters", "diff", "a", "b", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no adapter 'a'; known: c, b" in refused.stderr
