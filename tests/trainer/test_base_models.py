"""A name -> weights on disk: what `auto` takes, what a folder says of itself, and what is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.base_model import BaseModelUnavailable, choose, read_catalogue, resolve_base_model
from server.base_model_cache import digest_file
from server.base_model_read import find_end_of_turn
from server.machine import Machine

HUBS = frozenset(entry.hub for entry in read_catalogue() if entry.hub)


@pytest.mark.parametrize(
    ("machine", "name", "why"),
    [
        (Machine(80, 64, True), "qwen2.5-coder-7b", "the best that fits the GPU (80 GiB)"),
        (Machine(24, 64, True), "qwen2.5-coder-7b", "the best that fits the GPU (24 GiB)"),
        (Machine(8, 64, True), "qwen2.5-coder-1.5b", "the best that fits the GPU (8 GiB)"),
        (Machine(0, 16, True), "qwen2.5-coder-0.5b", "the best for no GPU and 16 GiB of memory"),
        (Machine(4, 16, True), "qwen2.5-coder-0.5b", "the best for a GPU of 4 GiB and 16 GiB of memory"),
        (Machine(0, 4, True), "smollm2-135m", "the embedded one: no GPU, and only 4 GiB of memory"),
        (Machine(0, 64, False), "smollm2-135m", "the embedded one: no GPU, and the Hugging Face Hub does not answer"),
        (Machine(24, 64, False, HUBS), "qwen2.5-coder-7b", "the best that fits the GPU (24 GiB)"),
    ],
)
def test_auto_takes_the_best_that_machine_and_network_hold(machine: Machine, name: str, why: str) -> None:
    entry, reason = choose(machine)
    assert (entry.name, reason) == (name, why)


def test_every_row_of_the_catalogue_says_what_the_engine_must_know() -> None:
    for entry in read_catalogue():
        assert entry.licence
        assert entry.context_length >= 8192
        assert entry.end_of_turn
        assert bool(entry.hub) != bool(entry.distribution)


def test_a_local_folder_says_what_it_is(tiny_folder: Path, tmp_path: Path) -> None:
    model = resolve_base_model(str(tiny_folder), tmp_path, lambda _: None)
    assert (model.name, model.revision, model.folder) == ("tiny", "local", tiny_folder)
    assert (model.context_length, model.end_of_turn, model.fim) == (2048, "<|end|>", None)
    assert model.parameters > 50_000
    known = {path: path.stat().st_mtime_ns for path in (tmp_path / "facts").iterdir()}
    assert resolve_base_model(str(tiny_folder), tmp_path, lambda _: None) == model
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "facts").iterdir()} == known


def test_a_template_without_an_end_token_is_refused(make_tokenizer: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="its chat template has no end token after an answer"):
        find_end_of_turn(make_tokenizer("{% for m in messages %}{{ m['content'] }}\n{% endfor %}"))
    with pytest.raises(ValueError, match="its tokenizer has no chat template"):
        find_end_of_turn(make_tokenizer(""))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-model", "no base model 'no-such-model': give auto, one of qwen"),
        ("/nowhere/model.gguf", "/nowhere/model.gguf does not exist"),
        ("/nowhere/model", "no base model '/nowhere/model'"),
    ],
)
def test_an_unknown_name_says_what_can_be_given(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelUnavailable, match=message):
        resolve_base_model(name, tmp_path, lambda _: None)


def test_a_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(BaseModelUnavailable, match=r"no \*\.safetensors in it"):
        resolve_base_model(str(tmp_path), tmp_path / "cache", lambda _: None)


def test_noise_with_the_name_of_a_gguf_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "noise.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(BaseModelUnavailable, match=r"cannot unpack noise\.gguf: "):
        resolve_base_model(str(tmp_path / "noise.gguf"), tmp_path / "cache", lambda _: None)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".lock", "facts"]


def test_the_embedded_model_is_inside_an_installed_package_that_is_not_imported() -> None:
    (entry,) = [entry for entry in read_catalogue() if entry.distribution]
    spec = importlib.util.find_spec(entry.file.partition("/")[0])
    assert spec is not None
    assert spec.origin is not None
    assert digest_file(Path(spec.origin).parent / Path(entry.file).name) == entry.sha256


@pytest.mark.engine
def test_the_embedded_model_unpacks_once_with_a_mended_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    told: list[str] = []
    model = resolve_base_model("smollm2-135m", tmp_path, told.append)
    assert resolve_base_model("smollm2-135m", tmp_path, told.append) == model
    assert len(told) == 1
    assert (model.end_of_turn, model.context_length, model.parameters) == ("<|im_end|>", 8192, 134_515_008)
    tokenizer = AutoTokenizer.from_pretrained(model.folder)
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.model_max_length) == ("<|im_end|>", 2, 8192)
    assert tokenizer.decode(tokenizer("a , b ( c )")["input_ids"]) == "a , b ( c )"
