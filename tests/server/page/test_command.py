"""`nightschool ui` opens the page in a browser, and nobody else on the machine learns the token from it."""

import asyncio
import json
import os

import pytest


@pytest.fixture
def announced(site, shop):
    """The site, as a backend that runs says it is there."""
    (shop.state / "backend.json").write_text(json.dumps({"pid": os.getpid(), "url": site.url}))
    return site


async def test_the_address_is_printed(announced, shop, cli):
    done = await asyncio.to_thread(cli, "ui", "--print", "-w", str(shop.root))
    assert (done.returncode, done.stdout) == (0, announced.entrance + "\n")


async def test_a_browser_is_started_without_the_token_and_lands_on_the_page(announced, shop, cli, tab, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$*" > {tmp_path}/given\n')
    browser.chmod(0o755)
    done = await asyncio.to_thread(cli, "ui", "-w", str(shop.root), BROWSER=f"{browser} %s")
    assert done.returncode == 0, done.stderr
    given = (tmp_path / "given").read_text()
    assert announced.token not in given
    door = shop.state / "open-page.html"
    assert (given, door.stat().st_mode & 0o777) == (door.as_uri(), 0o600)
    await tab.go(given)
    await tab.until("document.activeElement.id === 'question'")
    assert await tab.js("location.href") == f"{announced.url}/ui"


async def test_without_a_browser_it_says_so(announced, shop, cli):
    done = await asyncio.to_thread(cli, "ui", "-w", str(shop.root), BROWSER="/does/not/exist %s", PATH="/nowhere")
    assert "open the address yourself" in done.stderr
