"""all-MiniLM-L6-v2 in numpy, for a query: there in 0.3 s, where torch and sentence-transformers take ten to import.

The same weights and the same arithmetic (BERT, Devlin et al. 2019; mean pooling), equal to 1e-6. For many texts torch
is 1.6 times as fast.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from threadpoolctl import ThreadpoolController
from tokenizers import Tokenizer

_LAYERS, _HEADS, _WIDTH, _MAX_TOKENS = 6, 12, 384, 256
_EPSILON = np.float32(1e-12)
Matrix = NDArray[np.float32]


class MiniLM:
    """The model in `folder` (model.safetensors, tokenizer.json). Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        weights: dict[str, Matrix] = load_file(folder / "model.safetensors")
        # Transposed once: `x @ weight` then runs over memory in order.
        self._weights = {n: np.ascontiguousarray(w.T) if _is_linear(n) else w for n, w in weights.items()}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._threads = ThreadpoolController()

    def embed(self, text: str) -> Matrix:
        """The embedding of `text`, float32 (384,), of length 1; what is over 256 tokens is cut."""
        # One thread: beside other work OpenBLAS's own spin and wait for each other, 36 ms instead of 17.
        with self._threads.limit(limits=1, user_api="blas"):
            mean: Matrix = self._encode(self._tokenizer.encode(text).ids).mean(axis=0)
        unit: Matrix = mean / np.linalg.norm(mean)
        return unit

    def _encode(self, ids: list[int]) -> Matrix:
        embedded = (
            self._weights["embeddings.word_embeddings.weight"][ids]
            + self._weights["embeddings.position_embeddings.weight"][: len(ids)]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        states = self._normed(embedded, "embeddings.LayerNorm")
        for number in range(_LAYERS):
            layer = f"encoder.layer.{number}"
            attended = self._linear(self._attended(states, layer), f"{layer}.attention.output.dense")
            states = self._normed(states + attended, f"{layer}.attention.output.LayerNorm")
            inner = _gelu(self._linear(states, f"{layer}.intermediate.dense"))
            states = self._normed(states + self._linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        return states

    def _attended(self, states: Matrix, layer: str) -> Matrix:
        query, key, value = (
            self._heads(states, f"{layer}.attention.self.{part}") for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.float32((_WIDTH // _HEADS) ** 0.5)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed: Matrix = (shares @ value).transpose(1, 0, 2).reshape(len(states), _WIDTH)
        return mixed

    def _heads(self, states: Matrix, name: str) -> Matrix:
        split = self._linear(states, name).reshape(len(states), _HEADS, -1)
        return np.ascontiguousarray(split.transpose(1, 0, 2))

    def _linear(self, states: Matrix, name: str) -> Matrix:
        return states @ self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _normed(self, states: Matrix, name: str) -> Matrix:
        centred = states - states.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + _EPSILON)
        normed: Matrix = centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return normed


def _is_linear(name: str) -> bool:
    return name.startswith("encoder.") and name.endswith(".weight") and "LayerNorm" not in name


def _gelu(states: Matrix) -> Matrix:
    """x / 2 (1 + erf(x / sqrt 2)), erf by Abramowitz and Stegun 7.1.26 (error below 1.5e-7)."""
    scaled: Matrix = np.abs(states) * np.float32(0.5**0.5)
    step: Matrix = np.reciprocal(1 + np.float32(0.3275911) * scaled)
    series: Matrix = np.full_like(step, 1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * step + np.float32(factor)
    error = np.copysign(1 - series * step * np.exp(-scaled * scaled), states)
    halved: Matrix = states * np.float32(0.5) * (1 + error)
    return halved
