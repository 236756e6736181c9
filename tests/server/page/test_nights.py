"""The page of nights in a real Chromium, over records as the trainer writes them."""

from __future__ import annotations

import httpx
import pytest

from server.adapter import read_current
from server.nights import read_curve, read_nights


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
    await tab.click(".card.row button")
    await tab.press("Enter")
    await tab.until(f"document.querySelector('#in-service').textContent === '{second}'")
    assert read_current(shop.adapters).version == second


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
