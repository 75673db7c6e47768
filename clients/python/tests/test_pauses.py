"""How long is waited before the next try."""

from __future__ import annotations

import asyncio
import socket
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from conftest import Server
from test_worker import run, work

from maos import MAOSClient, Worker, _wire, client
from maos._pause import Pauses, retry_after


def test_pauses_grow_and_spread_and_stay_below_their_maximum() -> None:
    rows = []
    for _ in range(200):
        pauses = Pauses(1.0, 10.0)
        rows.append([pauses.next() for _ in range(8)])
    for at, least in enumerate([1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0, 5.0]):
        column = [row[at] for row in rows]
        assert least <= min(column) and max(column) <= min(2 * least, 10.0)
        # Of 200 the first and the last are far apart: the chance that they are not is below 1e-20.
        assert max(column) - min(column) > least / 2
    pauses.reset()
    assert pauses.next() <= 2.0


def test_a_maximum_below_the_first_pause_holds() -> None:
    assert all(0.15 <= Pauses(1.0, 0.3).next() <= 0.3 for _ in range(100))


def test_what_the_server_asks_for_is_waited_up_to_the_maximum() -> None:
    for _ in range(100):
        assert 3.0 <= Pauses(0.2, 5.0).next(3.0) <= 5.0
        assert Pauses(0.2, 5.0).next(60.0) == 5.0


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5"])
def test_what_is_no_time_asks_for_nothing(text: str) -> None:
    assert retry_after({"Retry-After": text}) == 0.0


def test_a_time_is_seconds_or_a_date() -> None:
    assert retry_after({"Retry-After": "7"}) == 7.0
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    assert 90 < retry_after({"Retry-After": date}) <= 100
    assert retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_the_client_waits_as_the_server_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    asked = 0

    async def busy(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked == 1:
            return web.json_response({"error": "busy"}, status=503, headers={"Retry-After": "4"})
        return web.json_response({"status": "healthy"})

    class Noted(Pauses):
        def next(self, *given: Any) -> float:
            waited.append(super().next(*given))
            return 0.0

    async def use() -> None:
        app = web.Application()
        app.router.add_get("/health", busy)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            async with MAOSClient(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
                assert (await client.health_check())["status"] == "healthy"
        finally:
            await runner.cleanup()

    monkeypatch.setattr(_wire, "Pauses", Noted)
    asyncio.run(use())
    assert len(waited) == 1 and 4.0 <= waited[0] <= 5.0


def test_the_pauses_of_a_worker_stay_below_a_third_of_its_lease(server: Server) -> None:
    (server.folder / "maos.toml").write_text("[api]\nworker_timeout = 10\n")
    server.kill()
    server.process = server.again().process
    worker = Worker()

    @worker.task(capabilities=["usual"])
    def usual() -> int:
        return 1

    @worker.task(capabilities=["short"], heartbeat_timeout=6)
    def short() -> int:
        return 1

    @worker.task(capabilities=["long"], heartbeat_timeout=6_000)
    def long() -> int:
        return 1

    # What it asked for holds before the first answer, too.
    bounds = [agent.pauses.seconds_max for agent in worker._agents]
    assert bounds == [30.0, 2.0, 30.0]

    async def use(client: MAOSClient) -> None:
        for capability in ("usual", "short", "long"):
            await run(client, capability)

    work(server, worker, use)
    usual_agent, *_ = worker._agents
    bounds = [agent.pauses.seconds_max for agent in worker._agents]
    assert bounds == [10 / 3, 2.0, 30.0]
    pauses = [usual_agent.pauses.next() for _ in range(100)]
    assert max(pauses) <= 10 / 3 and max(pauses) - min(pauses[5:]) > 1.0


def test_events_of_a_server_that_was_never_there_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSE_FIRST_SECONDS", 0.001)

    async def follow() -> None:
        with socket.socket() as taken:
            # Bound and not listening: nobody answers there while this is open.
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            async with MAOSClient(f"http://127.0.0.1:{port}") as maos:
                async for _ in maos.events():
                    raise AssertionError("nobody is there")

    with pytest.raises(aiohttp.ClientConnectionError):
        asyncio.run(asyncio.wait_for(follow(), 30))
