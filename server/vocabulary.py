"""Which token has which number: what an adapter has learnt means nothing to a model that reads other tokens."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any


def vocabulary_sha256(folder: Path) -> str:
    """The digest of a tokenizer's tokens, merges and added tokens; "" where there is no `tokenizer.json` to read.

    Not of the file: libraries write the same tokenizer with other fields from one release to the next.
    """
    try:
        tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        model = tokenizer["model"]
        added = [(token["id"], token["content"]) for token in tokenizer["added_tokens"]]
        parts = [model["vocab"], [_merge(pair) for pair in model.get("merges", ())], sorted(added)]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _merge(pair: Any) -> Any:
    return pair if isinstance(pair, str) else " ".join(pair)  # as tokenizers wrote them before 0.20
