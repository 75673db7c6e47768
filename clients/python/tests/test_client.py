"""The client as the documents show it, and what it does when the server is busy or away."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from conftest import Server

from maos import MAOSClient, MAOSError, _wire
from maos._pause import Pauses


def test_every_method_of_the_documents(server: Server) -> None:
    async def use() -> None:
        async with MAOSClient(base_url=server.url) as client:
            accepted = await client.submit_task(
                "n",
                "d",
                "high",
                {"action": "noop", "x": 1},
                {"cpu_cores": 1},
                60,
                2,
                ["t"],
                {"m": 1},
                None,
            )
            task = await client.wait_for(accepted["task"]["id"], 30)
            assert task["status"] == "completed" and task["result"]["x"] == 1
            assert (await client.get_task(task["id"]))["task"] == task
            with pytest.raises(aiohttp.ClientResponseError) as refused:
                await client.cancel_task(task["id"], "too late")
            assert refused.value.status == 409 and "ended" in refused.value.message
            assert isinstance(refused.value, MAOSError)
            assert refused.value.error_code == "ALREADY_ENDED" and refused.value.request_id
            agent = await client.create_agent("mine", ["computation"], {}, 2, {}, ["t"])
            assert agent["agent"]["type"] == "mine"
            assert (await client.health_check())["status"] == "healthy"
            assert (await client.detailed_health_check())["components"]
            assert (await client.get_system_status())["running"] is True
            assert (await client.get_system_metrics())["orchestrator"]["tasks_completed"] == 1
            claude = await client.submit_claude_task({"description": "d", "type": "monitoring"})
            status = await client.get_claude_task_status(claude["claude_task_id"])
            assert status["maos_task_id"] == claude["maos_task_id"]
            assert (await client.get_claude_orchestrator_status())["total_claude_tasks"] == 1
            assert (await client.cancel_task(status["maos_task_id"], "enough"))[
                "reason"
            ] == "enough"

    asyncio.run(use())


def test_the_wider_api(server: Server) -> None:
    async def use() -> None:
        async with MAOSClient(server.url) as client:
            seen = asyncio.create_task(_states(client, "mark"))
            await asyncio.sleep(0.2)
            noop = {"name": "mark", "parameters": {"action": "noop"}}
            batch = await client.submit_batch([noop, {"name": " "}])
            assert batch[1]["error_code"] == "VALIDATION_FAILED"
            assert await asyncio.wait_for(seen, 30) == ["pending", "ready", "running", "completed"]
            page = await client.list_tasks(status="completed", tags=None, page_size=1)
            assert page["items"][0]["id"] == batch[0]["task_id"]
            failed = {"action": "file.read", "path": "none"}
            with pytest.raises(RuntimeError, match="`none`"):
                await client.run_task("f", parameters=failed, max_retries=0)
            steps = {
                "name": "p",
                "decomposition_strategy": "sequential",
                "parameters": {"steps": ["a", "b"]},
            }
            assert len((await client.preview_plan(steps))["tasks"]) == 3

    asyncio.run(use())


async def _states(client: MAOSClient, name: str) -> list[str]:
    states = []
    async for event in client.events(type="task"):
        if event["name"] == name:
            states.append(event["status"])
            if event["status"] == "completed":
                break
    return states


def test_a_time_out_is_a_time_out_and_an_absent_server_a_connection_error(server: Server) -> None:
    async def use() -> None:
        async with MAOSClient(server.url, timeout_seconds=0.0001) as client:
            with pytest.raises(asyncio.TimeoutError):
                await client.health_check()
        async with MAOSClient("http://127.0.0.1:1", retries=0) as client:
            with pytest.raises(aiohttp.ClientConnectionError):
                await client.health_check()

    asyncio.run(use())


def test_messages_are_sent_read_and_acknowledged(server: Server) -> None:
    async def use() -> None:
        async with MAOSClient(server.url) as client:
            sent = await client.send_message({"topic": "t"}, {"n": 1}, kind="note")
            page = await client.read_messages("topic:t", reader="me", wait_seconds=5)
            assert [item["message_id"] for item in page["items"]] == [sent["message_id"]]
            await client.acknowledge_messages("topic:t", sent["offset"], reader="me")
            page = await client.read_messages("topic:t", reader="me")
            assert page["items"] == [] and page["acknowledged"] == 0
            page = await client.read_messages("topic:t", offset=0)
            assert page["items"][0]["body"] == {"n": 1}

    asyncio.run(use())


def test_a_text_in_the_place_of_a_list_is_not_taken_apart() -> None:
    async def use() -> None:
        async with MAOSClient("http://127.0.0.1:1", retries=0) as client:
            with pytest.raises(TypeError, match=r'`capabilities` .* `\["monitoring"\]`'):
                await client.create_agent("x", "monitoring")
            with pytest.raises(TypeError, match=r'`tags` .* `\["abc"\]`'):
                await client.create_agent("x", ["monitoring"], tags="abc")
            with pytest.raises(TypeError, match=r'`tags` .* `\["abc"\]`'):
                await client.submit_task("x", tags="abc")
            with pytest.raises(TypeError, match=r'`task_ids` .* `\["abc"\]`'):
                await client.bulk("cancel", "abc")

    asyncio.run(use())


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("127.0.0.1:8741", "http://127.0.0.1:8741"),
        ("foo://server:1/", "http://server:1"),
        ("localhost", "http://localhost"),
        ("", "http://127.0.0.1:8000"),
        ("http://", "http://127.0.0.1:8000"),
        ("http://server:port", "http://127.0.0.1:8000"),
    ],
)
def test_an_address_that_is_none_is_refused_at_once(address: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"`{address}` is no address(.|\n)*hint: .*`{hint}`"):
        MAOSClient(address)


def test_a_server_that_is_away_for_long_is_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0

    class Impatient(Pauses):
        """Counts what could not be sent, and waits for nothing."""

        def next(self, asked_seconds: float = 0.0) -> float:
            nonlocal failures
            failures += 1
            return 0.01

    monkeypatch.setattr(_wire, "Pauses", Impatient)
    work = {"parameters": {"n": 1}, "required_capabilities": ["mine"]}

    async def lines(client: MAOSClient, task_id: str) -> list[str]:
        return [item["line"] async for item in client.follow_logs(task_id)]

    async def running_one(client: MAOSClient) -> str:
        while not (page := await client.list_tasks(status="running"))["items"]:
            await asyncio.sleep(0.01)
        task_id: str = page["items"][0]["id"]
        return task_id

    async def enough_failures() -> None:
        while failures < 50:
            await asyncio.sleep(0.01)

    async def use() -> None:
        async with MAOSClient(server.url) as client, MAOSClient(server.url, retries=0) as other:
            agent = (await client.create_agent("m", ["mine"], runtime="worker"))["agent"]["id"]
            # Nothing is assigned to a worker before its first poll.
            await client.poll(agent, json.dumps({"incarnation": 1, "max_tasks": 0}).encode())
            running = asyncio.create_task(other.run_task("n", **work))
            task_id = await asyncio.wait_for(running_one(client), 30)
            waiting = asyncio.create_task(client.wait_for(task_id, 60))
            following = asyncio.create_task(lines(client, task_id))
            server.kill()
            await asyncio.wait_for(enough_failures(), 30)
            assert not (running.done() or waiting.done() or following.done())
            server.process = (await asyncio.to_thread(server.again)).process
            log = {"task_id": task_id, "attempt": 1, "line": "back"}
            outcome = {"task_id": task_id, "attempt": 1, "status": "completed", "result": 7}
            poll = {"incarnation": 1, "max_tasks": 1, "logs": [log], "outcomes": [outcome]}
            await client.poll(agent, json.dumps(poll).encode())
            assert (await waiting)["result"] == 7 == await asyncio.wait_for(running, 60)
            assert await asyncio.wait_for(following, 60) == ["back"]

    asyncio.run(use())


def test_nothing_is_waited_for_at_a_server_that_never_was_there() -> None:
    task_id = "01a20795-57e5-7721-88cd-0741d7d34689"

    async def use() -> None:
        async with MAOSClient("http://127.0.0.1:1", retries=0) as client:
            with pytest.raises(aiohttp.ClientConnectionError):
                await client.run_task("n")
            with pytest.raises(aiohttp.ClientConnectionError):
                await client.wait_for(task_id, 30)
            with pytest.raises(aiohttp.ClientConnectionError):
                await asyncio.wait_for(client.follow_logs(task_id).__anext__(), 30)

    asyncio.run(use())


@pytest.mark.parametrize("code", ["SHUTTING_DOWN", "STORAGE_UNAVAILABLE"])
def test_a_server_that_says_it_is_away_is_waited_for(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_wire, "PAUSE_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(_wire, "PAUSE_MAX_SECONDS", 0.01)
    keys: list[str] = []
    refusals = {503: 20, 429: 0}

    async def submitted(request: web.Request) -> web.Response:
        keys.append(request.headers["idempotency-key"])
        for status, left in refusals.items():
            if left > 0:
                refusals[status] -= 1
                return web.json_response({"error": "later", "error_code": code}, status=status)
        ended = {"id": "x", "status": "completed", "completed_at": "now", "result": 7}
        return web.json_response({"task": ended})

    async def use() -> None:
        app = web.Application()
        app.router.add_post("/api/v1/tasks", submitted)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with MAOSClient(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
                assert await asyncio.wait_for(client.run_task("n"), 30) == 7
                assert len(keys) == 21 and len(set(keys)) == 1
                refusals[429] = 20
                with pytest.raises(MAOSError):
                    await asyncio.wait_for(client.run_task("n"), 30)
        finally:
            await runner.cleanup()

    asyncio.run(use())


def test_every_fault_of_a_submission_is_in_the_message(server: Server) -> None:
    async def use() -> None:
        async with MAOSClient(server.url) as client:
            with pytest.raises(MAOSError) as refused:
                await client.submit_task("", priority="urgent", timeout_seconds=-1)
            lines = str(refused.value).splitlines()
            assert lines[0].startswith("422 VALIDATION_FAILED: 3 fields are not valid"), lines
            assert lines[1:] == [
                "`name` must not be blank",
                "`priority` must be one of `low`, `medium`, `high`, `critical`, found `urgent`",
                "`timeout_seconds` must be 1 to 3600, found -1",
            ]
            with pytest.raises(MAOSError) as refused:
                await client.submit_task("")
            assert refused.value.message == "`name` must not be blank"
            with pytest.raises(MAOSError) as refused:
                await client.bulk("cancel", [f"no id {n}" for n in range(12)])
            assert refused.value.message.count("\n") <= 11, refused.value.message

    asyncio.run(use())


def test_of_many_faults_ten_are_in_the_message() -> None:
    message = _wire._with_faults("12 fields\nhint: x", {f"f{n}": "is bad" for n in range(12)})
    lines = message.splitlines()
    assert lines[:3] == ["12 fields", "hint: x", "`f0` is bad"]
    assert lines[11:] == ["`f9` is bad", "and 2 more in `details`"]


def test_what_can_be_no_file_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async def use() -> None:
        # Nothing is sent: there is no server.
        async with MAOSClient("http://127.0.0.1:1") as client:
            with pytest.raises(FileNotFoundError, match="none"):
                await client.put_artifact("id", "name", tmp_path / "none")
            with pytest.raises(IsADirectoryError):
                await client.put_artifact("id", "name", tmp_path)
            for wrong in ("text", None, 7):
                with pytest.raises(TypeError, match=r"must be bytes or a `Path`(.|\n)*encode"):
                    await client.put_artifact("id", "name", wrong)  # type: ignore[arg-type]

    asyncio.run(use())


def test_bytes_of_every_kind_are_kept(server: Server) -> None:
    async def use() -> None:
        async with MAOSClient(server.url) as client:
            task_id = (await client.submit_task("n"))["task"]["id"]
            for content in (b"text", bytearray(b"text"), memoryview(b"no text")[3:]):
                await client.put_artifact(task_id, "name", content)
                assert await client.get_artifact(task_id, "name") == b"text"

    asyncio.run(use())
