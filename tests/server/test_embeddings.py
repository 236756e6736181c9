"""Embeddings in OpenAI's shape, read by the official client, which asks for base64 by itself."""

from types import SimpleNamespace

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from server.auth import read_or_make_token
from server.http import make_app

INDEX = SimpleNamespace(embedder_name="tiny", embed=lambda texts: [[float(len(text)), 0.5] for text in texts])
URL = "http://127.0.0.1:8000"


@pytest.fixture
def openai(make_backend, workspace):
    token = read_or_make_token(workspace)
    transport = httpx.ASGITransport(make_app(make_backend(index=INDEX), token))
    return AsyncOpenAI(
        base_url=f"{URL}/v1", api_key=token, http_client=httpx.AsyncClient(transport=transport), max_retries=0
    )


async def test_the_openai_client_gets_embeddings_in_the_order_of_its_texts(openai):
    for encoding in ({}, {"encoding_format": "float"}):
        answer = await openai.embeddings.create(model="tiny", input=["é🙂", "four"], **encoding)
        assert [item.embedding for item in answer.data] == [[2.0, 0.5], [4.0, 0.5]]
        assert [item.index for item in answer.data] == [0, 1]
    assert (await openai.embeddings.create(model="nightschool", input="one")).data[0].embedding == [3.0, 0.5]


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"input": []}, "input"), ({"input": ["a", " "]}, "input"), ({"input": ["a"] * 257}, "input"),
     ({"input": "a", "dimensions": 8}, "dimensions")],
)  # fmt: skip
async def test_what_cannot_be_embedded_is_refused_by_name(asked, field, openai):
    with pytest.raises(BadRequestError) as refused:
        await openai.embeddings.create(model="tiny", **asked)
    assert refused.value.param == field


async def test_another_embedder_is_not_found(openai):
    with pytest.raises(NotFoundError, match="it is tiny"):
        await openai.embeddings.create(model="text-embedding-3-small", input="a")
