"""What runs beside the backend: as long as it, and without harm to it."""

import asyncio

from server.run import _running


async def test_what_runs_beside_the_backend_is_ended_with_it():
    began, ended = asyncio.Event(), []

    async def beside():
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with asyncio.timeout(10), _running(beside):
        await began.wait()
    assert ended == [True]


async def test_what_fails_beside_the_backend_is_logged_and_ends_nothing(caplog):
    async def beside():
        raise OSError("no disk")

    async with asyncio.timeout(10), _running(beside):
        while "what starts the nights has ended" not in caplog.text:
            await asyncio.sleep(0)


async def test_nothing_need_run_beside_it():
    async with _running(None):
        pass
