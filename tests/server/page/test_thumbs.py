"""Thumbs, where the user has turned feedback on."""

from __future__ import annotations

import pytest

from server.feedback import Feedback


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"feedback": True})


async def test_a_thumb_is_written_down_and_can_be_turned(site, tab):
    await tab.go(site.entrance)
    await tab.until("document.activeElement.id === 'question'")
    await tab.type("What is the total of all prices in cents?")
    await tab.press("Enter")
    for label, kept in {"A bad answer": False, "A good answer": True}.items():
        await tab.click(f".thumb[aria-label='{label}']")
        await tab.until(f"document.querySelector('.thumb[aria-pressed=true]')?.ariaLabel === '{label}'")
        assert [one.kept for one in Feedback(site.workspace).read()] == [kept]
    await tab.call("Page.reload")
    await tab.click(".kept")
    await tab.until("document.querySelector('.thumb[aria-pressed=true]')?.ariaLabel === 'A good answer'")
    assert tab.faults == []
