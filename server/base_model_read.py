"""Reading a base model with transformers, in a process of its own: `python -m server.base_model_read unpack|facts ...`.

The last line on stdout is the facts as JSON; a failure is one line on stderr and exit status 1.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from server.base_model_cache import Facts

_FIM = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder
)


def unpack(gguf: Path, folder: Path, digest: str, end_of_turn: str) -> Facts:
    """Write `gguf` to `folder` as bf16 safetensors with its tokenizer mended. Raises `ValueError`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16)
    # Otherwise save_pretrained looks for a GGUF writer, and the loader for a GGUF file.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    _mend(tokenizer, model.config, end_of_turn)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return read_facts(folder, digest)


def _mend(tokenizer: Any, config: Any, end_of_turn: str) -> None:
    # For SmolLM2 the tokenizer comes with the end token <|im_start|> and no length: nothing would ever stop, and
    # training would learn the wrong end. The model's own config has the right id.
    right = end_of_turn or tokenizer.convert_ids_to_tokens(config.eos_token_id) or find_end_of_turn(tokenizer)
    tokenizer.eos_token = right
    tokenizer.pad_token = tokenizer.pad_token or right
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.clean_up_tokenization_spaces = False  # it takes the space out of `a , b`: text is code here


def read_facts(folder: Path, digest: str) -> Facts:
    """The facts of `folder`. Raises `ValueError` for a tokenizer without a chat template or a template without an
    end.
    """
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    vocabulary = tokenizer.get_vocab()
    fim = next((tokens for tokens in _FIM if all(token in vocabulary for token in tokens)), None)
    length = int(getattr(config, "max_position_embeddings", 0) or tokenizer.model_max_length)
    return Facts(digest, count_parameters(folder), length, find_end_of_turn(tokenizer), fim)


def find_end_of_turn(tokenizer: Any) -> str:
    """The special token that the chat template writes after an answer, as text. Raises `ValueError` when there is
    none.
    """
    if not tokenizer.chat_template:
        raise ValueError("its tokenizer has no chat template: take an instruct model")
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "\u2402answer\u2402"}]
    after = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition("\u2402answer\u2402")[2].strip()
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    if not ids or ids[0] not in _special_ids(tokenizer):
        raise ValueError(f"its chat template has no end token after an answer (it writes {after[:40]!r})")
    return str(tokenizer.convert_ids_to_tokens(ids[0]))


def _special_ids(tokenizer: Any) -> set[int]:
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def count_parameters(folder: Path) -> int:
    """Numbers in all safetensors files of `folder`, from their headers."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            total += sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total


def main(arguments: list[str]) -> int:
    try:
        if arguments[0] == "unpack":
            facts = unpack(Path(arguments[1]), Path(arguments[2]), arguments[3], arguments[4])
        else:
            facts = read_facts(Path(arguments[1]), arguments[2])
    except Exception as error:  # the edge of this process
        sys.stderr.write(f"\n{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'failed'}\n")
        return 1
    sys.stdout.write("\n" + json.dumps(asdict(facts)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
