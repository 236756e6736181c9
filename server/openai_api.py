"""The OpenAI shape: requests read, answers and streams written, so that any OpenAI client can ask us."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.assist import AnswerEvent, Done, Text, Wish
from server.generation import GenerationError, Sampling
from server.prompt import Question, Turn
from server.settings import ServerSettings
from server.shapes import Json, done_json

MODEL_IN_SERVICE = "nightschool"
CHAT_ID_PREFIX = "chatcmpl-"


class RequestRefused(Exception):
    """The request asks for what we do not do; `param` is the field at fault."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.code = code


class TextPart(BaseModel):
    """One part of a message's content; only text is read."""

    type: str
    text: str = ""


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    def as_text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        parts = self.content or []
        if odd := next((part.type for part in parts if part.type != "text"), None):
            raise RequestRefused(f"only text is read here, not {odd}", "messages")
        return "".join(part.text for part in parts)


class Extension(BaseModel):
    """Our own part of a request."""

    model_config = ConfigDict(extra="forbid")
    retrieval: bool = True
    k: int | None = Field(None, ge=0, le=50)
    path: str | None = Field(None, max_length=4096)
    buffer: str | None = None
    explain: bool = False


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """What we read of a chat completion request; unknown fields are ignored, as OpenAI's clients expect."""

    model: str = MODEL_IN_SERVICE
    messages: list[ChatMessage] = Field(min_length=1, max_length=200)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = 1
    tools: list[Any] | None = None
    nightschool: Extension = Extension()


def read_chat(request: ChatRequest, base_model: str, settings: ServerSettings) -> tuple[Question, Wish]:
    """The question (the last message) and the wish. Raises `RequestRefused` for what is not done here."""
    if (request.n or 1) != 1:
        raise RequestRefused("one completion at a time: n must be 1", "n")
    if request.tools:
        raise RequestRefused("tools are not used here: nightschool reads code and answers", "tools")
    *earlier, last = request.messages
    if last.role != "user":
        raise RequestRefused("the last message must be the user's", "messages")
    text = last.as_text().strip()
    if not text:
        raise RequestRefused("the question is empty", "messages")
    turns = tuple(Turn(m.role, m.as_text()) for m in earlier if m.role in ("user", "assistant"))
    instructions = "\n".join(m.as_text() for m in earlier if m.role in ("system", "developer"))
    extension = request.nightschool
    question = Question(text, extension.path, extension.buffer, conversation=turns, instructions=instructions)
    passages = settings.passages if extension.k is None else extension.k
    adapter = {MODEL_IN_SERVICE: None, base_model: "none"}.get(request.model, request.model)
    wish = Wish(extension.retrieval, passages, adapter, _sampling(request, settings), explain=extension.explain)
    return question, wish


def _sampling(request: ChatRequest, settings: ServerSettings) -> Sampling:
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return Sampling(
        max_tokens=request.max_completion_tokens or request.max_tokens or settings.max_tokens,
        temperature=settings.temperature if request.temperature is None else request.temperature,
        top_p=request.top_p or 1.0,
        stop=tuple(stop),
        seed=request.seed,
    )


def new_id() -> str:
    """A random name for an answer, by which `/feedback` knows it."""
    return secrets.token_hex(12)


def completion_json(done: Done, answer_id: str, model: str) -> Json:
    """A whole chat completion."""
    message = {"role": "assistant", "content": done.answer, "refusal": None, "annotations": _annotations(done)}
    choice = {"index": 0, "message": message, "finish_reason": _reason(done), "logprobs": None}
    return {
        **_head("chat.completion", answer_id, model),
        "choices": [choice],
        "usage": _usage(done),
        "nightschool": _extension(done),
    }


async def completion_stream(
    events: AsyncGenerator[AnswerEvent], answer_id: str, model: str, usage: bool
) -> AsyncGenerator[bytes]:
    """The same as server-sent events. A failure in the middle is an error event, and then never `[DONE]`."""
    head = _head("chat.completion.chunk", answer_id, model)
    yield _data({**head, "choices": [_delta({"role": "assistant", "content": ""})]})
    try:
        async for event in events:
            match event:
                case Text(delta):
                    yield _data({**head, "choices": [_delta({"content": delta})]})
                case Done() as done:
                    last = _delta({"annotations": _annotations(done)}, _reason(done))
                    yield _data({**head, "choices": [last], "nightschool": _extension(done)})
                    if usage:
                        yield _data({**head, "choices": [], "usage": _usage(done)})
                    yield b"data: [DONE]\n\n"
                case _:
                    pass
    except (GenerationError, ValueError) as error:
        yield _data(error_json(str(error), "server_error"))


def error_json(message: str, kind: str, param: str | None = None, code: str | None = None) -> Json:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _head(kind: str, answer_id: str, model: str) -> Json:
    return {"id": f"{CHAT_ID_PREFIX}{answer_id}", "object": kind, "created": int(time.time()), "model": model}


def _delta(delta: Json, reason: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}


def _reason(done: Done) -> str:
    return done.finish.reason if done.finish else "stop"


def _usage(done: Done) -> Json:
    prompt, completion = (done.finish.prompt_tokens, done.finish.completion_tokens) if done.finish else (0, 0)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _annotations(done: Done) -> list[Json]:
    whole = done_json(done)
    return [{"type": "file_citation", "file_citation": citation} for citation in whole["citations"]]


def _extension(done: Done) -> Json:
    whole = done_json(done)
    return {name: value for name, value in whole.items() if name != "answer"}


def _data(body: Json) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"
