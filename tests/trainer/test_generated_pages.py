"""What a model writes about pages: asked for once, checked, and never the end of a corpus when it goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from indexer.workspace import Workspace
from nightschool_generators import generator_for
from server.base_model import BaseModel
from trainer.generated import (
    Generate,
    Generator,
    GeneratorError,
    Page,
    general_orders,
    page_orders,
    write_orders,
)
from trainer.page_answers import Pair, check_pairs, guess_language, read_pairs
from trainer.talk import Message

DEPLOY = Page(
    "wiki:Deploying", "Deploying",
    "Every deploy goes out by hand on Mondays. To roll back, press the red button in the office and call the people "
    "who are on call. The release branch is cut on Friday.",
)  # fmt: skip
ITALIAN = Page(
    "wiki:Rilascio", "Rilascio",
    "Il rilascio si fa a mano ogni lunedì. Per tornare alla versione precedente si preme il pulsante rosso che è in "
    "ufficio e si chiamano le persone di turno.",
)  # fmt: skip
JAPANESE = Page(
    "wiki:リリース",
    "リリース",
    "月曜日に手動でデプロイします。元に戻すには、赤いボタンを押してください。",
)
GOOD = {
    "question": "How do I roll back a deploy?",
    "answer": "Press the red button in the office and call the people on call.",
}


def as_json(*pairs: Mapping[str, str]) -> str:
    return json.dumps({"pairs": list(pairs)}, ensure_ascii=False)


class Script:
    """A generator that writes what it is told to for each page, and counts what it was asked."""

    def __init__(self, answers: Mapping[str, str | BaseException]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, name: str = "scripted", at_once: int = 1) -> Generator:
        return Generator(name, self._open, at_once)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Generate]:
        async def generate(messages: Sequence[Message], max_tokens: int, schema: Mapping[str, Any] | None) -> str:
            text = messages[0]["content"]
            self.asked.append(text)
            found = next((answer for mark, answer in self.answers.items() if mark in text), "")
            if isinstance(found, BaseException):
                raise found
            return found

        yield generate


def quiet(_: int, __: int) -> None:
    pass


def test_pairs_of_a_page_become_conversations_with_its_source(tmp_path: Path) -> None:
    script = Script({"red button": as_json(GOOD)})
    written = write_orders(list(page_orders([DEPLOY], 3)), script(), tmp_path, quiet)
    (talk,) = written.talks
    assert (talk.kind, talk.source, talk.question) == ("page-answer", "wiki:Deploying", GOOD["question"])
    assert talk.messages[1] == {"role": "assistant", "content": GOOD["answer"]}
    assert "Write 3 different questions" in script.asked[0]


def test_what_was_written_is_not_asked_for_again_until_the_page_changes(tmp_path: Path) -> None:
    script = Script({"red button": as_json(GOOD), "Italy": "{}"})
    orders = list(page_orders([DEPLOY], 3))
    first = write_orders(orders, script(), tmp_path, quiet)
    second = write_orders(orders, script(), tmp_path, quiet)
    assert len(script.asked) == 1
    assert first.talks == second.talks
    changed = Page(DEPLOY.source, DEPLOY.title, DEPLOY.text + " Now also on Tuesdays.")
    write_orders(list(page_orders([changed], 3)), script(), tmp_path, quiet)
    assert len(script.asked) == 2
    write_orders(orders, script("another model"), tmp_path, quiet)
    assert len(script.asked) == 3


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    pages = [Page(f"wiki:{n}", f"Page {n}", f"{DEPLOY.text} Number {n} of all.") for n in range(5)]
    orders = list(page_orders(pages, 1))

    class Killed(BaseException):
        pass

    broken = Script({"Number 3": Killed(), "Number": as_json(GOOD)})
    with pytest.raises(BaseExceptionGroup) as raised:
        write_orders(orders, broken(), tmp_path, quiet)
    assert raised.group_contains(Killed)
    assert len(broken.asked) == 4
    whole = Script({"Number": as_json(GOOD)})
    written = write_orders(orders, whole(), tmp_path, quiet)
    assert len(whole.asked) == 2
    assert len(written.talks) == 5


def test_invalid_json_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    pages = [DEPLOY, Page("wiki:B", "B", "Backups are made at night by the cron job."), Page("wiki:C", "C", "")]
    script = Script({"red button": as_json(GOOD), "Backups": 'Sure! Here you are: {"pairs": [{"question": "When'})
    written = write_orders(list(page_orders(pages, 2)), script(), tmp_path, quiet)
    assert len(written.talks) == 1
    assert dict(written.left_out) == {"generated: not the JSON that was asked for": 1}
    assert written.notices == []


def test_a_generator_that_breaks_off_is_a_notice_and_what_it_wrote_stays(tmp_path: Path) -> None:
    pages = [DEPLOY, Page("wiki:B", "B", "Backups are made at night by the cron job.")]
    script = Script({"red button": as_json(GOOD), "Backups": GeneratorError("the engine broke off")})
    written = write_orders(list(page_orders(pages, 2)), script(at_once=2), tmp_path, quiet)
    assert written.notices == ["the generator wrote less than was asked for: the engine broke off"]
    assert written.left_out["not written: no generator"] == 1
    assert len(written.talks) == 1


def test_an_answer_must_stand_on_the_page_and_a_question_is_asked_once() -> None:
    pairs = [
        Pair(GOOD["question"], GOOD["answer"]),
        Pair("Why would I press the red button?", "To roll back a deploy."),
        Pair("How do I roll back a deploy?", "Press the red button."),
        Pair("When is the release branch cut?", "Kubernetes reconciles all pods within seconds automatically."),
        Pair("Which planets have rings around them?", "The red button in the office."),
        Pair("Why?", "The red button in the office."),
    ]
    assert [fault for _, fault in check_pairs(pairs, DEPLOY.text)] == [
        "", "", "asked twice", "not answerable from the page", "not answerable from the page", "too short",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "own", "foreign"),
    [
        (ITALIAN, Pair("Come si torna alla versione precedente?", "Si preme il pulsante rosso che è in ufficio."),
         Pair("How do I go back to the versione precedente?", "Press the pulsante rosso that is in the ufficio.")),
        (JAPANESE, Pair("元に戻すにはどうしますか？", "赤いボタンを押してください。"),
         Pair("How do I roll it back with the button?", "You press the red button that is in the office.")),
    ],
)  # fmt: skip
def test_a_pair_is_in_the_language_of_its_page(page: Page, own: Pair, foreign: Pair) -> None:
    faults = dict(check_pairs([own, foreign], page.text))
    assert faults[own] == ""
    assert faults[foreign] == "another language than the page"


def test_languages_are_told_apart_and_unsure_ones_are_not_guessed() -> None:
    assert guess_language(DEPLOY.text) == "English"
    assert guess_language(ITALIAN.text) == "Italian"
    assert guess_language("Das Ausrollen wird nicht von der Maschine gemacht, und das ist gut.") == "German"
    assert guess_language(JAPANESE.text) == "HIRAGANA"
    assert guess_language("Выпуск делается вручную") == "CYRILLIC"
    assert guess_language("foo_bar() = 3") == guess_language("") == ""


def test_pairs_are_read_from_all_that_models_put_around_them() -> None:
    wanted = [Pair("a b?", "c")]
    inner = '[{"question": "a  b?", "answer": " c "}]'
    for text in (f'{{"pairs": {inner}}}', inner, f"Here:\n```json\n{inner}\n```", f'So: {{"pairs": {inner}}} Done.'):
        assert read_pairs(text) == wanted
    assert read_pairs('{"pairs": [{"question": 3}, null, {"question": "a b?", "answer": "c"}]}') == wanted
    assert read_pairs("no JSON") is read_pairs('{"pairs": 3}') is read_pairs("") is None


def test_general_questions_are_many_and_always_the_same() -> None:
    orders = general_orders(100)
    assert len({order.source for order in orders}) == 100
    assert orders == general_orders(100)
    assert {language for language in ("Python", "Rust", "Bash") if any(language in o.source for o in orders[:20])} == {
        "Python", "Rust", "Bash",
    }  # fmt: skip


def test_a_long_page_is_asked_about_piece_by_piece() -> None:
    text = "\n\n".join(f"Paragraph {n}. " + "words " * 200 for n in range(20))
    orders = list(page_orders([Page("wiki:L", "Long", text)], 10))
    assert len(orders) > 2
    assert sum(order.max_tokens for order in orders) == 10 * 120
    assert all(len(order.messages[0]["content"]) < 8_000 for order in orders)
    assert list(page_orders([DEPLOY], 0)) == []


@pytest.fixture
def endpoint() -> Iterator[Callable[..., str]]:
    """`endpoint(schema=True)`: the URL of a server that speaks OpenAI's chat completions; without `schema` it refuses
    response_format."""
    servers: list[ThreadingHTTPServer] = []

    def start(*, schema: bool = True, seen: list[Any] | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send("application/json", json.dumps({"data": [{"id": "writer-1"}]}).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if seen is not None:
                    seen.append((body, self.headers.get("Authorization")))
                if "response_format" in body and not schema:
                    self._send("application/json", b'{"error": {"message": "response_format is not known"}}', 400)
                    return
                content = as_json(GOOD) if "red button" in str(body) else "Use `reversed`."
                chunk = json.dumps({"choices": [{"delta": {"content": content}, "finish_reason": "stop"}]})
                self._send("text/event-stream", f"data: {chunk}\n\ndata: [DONE]\n\n".encode())

            def _send(self, kind: str, body: bytes, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_any_openai_endpoint_writes_when_its_url_is_set(
    endpoint: Callable[..., str], tmp_path: Path, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    settings = f'[corpus]\ngenerator = "{endpoint(seen=seen)}"\ngenerator_key_variable = "WRITER_KEY"\n'
    (tmp_path / "nightschool.toml").write_text(settings)
    monkeypatch.setenv("WRITER_KEY", "k")
    generator = generator_for(Workspace(tmp_path), tiny_base)
    assert generator is not None
    orders = [*page_orders([DEPLOY], 2), *general_orders(1)]
    written = write_orders(orders, generator, tmp_path / "cache", quiet)
    assert [(talk.kind, talk.messages[1]["content"]) for talk in written.talks] == [
        ("page-answer", GOOD["answer"]), ("general", "Use `reversed`."),
    ]  # fmt: skip
    assert {(body["model"], key) for body, key in seen} == {("writer-1", "Bearer k")}
    formats = [body.get("response_format", {}).get("type") for body, _ in seen]
    assert sorted(map(str, formats)) == ["None", "json_schema"]


def test_an_endpoint_without_json_schemas_is_asked_in_words(
    endpoint: Callable[..., str], tmp_path: Path, tiny_base: BaseModel
) -> None:
    (tmp_path / "nightschool.toml").write_text(f'[corpus]\ngenerator = "{endpoint(schema=False)}"\n')
    generator = generator_for(Workspace(tmp_path), tiny_base)
    assert generator is not None
    written = write_orders(list(page_orders([DEPLOY], 2)), generator, tmp_path / "cache", quiet)
    assert [talk.question for talk in written.talks] == [GOOD["question"]]


def test_an_endpoint_that_is_not_there_is_a_notice(tmp_path: Path, tiny_base: BaseModel) -> None:
    (tmp_path / "nightschool.toml").write_text('[corpus]\ngenerator = "http://127.0.0.1:9/v1"\n')
    generator = generator_for(Workspace(tmp_path), tiny_base)
    assert generator is not None
    written = write_orders(list(page_orders([DEPLOY], 2)), generator, tmp_path / "cache", quiet)
    (notice,) = written.notices
    assert notice.startswith("the generator wrote less than was asked for: no model answers at http://127.0.0.1:9/v1")


def test_without_a_gpu_and_a_backend_nobody_is_asked(tmp_path: Path, tiny_base: BaseModel) -> None:
    assert generator_for(Workspace(tmp_path), tiny_base) is None
    (tmp_path / "nightschool.toml").write_text('[corpus]\ngenerator = "off"\n')
    assert generator_for(Workspace(tmp_path), tiny_base) is None
    (tmp_path / "nightschool.toml").write_text('[corpus]\ngenerator = "engine"\n')
    assert generator_for(Workspace(tmp_path), tiny_base) is not None
