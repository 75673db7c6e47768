"""What a worker makes of answers that come late, or never."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Callable

import pytest
from aiohttp import web

from maos import Task, Worker, _agent

Answer = tuple[int, dict[str, Any]]
LOST: Answer = (409, {"error": "it was lost", "error_code": "AGENT_LOST"})


def given(*names: str, lease_seconds: float = 90.0) -> Answer:
    tasks = [
        {
            "task_id": name,
            "attempt": 1,
            "name": name,
            "description": None,
            "parameters": {},
            "metadata": {},
            "tags": [],
            "timeout_seconds": 60,
        }
        for name in names
    ]
    return 200, {"tasks": tasks, "cancel": [], "refused": [], "lease_seconds": lease_seconds}


class Stand:
    """Stands for a server: notes what was asked, and answers polls as a test says."""

    def __init__(self, answer: Callable[[dict[str, Any]], Awaitable[Answer]]) -> None:
        self.answer = answer
        self.registered = 0
        self.polls: list[dict[str, Any]] = []

    async def register(self, _: web.Request) -> web.Response:
        self.registered += 1
        return web.json_response({})

    async def poll(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.polls.append(body)
        status, answer = await self.answer(body)
        return web.json_response(answer, status=status)

    async def leave(self, _: web.Request) -> web.Response:
        return web.json_response({})

    @contextlib.asynccontextmanager
    async def serves(self, worker: Worker) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/api/v1/agents", self.register)
        app.router.add_post("/api/v1/agents/{id}/poll", self.poll)
        app.router.add_delete("/api/v1/agents/{id}", self.leave)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stop = asyncio.Event()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        serving = asyncio.create_task(worker.serve(url, stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(serving, 20)
            await runner.cleanup()


async def never() -> Answer:
    await asyncio.Event().wait()
    raise AssertionError("nothing sets it")


def test_a_poll_that_is_never_answered_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_agent, "_ANSWER_SECONDS_MIN", 0.1)
    monkeypatch.setattr(_agent, "_POLL_MS", 100)

    # Events belong to the loop in which they are made, up to Python 3.9.
    async def use() -> None:
        worker = Worker(grace_seconds=1)
        told = asyncio.Event()
        silent = 2

        @worker.task
        async def work() -> int:
            return 7

        async def answer(poll: dict[str, Any]) -> Answer:
            nonlocal silent
            if len(stand.polls) == 1:
                return given("one", lease_seconds=0.6)
            if "outcomes" in poll and silent == 0:
                told.set()
            elif "outcomes" in poll:
                silent -= 1
                return await never()
            elif silent > 0 and poll["wait_ms"] > 0:
                return await never()
            await asyncio.sleep(0.05)
            return given(lease_seconds=0.6)

        stand = Stand(answer)

        async with stand.serves(worker):
            await asyncio.wait_for(told.wait(), 10)

    asyncio.run(use())


def test_the_answer_of_a_poll_may_take_a_share_of_the_lease() -> None:
    worker = Worker()

    @worker.task
    def usual() -> None:
        pass

    @worker.task(heartbeat_timeout=6)
    def short() -> None:
        pass

    bounds = [
        [agent._patience(waits, b"").total for waits in (False, True)] for agent in worker._agents
    ]
    assert bounds == [[30.0, 60.0], [5.0, 9.0]]
    assert worker._agents[1]._patience(False, b"x" * (10 << 20)).total == 15.0


def test_a_loss_that_is_heard_of_twice_counts_once() -> None:
    # Events belong to the loop in which they are made, up to Python 3.9.
    async def use() -> None:
        worker = Worker(concurrency=2)
        waits, second_began, goes_on, told = (asyncio.Event() for _ in range(4))

        @worker.task
        async def work(task: Task) -> int:
            if task.id == "first":
                # So that there is a poll beside the one that waits.
                await waits.wait()
                task.log("a line")
                await asyncio.sleep(30)
            second_began.set()
            await goes_on.wait()
            return 7

        async def answer(poll: dict[str, Any]) -> Answer:
            if len(stand.polls) == 1:
                return given("first")
            if any(outcome["task_id"] == "second" for outcome in poll.get("outcomes", [])):
                told.set()
            elif "logs" in poll:
                return given("second") if stand.registered == 2 else LOST
            elif stand.registered == 1:
                waits.set()
                await second_began.wait()
                return LOST
            else:
                goes_on.set()
                await asyncio.sleep(0.05)
            return given()

        stand = Stand(answer)

        async with stand.serves(worker):
            await asyncio.wait_for(told.wait(), 10)
        assert stand.registered == 2

    asyncio.run(use())
