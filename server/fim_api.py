"""OpenAI's text completions with a suffix: fill in the middle, where the base model has the tokens for it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from pydantic import BaseModel, Field

from indexer.secrets import mask_secrets
from server.base_model import BaseModel as Weights
from server.generation import Finish, Sampling
from server.openai_api import MODEL_IN_SERVICE, RequestRefused
from server.settings import ServerSettings
from server.shapes import Json

# What an editor shows at once: longer than this nobody reads, and every token takes time.
MAX_TOKENS = 64


class CompletionRequest(BaseModel):
    """What we read of a text completion request; unknown fields are ignored, as OpenAI's clients expect."""

    model: str = MODEL_IN_SERVICE
    prompt: str = Field(max_length=200_000)
    suffix: str = Field("", max_length=200_000)
    max_tokens: int = Field(MAX_TOKENS, ge=1, le=1024)
    temperature: float = Field(0.0, ge=0, le=2)
    stop: str | list[str] | None = None
    stream: bool = False


def read_completion(request: CompletionRequest, model: Weights, settings: ServerSettings) -> tuple[str, Sampling]:
    """The prompt with the base model's own tokens around its parts. Raises `RequestRefused` where it has none."""
    if request.stream:
        raise RequestRefused("text completions are not streamed here: leave stream out", "stream")
    if request.model != MODEL_IN_SERVICE:
        raise RequestRefused(f"text completions come from {MODEL_IN_SERVICE}", "model", 404, "model_not_found")
    if model.fim is None:
        raise RequestRefused(
            f"{model.name} cannot fill in the middle: take a base model that can, such as qwen2.5-coder-0.5b", "suffix"
        )
    # Nearest to the cursor counts most: three bytes a token are room enough in every vocabulary.
    room = 3 * max(256, settings.engine_context - request.max_tokens)
    before, after = request.prompt[-room * 3 // 4 :], request.suffix[: room // 4]
    prompt = f"{model.fim.prefix}{before}{model.fim.suffix}{after}{model.fim.middle}"
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return prompt, Sampling(request.max_tokens, request.temperature, stop=tuple(stop[:4]))


def text_completion_json(pieces: Sequence[str | Finish], model: str) -> Json:
    """A whole text completion, secrets masked: an adapter may have learnt what stands in no open file."""
    text = mask_secrets("".join(piece for piece in pieces if isinstance(piece, str))).text
    finish = next((piece for piece in pieces if isinstance(piece, Finish)), Finish("stop", 0, 0))
    usage = {"prompt_tokens": finish.prompt_tokens, "completion_tokens": finish.completion_tokens}
    usage["total_tokens"] = finish.prompt_tokens + finish.completion_tokens
    choice = {"index": 0, "text": text, "finish_reason": finish.reason, "logprobs": None}
    head = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time())}
    return {**head, "model": model, "choices": [choice], "usage": usage}
