"""OpenAI's embeddings, by the index's own embedder: for clients that keep an index of something else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from server.openai_api import RequestRefused
from server.shapes import Json

MOST_TEXTS = 256


class EmbeddingRequest(BaseModel):
    """What we read of an embeddings request; unknown fields are ignored, as OpenAI's clients expect."""

    model: str = Field("", max_length=200, description="the embedder's name, or nothing")
    input: str | list[str] = Field(description=f"one text, or up to {MOST_TEXTS}")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    def texts(self, embedder: str) -> list[str]:
        """The texts to embed. Raises `RequestRefused` for what is not done here."""
        texts = [self.input] if isinstance(self.input, str) else self.input
        if self.model not in ("", embedder, "nightschool"):
            raise RequestRefused(f"no embedder {self.model} here: it is {embedder}", "model", 404, "model_not_found")
        if self.dimensions is not None:
            raise RequestRefused(f"{embedder} has one size of embeddings: leave dimensions out", "dimensions")
        if not texts or len(texts) > MOST_TEXTS:
            raise RequestRefused(f"give 1 to {MOST_TEXTS} texts", "input")
        if not all(text.strip() for text in texts):
            raise RequestRefused("an empty text has no embedding", "input")
        return texts


def embeddings_json(embeddings: Sequence[Sequence[float]], request: EmbeddingRequest, embedder: str) -> Json:
    """A whole answer. `usage` is 0: the embedder does not tell its tokens, and a guess would be a lie."""

    def encoded(embedding: Sequence[float]) -> str | Sequence[float]:
        if request.encoding_format == "float":
            return embedding
        return base64.b64encode(np.asarray(embedding, dtype="<f4").tobytes()).decode()

    data = [{"object": "embedding", "index": n, "embedding": encoded(e)} for n, e in enumerate(embeddings)]
    return {"object": "list", "data": data, "model": embedder, "usage": {"prompt_tokens": 0, "total_tokens": 0}}
