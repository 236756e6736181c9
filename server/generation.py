"""Door to an OpenAI-compatible engine (vLLM): a prompt in, the pieces of its completion out."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import httpx
from tokenizers import Tokenizer

from server.prompt import Turn

# uvicorn, and so vLLM, closes a connection that was idle for 5 s; a question sent into the closing would fail.
KEPT_S = 2.0
_END_S = 0.2  # for the end of a stream whose last event has come


class GenerationError(Exception):
    """The engine refused, broke off or sent what is no completion; the message is fit to show."""


class GenerationRefused(GenerationError):
    """The engine is well and will not do this one thing (too long, too many at once): no reason to leave it alone."""


class AdapterMissing(GenerationError):
    """The engine is well and does not serve this adapter; another of several may."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to write a completion. `max_tokens` bounds its length; `temperature` 0 takes the likeliest token; with a
    JSON `schema` only such JSON is written.

    `frequency_penalty` (-2..2) makes a token less likely for each time that it was written already.
    """

    max_tokens: int = 384
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float = 0.0
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a completion: `reason` is stop or length, tokens as the engine counted them."""

    reason: str
    prompt_tokens: int
    completion_tokens: int


class Model(Protocol):
    """What can answer: an engine that serves a base model, with an adapter (its version) or without (None)."""

    adapter: str | None
    base_model: str
    context_tokens: int

    def count_tokens(self, text: str) -> int: ...

    def generate(self, messages: Sequence[Turn], sampling: Sampling) -> AsyncGenerator[str | Finish]: ...


def token_counter(folder: Path | None) -> Callable[[str], int]:
    """Counts with the model's own tokenizer in `folder`; without one a figure that is too high rather than too low."""
    if folder is None:
        # Code makes 2.5 to 4 UTF-8 bytes a token in today's vocabularies.
        return lambda text: len(text.encode()) // 2 + 1
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server: `url` ends in /v1, `model` is the name to ask it for ("": not known yet), `extra`
    goes with every request. One that sends nothing for `timeout_s` has broken off."""

    url: str
    key: str = field(repr=False)
    model: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 300


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What answers at an endpoint, as the answers name it: a base model, with an adapter (its version) or without."""

    base_model: str
    adapter: str | None
    context_tokens: int
    count_tokens: Callable[[str], int]


