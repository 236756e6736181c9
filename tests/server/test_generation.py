"""The door to the engine, against a small real HTTP server that plays a bad one."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from server.base_model import BaseModel, Fim
from server.fim_api import CompletionRequest, read_completion
from server.generation import Endpoint, Engine, Finish, GenerationError, ModelCard, Sampling, token_counter
from server.openai_api import RequestRefused
from server.prompt import Turn
from server.settings import ServerSettings

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
PIECE = b'data: {"choices": [{"delta": {"content": "It "}}]}\n\n'


@asynccontextmanager
async def engine_that(*sends, hang=False):
    """An `Engine` on a server that answers every request with `sends`, then closes (or never does)."""
    seen = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        seen.append((head.split(b" ")[1].decode(), json.loads(await reader.readexactly(length))))
        for part in sends:
            writer.write(part)
            await writer.drain()
        if hang:
            await reader.read()
            seen.append("left")
        writer.close()

    async with on_port(serve) as engine:
        yield engine, seen


@asynccontextmanager
async def on_port(serve):
    """An `Engine` on a server that does `serve` with each connection."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    engine = Engine(Endpoint(f"http://127.0.0.1:{port}/v1", "key", "served"), ModelCard("b", None, 100, len))
    try:
        yield engine
    finally:
        await engine.close()
        server.close()


async def read(engine):
    return [piece async for piece in engine.generate([Turn("user", "é 🙂?")], Sampling(max_tokens=5))]


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b""], ids=["ends", "goes on without a word"])
async def test_one_connection_serves_one_question_after_the_other(end):
    connections, body = [], PIECE + b"data: [DONE]\n\n"

    async def serve(reader, writer):
        connections.append(writer)
        while head := await reader.readline():
            if head.lower().startswith(b"content-length: "):
                while (await reader.readline()).strip():
                    pass
                await reader.readexactly(int(head.split()[1]))
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                writer.write(b"%x\r\n%s\r\n" % (len(body), body) + end)

    async with on_port(serve) as engine:
        for _ in range(3):
            assert await read(engine) == ["It ", Finish("stop", 0, 0)]
        for writer in connections:
            writer.close()
            await writer.wait_closed()
    assert len(connections) == (1 if end else 3)


async def test_pieces_come_as_written_and_the_finish_last():
    end = b'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}\n\n'
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\ndata: [DONE]\n\n'
    async with engine_that(OK, b": keep-alive\n\n", PIECE, end, usage) as (engine, seen):
        assert await read(engine) == ["It ", Finish("length", 3, 2)]
    path, body = seen[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "é 🙂?"}]
    assert set(body) == {"model", "messages", "max_tokens", "temperature", "top_p", "stream", "stream_options"}


@pytest.mark.parametrize(
    ("sends", "said"),
    [
        ([OK, PIECE], "broke off in the middle"),
        ([OK, PIECE, b"data: {nonsense\n\n"], "no completion"),
        ([OK, b"data: 3\n\n"], "no completion"),
        ([OK, b'data: {"error": {"message": "out of memory"}}\n\n'], "out of memory"),
        ([b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nboom"], "500: boom"),
        ([b"garbage\r\n\r\n"], "broke off"),
        ([], "broke off"),
    ],
)
async def test_a_bad_engine_is_one_clear_error(sends, said):
    async with engine_that(*sends) as (engine, _):
        with pytest.raises(GenerationError, match=said):
            await read(engine)


async def test_an_engine_that_is_gone_is_one_clear_error():
    async with engine_that() as (engine, _):
        pass
    with pytest.raises((GenerationError, RuntimeError)):
        await read(engine)


async def test_leaving_a_stream_closes_the_connection_which_stops_the_engine():
    async with engine_that(OK, PIECE, hang=True) as (engine, seen):
        stream = engine.generate([Turn("user", "q?")], Sampling())
        assert await anext(stream) == "It "
        await stream.aclose()
        async with asyncio.timeout(5):
            while "left" not in seen:
                await asyncio.sleep(0.01)


def test_without_a_tokenizer_tokens_are_counted_too_high_rather_than_too_low():
    count = token_counter(None)
    assert count("") == 1
    assert count("def run(é): return '🙂'") >= len("def run(é): return '🙂'".encode()) // 2


def weights(fim):
    return BaseModel("m", "r", "s", None, "Apache-2.0", 4096, "<end>", fim, 1, "asked for")


def test_a_completion_stands_between_the_base_models_own_tokens():
    request = CompletionRequest(prompt="a" * 90_000 + "def f(", suffix="):\n" + "b" * 90_000, max_tokens=8, stop="\n")
    prompt, sampling = read_completion(request, weights(Fim("<P>", "<S>", "<M>")), ServerSettings())
    assert prompt.startswith("<P>aaa")
    assert "def f(<S>):\n" in prompt
    assert prompt.endswith("b<M>")
    assert len(prompt) < 13_000
    assert (sampling.max_tokens, sampling.stop) == (8, ("\n",))


def test_a_base_model_without_the_tokens_is_a_clear_refusal():
    with pytest.raises(RequestRefused, match="cannot fill in the middle"):
        read_completion(CompletionRequest(prompt="x"), weights(None), ServerSettings())
