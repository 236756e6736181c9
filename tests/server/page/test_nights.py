"""The page of nights in a real Chromium, over records as the trainer writes them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import pytest

from server.adapter import read_current
from server.nights import read_curve, read_last_night, read_nights, read_running_night
from trainer.job import Step, event_to_line
from trainer.night_record import keep_record, new_record
from trainer.only_one import only_one


@contextmanager
def a_night_runs(workspace):
    """Another process holds the workspace, as a night does."""
    hold = "import sys; from pathlib import Path; from trainer.only_one import *\n"
    hold += "with only_one(Workspace(Path(sys.argv[1]))): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(workspace.root)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.communicate(b"")


def test_nights_are_read_newest_first_and_a_damaged_one_is_left_out(shop, nights):
    folder = shop.state / "nights"
    (folder / "2026-11-23-023001.json").write_text('{"night": "2026-11-23')
    (folder / "2026-11-24-023001.json").write_text('{"night": "x", "outcome": "promoted", "of_a_newer_version": [1]}')
    found = read_nights(shop, 3)
    assert [night.night for night in found] == ["x", "2026-11-22-023001", "2026-11-21-023001"]
    assert found[1].outcome == "refused"
    assert [line.passed for line in found[1].verdict] == [False, True, True]
    assert found[2].rows[3].newer_code == pytest.approx(0.9241 * 0.949)


def test_a_curve_ends_where_its_record_was_cut_off_and_is_thinned(shop, keep_night):
    version = keep_night(shop, 20, 0.05, steps=1000)
    curve = read_curve(shop, version)
    assert curve[0][0] == 1
    assert 300 < len(curve) <= 400
    assert read_curve(shop, "none") == []


def test_a_night_that_runs_is_seen_by_its_lock_and_asking_does_not_disturb_it(shop, keep_night):
    version = keep_night(shop, 20, 0.05)
    assert read_running_night(shop) is None
    with a_night_runs(shop):
        for _ in range(100):
            assert read_running_night(shop) is not None
        assert read_running_night(shop).version == version
        with (shop.state / "runs" / version / "events.jsonl").open("a") as events:
            events.write("\n" + event_to_line(Step(61, 90, 1.5, 1e-4, 9, 180.0, 9.0, 87.0)))
        running = read_running_night(shop)
        assert (running.step, running.steps, running.left_s) == (61, 90, 87.0)
    assert read_running_night(shop) is None
    with only_one(shop):  # the lock is whole
        pass


def test_the_last_night_is_how_it_ended_whatever_its_outcome(shop):
    assert read_last_night(shop) is None
    keep_record(shop, new_record("failed", "the disk is full", datetime(2026, 11, 25, tzinfo=UTC)))
    assert (read_last_night(shop).outcome, read_last_night(shop).reason) == ("failed", "the disk is full")
    (shop.state / "nights" / "last_night.json").write_text("{")
    assert read_last_night(shop) is None


async def test_the_report_opens_by_its_link_only_and_can_do_nothing(site, nights):
    async with httpx.AsyncClient(base_url=site.url, headers={"Authorization": f"Bearer {site.token}"}) as http:
        link = (await http.get("/nights")).json()["nights"][0]["report"]
    async with httpx.AsyncClient(base_url=site.url) as http:
        opened = await http.get(link)
        assert "The night of 2026-11-22" in opened.text
        assert opened.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        for other in (
            link.replace(nights[2], nights[0]),
            link[:-1],
            link.replace(nights[2], "../../token"),
            "/ui/report",
        ):
            assert (await http.get(other)).status_code in (400, 404)
        assert (await http.get("/nights")).status_code == 401


async def test_a_night_shows_its_verdict_its_table_and_its_curve(site, tab, nights):
    await tab.go(f"{site.entrance}")
    await tab.click("#to-nights")
    await tab.until("document.querySelectorAll('.night').length === 3")
    shown = await tab.js("document.querySelector('.night').innerText")
    assert "refused the gain is not sure: the interval holds 0" in shown
    assert "better than the base model on newer code, with retrieval\t-0.4% (95%: -1.4% to +0.6%)\tnot passed" in shown
    assert "candidate\ton\t0.9204\t1.1105" in shown
    assert (
        await tab.js("document.querySelector('.night .chart').getAttribute('aria-label')")
        == "Training loss: 2.56 at first, 1.50 at last, step 1 to 60"
    )
    assert await tab.js("document.querySelectorAll('.night .best').length") == 3
    gains = "document.querySelector('figure.card .chart').getAttribute('aria-label')"
    assert await tab.js(gains) == "Change against the base model: -4.2% at first, -0.4% at last, night 1 to 3"
    link = await tab.js("document.querySelector('.night a').href")
    await tab.go(link)
    await tab.sees("The night of 2026-11-22-023001: refused")
    assert tab.faults == []


async def test_promoting_and_rolling_back_ask_first_and_move_the_pointer(site, tab, shop, nights):
    _, second, third = nights
    site.serving.adapter = second
    await tab.go(site.entrance)
    await tab.click("#to-nights")
    await tab.click(".night button")
    await tab.until("document.querySelector('dialog').innerText.includes('in place of')")
    await tab.press("Escape")
    await tab.until("document.querySelector('dialog') === null")
    assert read_current(shop.adapters).version == second
    await tab.click(".night button")
    await tab.press("Enter")
    await tab.until(f"document.querySelector('#in-service').textContent === '{third} (the engine is changing over)'")
    assert read_current(shop.adapters).version == third
    site.serving.adapter = third  # the engine has changed over
    await tab.until(f"document.querySelector('#in-service').textContent === '{third}'")
    await tab.click(".card.row button")
    await tab.press("Enter")
    await tab.until(f"document.querySelector('#in-service').textContent === '{second} (the engine is changing over)'")
    assert read_current(shop.adapters).version == second


async def test_a_night_that_runs_is_shown_until_it_ends(site, tab, shop, nights):
    with a_night_runs(shop):
        await tab.go(site.entrance)
        await tab.click("#to-nights")
        await tab.sees("A night is running: step 60 of 60, about 1 min of training left.")
    keep_record(shop, new_record("failed", "the disk is full", datetime(2026, 11, 25, tzinfo=UTC)))
    await tab.sees("The last night failed: the disk is full.")
    assert tab.faults == []


async def test_an_adapter_trained_by_hand_is_listed_and_without_any_the_page_says_what_to_do(
    site, tab, shop, make_adapter
):
    await tab.go(site.entrance)
    await tab.click("#to-nights")
    await tab.sees("No night yet.")
    make_adapter(shop, "by-hand")
    await tab.call("Page.reload")
    await tab.click("#to-nights")
    await tab.until("document.querySelector('.nights th[scope=row]')?.textContent === 'by-hand'")
