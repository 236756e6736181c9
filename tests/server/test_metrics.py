"""What Prometheus reads: true counts, no question and no code; and the dashboard asks only for what there is."""

import json
import os
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from server.engine import EngineError
from server.generation import GenerationError
from server.metrics import last_nights

ROOT = Path(__file__).parent.parent.parent
QUESTION = {"question": "where is xyzzyquux?"}


async def read(http):
    """Every sample at /metrics: (name, labels in order) -> value."""
    response = await http.get("/metrics")
    assert response.status_code == 200
    families = text_string_to_metric_families(response.text)
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


async def test_an_answer_is_counted_and_timed(client):
    async with client() as http:
        await http.post("/ask", json=QUESTION)
        await http.get("/search", params={"q": "xyzzyquux"})
        samples = await read(http)
    assert samples["nightschool_answers_total", "answered", "ask"] == 1
    assert samples["nightschool_first_token_seconds_count", "ask"] == 1
    assert samples["nightschool_answer_seconds_count", "ask"] == 1
    assert samples["nightschool_search_seconds_count",] == 2
    assert samples["nightschool_tokens_total", "prompt"] == 10
    assert samples["nightschool_questions_in_work",] == 0
    assert 0 < samples["nightschool_asyncio_tasks",] < 50
    assert samples["nightschool_http_requests_total", "/ask", "200"] == 1
    assert samples["nightschool_index_seconds_behind",] == 0
    assert samples["nightschool_engine_state", "ready"] == 1
    assert samples["nightschool_engine_state", "failed"] == 0
    assert samples["nightschool_adapter_in_service", "2026-01-01-0000-abc", "scripted"] == 1


async def test_each_way_to_end_has_its_own_count(client, scripted):
    async with client(scripted([GenerationError("it broke off")])) as http:
        await http.post("/ask", json=QUESTION)
        assert (await read(http))["nightschool_answers_total", "ask", "failed"] == 1
    async with client(EngineError("it is starting")) as http:
        await http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "q?"}]})
        assert (await read(http))["nightschool_answers_total", "chat", "passages_only"] == 1
    async with client(scripted(context_tokens=40)) as http:
        assert (await http.post("/ask", json={"question": "long " * 1000})).status_code == 400
        assert (await read(http))["nightschool_answers_total", "ask", "refused"] == 1


async def test_no_path_and_no_question_becomes_a_label(client):
    async with client() as http:
        await http.post("/ask", json=QUESTION)
        await http.get("/xyzzyquux")
        await http.post("/adapters/xyzzyquux/promote")
        text = (await http.get("/metrics")).text
    assert "xyzzyquux" not in text
    assert 'route="/adapters/{version}/promote"' in text


def test_the_last_night_of_each_outcome_is_read_from_its_record(tmp_path):
    for name, outcome, when in (("a", "promoted", 100), ("b", "promoted", 200), ("c", "refused", 300)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"outcome": outcome}))
        os.utime(tmp_path / f"{name}.json", (when, when))
    (tmp_path / "state.json").write_text('{"night": "2026-01-01"}')
    (tmp_path / "broken.json").write_text('{"outc')
    assert last_nights(tmp_path) == {"promoted": 200, "refused": 300}
    assert last_nights(tmp_path / "nothing") == {}


async def test_a_night_that_failed_is_no_success_and_one_that_refused_is(client, workspace):
    nights = workspace.make_state_folder() / "nights"
    nights.mkdir()
    async with client() as http:
        assert (await read(http))["nightschool_last_success_timestamp_seconds",] == 0
        for outcome, when in (("promoted", 100), ("refused", 200), ("failed", 300)):
            file = nights / f"last_{outcome}.json"
            file.write_text(json.dumps({"outcome": outcome}))
            os.utime(file, (when, when))
        samples = await read(http)
    assert samples["nightschool_last_success_timestamp_seconds",] == 200
    assert samples["nightschool_last_night_timestamp_seconds", "failed"] == 300


async def test_the_dashboard_asks_only_for_metrics_that_exist(client):
    async with client() as http:
        text = (await http.get("/metrics")).text
    known = {name for line in re.findall(r"^# TYPE (\S+ \w+)$", text, re.M) for name in samples_of(*line.split())}
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) >= 10
    asked = {name for query in queries for name in re.findall(r"\bnightschool_\w+", query)}
    assert asked - known == set()
    # And nothing that we tell is left out of sight.
    assert {name for name in known if not name.endswith(("_sum", "_count"))} - asked == set()


def samples_of(name, kind):
    if kind == "histogram":
        return [f"{name}_bucket", f"{name}_sum", f"{name}_count"]
    return [name]
