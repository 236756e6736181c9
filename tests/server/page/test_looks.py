"""How the page looks: nothing runs over its edge, everything can be read, and screenshots to be looked at by people.

NIGHTSCHOOL_SHOTS=docs/screenshots keeps them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SCREENS = {"light": ("light", 1280, 800), "dark": ("dark", 1280, 800), "phone": ("dark", 390, 844)}

MEASURE = (Path(__file__).parent / "looks.js").read_text()
QUESTION = "What is the total of the prices in cents, and what is a Price?"
ANSWER = [
    "The total is the sum of the cents of all prices in the cart [1]. It is an `int`, so that nothing is rounded:\n\n",
    "```python\ndef total(prices: list[Price]) -> int:\n",
    "    return sum(price.cents for price in prices)  # cents, not euros\n```\n\n",
    "- A `Price` holds `cents` and nothing else [2].\n- An **empty** cart costs `0`.\n",
]


async def can_be_looked_at(tab, name):
    await tab.shot(name)
    looks = await tab.js(MEASURE)
    assert looks["outside"] == []
    assert not looks["wide"]
    ratio, text = looks["faintest"]
    assert ratio >= 4.5, text


@pytest.mark.parametrize("look", SCREENS)
async def test_a_conversation(site, tab, look):
    site.model.script = ANSWER
    await tab.look(*SCREENS[look])
    await tab.go(site.entrance)
    await tab.until("document.activeElement.id === 'question'")
    await can_be_looked_at(tab, f"page-empty-{look}")
    await tab.type(QUESTION)
    await tab.press("Enter")
    await tab.until("document.querySelectorAll('.answer[data-state=done] .below .row').length === 1")
    await can_be_looked_at(tab, f"page-ask-{look}")
    await tab.click(".text .citation")
    await tab.until("document.querySelectorAll('.passage .line .k').length > 0")
    await can_be_looked_at(tab, f"page-passage-{look}")


@pytest.mark.parametrize("look", SCREENS)
async def test_answers_side_by_side(site, tab, look):
    site.model.script = ANSWER
    await tab.look(*SCREENS[look])
    await tab.go(site.entrance)
    await tab.click("input[value=base]")
    await tab.click("input[value=bare]")
    await tab.click("#question")
    await tab.type(QUESTION)
    await tab.press("Enter")
    await tab.until("document.querySelectorAll('.answer[data-state=done] .below .row').length === 3")
    await can_be_looked_at(tab, f"page-side-by-side-{look}")


@pytest.mark.parametrize("look", SCREENS)
async def test_the_nights(site, tab, nights, look):
    site.serving.adapter = nights[1]
    await tab.look(*SCREENS[look])
    await tab.go(site.entrance)
    await tab.click("#to-nights")
    await tab.until("document.querySelectorAll('.night').length === 3")
    await can_be_looked_at(tab, f"page-nights-{look}")