class Engine:
    """One model behind an OpenAI-compatible server.

    `note` is told how each completion that was not left ended: None, or what broke it off.
    """

    def __init__(self, endpoint: Endpoint, card: ModelCard) -> None:
        self.note: Callable[[GenerationError | None], None] = lambda error: None
        self.base_model = card.base_model
        self.adapter = card.adapter
        self.context_tokens = card.context_tokens
        self.count_tokens = card.count_tokens
        self._endpoint = endpoint
        self._is_others = False
        self._http = httpx.AsyncClient(
            base_url=endpoint.url,
            headers={"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {},
            timeout=httpx.Timeout(endpoint.timeout_s, connect=min(5, endpoint.timeout_s)),
            limits=httpx.Limits(max_connections=256, keepalive_expiry=KEPT_S),
            trust_env=False,
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the engine."""
        return self._http.base_url.host, self._http.base_url.port or 80

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def with_adapter(self, name: str, *, is_ours: bool = False) -> Engine:
        """The same engine, asked for another of the models that it serves; closed with this one.

        That it does not serve it is `AdapterMissing`; where the engine `is_ours` it has failed (`GenerationError`).
        """
        other = copy.copy(self)
        other.adapter, other._endpoint, other._is_others = name, replace(self._endpoint, model=name), not is_ours
        return other

    async def close(self) -> None:
        await self._http.aclose()

    async def ask_its_name(self) -> str:
        """Take the first model that the server lists, and its name for our own. Raises `GenerationError`."""
        try:
            name = str((await self.models())[0]["id"])
        except (LookupError, TypeError) as error:
            raise GenerationError("it lists no models: set [server] engine_model") from error
        self._endpoint, self.base_model = replace(self._endpoint, model=name), name
        return name

    async def models(self) -> list[dict[str, Any]]:
        """What the server lists, each with its `id`. Raises `GenerationError`."""
        try:
            response = (await self._http.get("/models")).raise_for_status()
            return list(response.json()["data"])
        except httpx.HTTPError as error:
            raise GenerationError(f"it lists no models: {error or type(error).__name__}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise GenerationError("it lists no models: set [server] engine_model") from error

    async def post(self, path: str, body: Mapping[str, Any]) -> str:
        """What the server answers to `body`, whole. Raises `GenerationError`, with its message when it refuses."""
        try:
            response = await self._http.post(path, json=dict(body))
        except httpx.TimeoutException as error:
            raise GenerationError("the engine stopped answering") from error
        except httpx.HTTPError as error:
            raise GenerationError(f"the engine broke off: {error or type(error).__name__}") from error
        if response.is_error:
            raise GenerationError(f"the engine answered {response.status_code}: {_message(response)}")
        return response.text

    async def control(self, path: str) -> None:
        """POST to one of vLLM's own routes beside /v1, as `/wake_up`. Raises `GenerationError`."""
        try:
            (await self._http.post(self._http.base_url.join(path))).raise_for_status()
        except httpx.HTTPError as error:
            raise GenerationError(f"{path}: {error or type(error).__name__}".splitlines()[0]) from error

    async def probe(self) -> None:
        """Write one token. Raises `GenerationError` when the engine cannot."""
        async with aclosing(self.generate([Turn("user", "Say yes.")], Sampling(max_tokens=1))) as pieces:
            async for _ in pieces:
                pass

    async def generate(self, messages: Sequence[Turn], sampling: Sampling) -> AsyncGenerator[str | Finish]:
        """The completion's pieces as they are written, then one `Finish`. Closing the iterator stops the engine."""
        asked = {"messages": [{"role": turn.role, "content": turn.content} for turn in messages]}
        async with aclosing(self._stream("/chat/completions", asked, sampling)) as pieces:
            async for piece in pieces:
                yield piece

    async def complete(self, prompt: str, sampling: Sampling) -> AsyncGenerator[str | Finish]:
        """How `prompt` goes on, without a chat template around it: for editors."""
        async with aclosing(self._stream("/completions", {"prompt": prompt}, sampling)) as pieces:
            async for piece in pieces:
                yield piece

    async def _stream(self, path: str, asked: dict[str, Any], sampling: Sampling) -> AsyncGenerator[str | Finish]:
        try:
            async with aclosing(self._sent(path, asked, sampling)) as pieces:
                async for piece in pieces:
                    yield piece
        except (GenerationRefused, AdapterMissing):
            raise
        except GenerationError as error:
            self.note(error)
            raise
        else:
            self.note(None)

    async def _sent(self, path: str, asked: dict[str, Any], sampling: Sampling) -> AsyncGenerator[str | Finish]:
        try:
            async with (
                self._http.stream("POST", path, json=asked | self._how(sampling)) as response,
                aclosing(_chunks(response, self._endpoint.model if self._is_others else "")) as chunks,
            ):
                async for piece in _pieces(chunks):
                    yield piece
        except httpx.TimeoutException as error:
            raise GenerationError("the engine stopped answering") from error
        except httpx.HTTPError as error:
            raise GenerationError(f"the engine broke off: {error or type(error).__name__}") from error

    def _how(self, sampling: Sampling) -> dict[str, Any]:
        # Rebuilt from known fields: nothing that a client sends reaches the engine unread.
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._endpoint.extra,
        }
        if sampling.schema is not None:
            wanted = {"name": "answer", "schema": dict(sampling.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.frequency_penalty:
            body["frequency_penalty"] = sampling.frequency_penalty
        return body


async def _chunks(response: httpx.Response, adapter: str = "") -> AsyncGenerator[dict[str, Any]]:
    if response.status_code != 200:
        await response.aread()
        if response.status_code == 404 and adapter:
            raise AdapterMissing(f"the engine does not serve {adapter}: start it with that adapter loaded")
        # 401 and 403 are about our key and 404 about our model's name: every other question would meet them too.
        kind = GenerationRefused if response.status_code in (400, 413, 422, 429) else GenerationError
        raise kind(f"the engine answered {response.status_code}: {_message(response)}")
    lines = response.aiter_lines()
    async for line in lines:
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            await _read_to_the_end(lines)
            return
        try:
            chunk = json.loads(line[6:])
            error = chunk.get("error")
        except (ValueError, AttributeError) as wrong:
            raise GenerationError("the engine sent something that is no completion") from wrong
        if error:
            raise GenerationError(
                f"the engine failed: {error.get('message', error) if isinstance(error, dict) else error}"
            )
        yield chunk
    raise GenerationError("the engine broke off in the middle of its answer")


def _message(response: httpx.Response) -> str:
    """What an error answer says, without the JSON around it."""
    try:
        return str(response.json()["error"]["message"])[:500]
    except (ValueError, LookupError, TypeError):
        return response.text[:200]


async def _read_to_the_end(lines: AsyncIterator[str]) -> None:
    """Read what follows `[DONE]`, which is nothing: only then does the connection serve the next question too."""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_END_S):
            async for _ in lines:
                pass


async def _pieces(chunks: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[str | Finish]:
    reason, usage = "stop", {"prompt_tokens": 0, "completion_tokens": 0}
    async for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk.get("choices") or []:
            reason = choice.get("finish_reason") or reason
            if text := choice.get("text") or (choice.get("delta") or {}).get("content"):
                yield text
    yield Finish(reason, int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
