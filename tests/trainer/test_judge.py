"""A judge informs and does not decide: only what wins in both orders has won, and what cannot be read says nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from indexer.workspace import Workspace
from nightschool_generators import judge_for
from trainer.generated import Generator, GeneratorError
from trainer.judge import Contest, Judged, compare_answers, count, read_judgement

CONTESTS = [
    Contest("what is f?", "it is right", "it is wrong"),
    Contest("what is g?", "it is wrong", "it is right"),
    Contest("où est 🌍?", "here", "there"),
]


def judging(rule: Any) -> Generator:
    """A judge that says what `rule` makes of the whole prompt."""

    @asynccontextmanager
    async def open() -> AsyncIterator[Any]:
        async def generate(
            messages: Sequence[Mapping[str, str]], max_tokens: int, schema: Mapping[str, Any] | None
        ) -> str:
            assert schema is not None
            return rule(messages[0]["content"])

        yield generate

    return Generator("a judge", open)


def finds_what_is_right(prompt: str) -> str:
    a, b = prompt.split("=== Answer A ===")[1].split("=== Answer B ===")
    return '{"better": "A"}' if "right" in a else '{"better": "B"}' if "right" in b else '{"better": "same"}'


async def test_what_wins_in_both_orders_has_won() -> None:
    assert await compare_answers(CONTESTS, judging(finds_what_is_right)) == Judged("a judge", 1, 1, 1)


async def test_a_judge_that_always_prefers_the_first_decides_nothing() -> None:
    assert await compare_answers(CONTESTS, judging(lambda _: '{"better": "A"}')) == Judged("a judge", 0, 0, 3)


async def test_a_judge_that_does_not_answer_is_the_callers_to_show() -> None:
    def fails(_: str) -> str:
        raise GeneratorError("no such model")

    with pytest.raises(GeneratorError, match="no such model"):
        await compare_answers(CONTESTS, judging(fails))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"better": "A"}', "A"),
        ('Sure: {"better": "B"} because', "B"),
        ('{"better": "same"}', "same"),
        ('{"better": 3}', "same"),
        ("{", "same"),
        ("[]", "same"),
        ("", "same"),
    ],
)
def test_what_cannot_be_read_decides_nothing(text: str, said: str) -> None:
    assert read_judgement(text) == said


def test_judgements_are_counted_by_contest() -> None:
    assert count("j", ["A", "B", "A", "same"], ["B", "A", "A", "B"]) == Judged("j", 1, 1, 2)


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """The URL of a server that speaks OpenAI's chat completions and finds the second answer better; what it was asked,
    and with which key."""
    seen: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((body["model"], self.headers.get("Authorization")))
            chunk = json.dumps({"choices": [{"delta": {"content": '{"better": "B"}'}, "finish_reason": "stop"}]})
            sent = f"data: {chunk}\n\ndata: [DONE]\n\n".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen
    server.shutdown()
    thread.join()
    server.server_close()


async def test_the_endpoint_of_the_settings_is_asked_with_its_key(
    endpoint: tuple[str, list[tuple[str, str | None]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, seen = endpoint
    (tmp_path / "nightschool.toml").write_text(
        f'[trainer]\njudge = "{url}"\njudge_model = "large"\njudge_key_variable = "JUDGE_KEY"\n'
    )
    monkeypatch.setenv("JUDGE_KEY", "k")
    generator = judge_for(Workspace(tmp_path))
    assert generator is not None
    assert await compare_answers(CONTESTS, generator) == Judged(f"{url} large", 0, 0, 3)
    assert seen == [("large", "Bearer k")] * 6


async def test_without_a_setting_nobody_is_asked_and_a_dead_endpoint_is_one_line(tmp_path: Path) -> None:
    assert judge_for(Workspace(tmp_path)) is None
    (tmp_path / "nightschool.toml").write_text('[trainer]\njudge = "http://127.0.0.1:1/v1"\njudge_model = "m"\n')
    generator = judge_for(Workspace(tmp_path))
    assert generator is not None
    with pytest.raises(GeneratorError, match=r"the judge at http://127\.0\.0\.1:1/v1: the engine"):
        await compare_answers(CONTESTS, generator)
