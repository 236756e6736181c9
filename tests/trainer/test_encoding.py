"""Encoding: what is learnt, what is only read, and that packing loses and mixes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.encoding import IGNORED, BadTemplate, Encoded, encode_chat, encode_raw, keep_apart, pack

END = 256
TALK = [{"role": "user", "content": "Où est 🌍?\r\n"}, {"role": "assistant", "content": "here\r\né"}]


@pytest.mark.parametrize("text", ["def f(): ...\n", "é 🌍\r\nend", "x\r\n\r\n"])
def test_raw_text_is_learnt_whole_and_decodes_to_itself(tokenizer: Any, text: str) -> None:
    encoded = encode_raw(text, True, tokenizer, "<|end|>")
    assert encoded.labels == encoded.input_ids
    assert encoded.input_ids[-1] == END
    assert tokenizer.decode(encoded.input_ids[:-1]) == text


def test_only_the_last_chunk_of_a_document_ends(tokenizer: Any) -> None:
    assert END not in encode_raw("first half\n", False, tokenizer, "<|end|>").input_ids
    assert encode_raw("", True, tokenizer, "<|end|>").input_ids == (END,)


def test_of_a_conversation_only_the_answer_and_one_end_token_are_learnt(tokenizer: Any) -> None:
    encoded = encode_chat(TALK, tokenizer, "<|end|>")
    learnt = [token for token in encoded.labels if token != IGNORED]
    assert tokenizer.decode(learnt) == "here\r\né<|end|>"
    assert learnt.count(END) == 1
    assert tokenizer.decode(encoded.input_ids).startswith("<|start|>user\nOù est 🌍?\r\n<|end|>\n<|start|>assistant\n")


def test_an_answer_that_names_the_end_token_is_still_learnt_to_its_end(tokenizer: Any) -> None:
    talk = [TALK[0], {"role": "assistant", "content": "it is <|end|> there"}]
    learnt = [token for token in encode_chat(talk, tokenizer, "<|end|>").labels if token != IGNORED]
    assert tokenizer.decode(learnt) == "it is <|end|> there<|end|>"


def test_the_original_recipe_learns_the_prompt_too(tokenizer: Any) -> None:
    encoded = encode_chat(TALK, tokenizer, "<|end|>", learn_all=True)
    assert encoded.labels == encoded.input_ids


def test_a_template_without_an_end_token_is_refused(make_tokenizer: Any) -> None:
    endless = make_tokenizer("{% for message in messages %}{{ message['content'] }}\n{% endfor %}")
    with pytest.raises(BadTemplate, match=r"writes no <\|end\|> after an answer"):
        encode_chat(TALK, endless, "<|end|>")


def test_a_template_that_strips_the_answer_is_learnt_to_its_end(make_tokenizer: Any) -> None:
    strips = make_tokenizer(
        "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] | trim }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    talk = [TALK[0], {"role": "assistant", "content": "  yes\n"}]
    learnt = [token for token in encode_chat(talk, strips, "<|end|>").labels if token != IGNORED]
    assert strips.decode(learnt) == "yes<|end|>"


def examples(*lengths: int) -> list[Encoded]:
    made = [tuple(range(10 * number, 10 * number + length)) for number, length in enumerate(lengths, 1)]
    return [Encoded(ids, ids) for ids in made]


def test_packing_keeps_every_token_of_a_mix() -> None:
    mix = examples(3000, 9000, 500, 8192, 1500, 1, 7)
    rows = pack(mix, 8192)
    assert sum(map(len, rows)) == 3000 + 9000 + 500 + 8192 + 1500 + 1 + 7
    assert max(map(len, rows)) <= 8192
    assert sorted(token for row in rows for token in row.input_ids) == sorted(t for e in mix for t in e.input_ids)


def test_a_packed_example_starts_at_position_0_and_is_not_predicted_from_the_one_before() -> None:
    (row,) = pack(examples(3, 2), 8)
    assert row.input_ids == (10, 11, 12, 20, 21)
    assert row.position_ids == (0, 1, 2, 0, 1)
    assert row.labels == (IGNORED, 11, 12, IGNORED, 21)


def test_packing_keeps_the_order_from_window_to_window() -> None:
    rows = pack(examples(*[4] * 6), 8, window=2)
    assert [row.input_ids[0] for row in rows] == [10, 30, 50]


def test_packing_nothing_makes_no_row() -> None:
    assert pack([], 8) == []


def test_examples_kept_apart_are_padded_and_masked() -> None:
    from trainer.lora import as_columns, collate

    rows = keep_apart(examples(2, 1), 8)
    batch = collate([as_columns(row) for row in rows], pad=7, with_mask=True)
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [[10, 11], [20, 7]],
        "labels": [[IGNORED, 11], [IGNORED, IGNORED]],
        "attention_mask": [[1, 1], [1, 0]],
    }


@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Qwen2", "Qwen3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_examples_do_not_see_each_other(architecture: str, attention: str) -> None:
    import torch
    import transformers

    from trainer.lora import as_columns, collate

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation=attention, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model = getattr(transformers, f"{architecture}ForCausalLM")(config).eval()
    parts = examples(40, 25, 30)
    rows = pack(parts, 70)
    batch = collate([as_columns(row) for row in rows], pad=0)
    with torch.no_grad():
        packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        for part, (row, start) in zip(parts, [(0, 0), (1, 0), (0, 40)], strict=True):
            alone = model(input_ids=torch.tensor([part.input_ids]), use_cache=False).logits[0]
            assert (packed[row, start : start + len(part)] - alone).abs().max() < 1e-4
