"""Rounding a model's weights for the engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from server.base_model import BaseModel
from server.quantise import QuantiseError, main, quantise

# compressed-tensors compiles a function as it is imported, and torch warns of a decorator of its own.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")


def test_each_weight_is_rounded_by_at_most_half_a_step(tiny_base: BaseModel, tmp_path: Path) -> None:
    out = quantise(tiny_base.folder, "W8A8", tmp_path / "rounded")
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_base.folder, out))
    rounded = [name for name, weight in after.items() if weight.dtype == torch.int8]
    assert len(rounded) == sum("proj" in name for name in before) > 0
    for name in rounded:
        scale = after[f"{name}_scale"].float()
        # The scale itself has bfloat16's eight bits: at the largest weight, 127 steps, that is up to half a step more.
        assert ((after[name].float() * scale - before[name].float()).abs() <= 1.01 * scale).all()
        assert after[name].abs().max() > 100
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (tiny_base.folder / name).read_bytes()


def test_rounding_again_does_nothing(tiny_base: BaseModel, tmp_path: Path) -> None:
    out = quantise(tiny_base.folder, "W8A8", tmp_path / "rounded")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    quantise(tiny_base.folder, "W8A8", out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_half_made_folder_is_made_anew(tiny_base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "rounded").mkdir()
    (tmp_path / "rounded" / "model.safetensors").write_bytes(b"half")
    out = quantise(tiny_base.folder, "W8A8", tmp_path / "rounded")
    assert load_file(out / "model.safetensors")


def test_rows_that_no_group_divides_are_refused_and_leave_nothing(
    tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("server.quantise.GROUP", 7)
    with pytest.raises(QuantiseError, match="not a multiple of 7"):
        quantise(tiny_base.folder, "W4A16", tmp_path / "rounded")
    assert main([str(tiny_base.folder), "W4A16", str(tmp_path / "rounded")]) == 1
    assert "not a multiple of 7" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
