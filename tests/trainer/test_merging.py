"""Merging an adapter into its base model."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from server.adapter import TrainedOn, finish_adapter
from server.base_model import BaseModel
from server.merge import MergeError, main, merge
from trainer.lora import load_with_lora, save_adapter, shrink_rank
from trainer.presets import Preset, find_preset


@pytest.fixture(scope="module")
def adapter_folder(tiny_base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    preset: Preset = find_preset("cpu", rank=4, alpha=8)
    model, _ = load_with_lora(tiny_base, preset, "trl", seed=1)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(model, tiny_base, folder)
    return folder


def test_the_merged_model_answers_like_base_and_adapter(
    adapter_folder: Path, tiny_base: BaseModel, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merged = merge(tiny_base.folder, adapter_folder, tmp_path / "merged")
    ids = torch.arange(60).reshape(1, -1)
    plain = AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32)
    with torch.no_grad():
        without = plain(ids).logits
        apart = PeftModel.from_pretrained(plain, adapter_folder).eval()(ids).logits
        together = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(ids).logits
    assert (apart - without).abs().max() > 0.05
    assert (apart - together).abs().max() < 0.02  # rounded to bf16 once
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (merged / name).read_bytes() == (tiny_base.folder / name).read_bytes()


def test_merging_again_does_nothing(adapter_folder: Path, tiny_base: BaseModel, tmp_path: Path) -> None:
    out = merge(tiny_base.folder, adapter_folder, tmp_path / "merged")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    merge(tiny_base.folder, adapter_folder, out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_damaged_adapter_is_refused_and_leaves_nothing(
    adapter_folder: Path, tiny_base: BaseModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = shutil.copytree(adapter_folder, tmp_path / "damaged")
    weights = damaged / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(MergeError, match="cut off or damaged"):
        merge(tiny_base.folder, damaged, tmp_path / "out" / "merged")
    assert main([str(tiny_base.folder), str(damaged), str(tmp_path / "out" / "merged")]) == 1
    assert "cut off or damaged" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_changed_byte_is_refused_where_the_manifest_says_what_was_made(
    adapter_folder: Path, tiny_base: BaseModel, tmp_path: Path
) -> None:
    staging = shutil.copytree(adapter_folder, tmp_path / "staging")
    created = datetime(2026, 11, 1, tzinfo=UTC)
    about = {"version": "a", "created_at": created, "base_model": TrainedOn.of(tiny_base), "prompt_version": 1}
    adapter = finish_adapter(staging, tmp_path, about)
    merge(tiny_base.folder, adapter.folder, tmp_path / "merged")
    weights = adapter.folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(MergeError, match=r"changed since it was made: adapter_model\.safetensors"):
        merge(tiny_base.folder, adapter.folder, tmp_path / "again")


def test_an_adapter_of_another_shape_does_not_fit(adapter_folder: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "other")
    with pytest.raises(MergeError, match="does not fit other"):
        merge(tmp_path / "other", adapter_folder, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_rank_too_high_to_serve_is_shrunk_to_the_nearest_that_is_not(
    adapter_folder: Path, tiny_base: BaseModel, tmp_path: Path
) -> None:
    import json
    import shutil

    from safetensors.torch import load_file

    def updates(folder: Path) -> dict[str, torch.Tensor]:
        weights = load_file(folder / "adapter_model.safetensors")
        config = json.loads((folder / "adapter_config.json").read_text())
        scale = config["lora_alpha"] / config["r"]
        pairs = [(name, name.replace("lora_A", "lora_B")) for name in weights if "lora_A" in name]
        return {a: scale * weights[b] @ weights[a] for a, b in pairs}

    same = shutil.copytree(adapter_folder, tmp_path / "same")
    assert not shrink_rank(same, 4)
    small = shutil.copytree(adapter_folder, tmp_path / "small")
    assert shrink_rank(small, 3)
    for name, update in updates(small).items():
        whole = updates(same)[name]
        assert torch.linalg.matrix_rank(update.double(), rtol=1e-4) == 3
        lost = torch.linalg.svdvals(whole)[3]
        assert torch.linalg.matrix_norm(whole - update, 2).item() == pytest.approx(lost.item(), rel=1e-3)
    assert merge(tiny_base.folder, small, tmp_path / "merged")
