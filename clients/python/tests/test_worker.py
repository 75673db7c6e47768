"""Python functions as agents of a real server."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import Server

from maos import Failed, MAOSClient, MAOSError, Subtasks, Task, Worker, _agent


def work(server: Server, worker: Worker, use: Callable[[MAOSClient], Awaitable[None]]) -> None:
    """Run a worker for as long as `use` takes."""

    async def both() -> None:
        stop = asyncio.Event()
        serving = asyncio.create_task(worker.serve(server.url, stop))
        try:
            async with MAOSClient(server.url) as client:
                await asyncio.wait_for(use(client), 60)
        finally:
            stop.set()
            await serving

    asyncio.run(both())


async def run(client: MAOSClient, capability: str, **parameters: Any) -> dict[str, Any]:
    accepted = await client.submit_task(
        capability, parameters=parameters, required_capabilities=[capability], max_retries=0
    )
    return await client.wait_for(accepted["task"]["id"])


def test_a_worker_says_how_long_it_may_be_silent(server: Server) -> None:
    worker = Worker()

    @worker.task(capabilities=["slow"], heartbeat_timeout=600)
    def slow(n: int) -> int:
        return n

    async def use(client: MAOSClient) -> None:
        ended = await run(client, "slow", n=1)
        agent = await client.get_agent(ended["agent_id"])
        assert agent["agent"]["heartbeat_timeout"] == 600

    work(server, worker, use)


def test_a_decorator_without_parentheses_serves_plain_tasks(server: Server) -> None:
    worker = Worker()

    @worker.task
    def plain(n: int) -> int:
        return n + 1

    async def use(client: MAOSClient) -> None:
        accepted = await client.submit_task("n", parameters={"n": 1})
        assert (await client.wait_for(accepted["task"]["id"], 30))["result"] == 2

    assert plain(1) == 2
    work(server, worker, use)


def test_what_a_function_is_registered_with_is_checked_at_once() -> None:
    worker = Worker()
    with pytest.raises(TypeError, match=r'`capabilities` .* `\["greeting"\]`'):
        worker.task(capabilities="greeting")
    for concurrency in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1, found {concurrency}"):
            worker.task(concurrency=concurrency)
        with pytest.raises(ValueError, match=f"at least 1, found {concurrency}"):
            Worker(concurrency=concurrency)


def square(n: int) -> dict[str, int]:
    return {"n": n * n, "process": os.getpid()}


def test_functions_of_every_kind(server: Server) -> None:
    worker = Worker()

    @worker.task(capabilities=["adding"])
    def add(a: int, b: int = 10) -> int:
        return a + b

    @worker.task(capabilities=["everything"])
    async def everything(task: Task, **rest: Any) -> dict[str, Any]:
        task.progress(0.5, "half")
        logging.getLogger("mine").warning("a line")
        return {"name": task.name, "rest": rest, "attempt": task.attempt}

    @worker.task(capabilities=["failing"])
    def fail(how: str) -> None:
        if how == "for good":
            raise Failed("bad input", permanent=True)
        raise ValueError("no luck")

    worker.task(capabilities=["squaring"], processes=True)(square)

    async def use(client: MAOSClient) -> None:
        assert (await run(client, "adding", a=1))["result"] == 11
        assert (await run(client, "adding"))["error"] == "`parameters.a` is missing"
        task = await run(client, "everything", x=1)
        assert task["result"] == {"name": "everything", "rest": {"x": 1}, "attempt": 1}
        page = await client.task_logs(task["id"])
        told = [(item["level"], item["line"], item["source"]) for item in page["items"]]
        assert ("warning", "a line", "worker") in told and ("info", "half", "progress") in told
        assert page["ended"]
        assert (await run(client, "failing", how="for good"))["error"] == "bad input"
        assert (await run(client, "failing", how="once"))["error"] == "ValueError: no luck"
        result = (await run(client, "squaring", n=7))["result"]
        assert result["n"] == 49 and result["process"] != os.getpid()

    work(server, worker, use)


def test_a_function_hands_the_rest_to_others(server: Server) -> None:
    worker = Worker()

    @worker.task(capabilities=["splitting"])
    def split(numbers: list[int]) -> Subtasks:
        entries = [
            {
                "key": f"n{n}",
                "name": f"square {n}",
                "parameters": {"n": n},
                "required_capabilities": ["squaring_one"],
            }
            for n in numbers
        ]
        total = {
            "name": "total",
            "parameters": {"parts": [{"$from": entry["key"]} for entry in entries]},
            "required_capabilities": ["totalling"],
        }
        return Subtasks(*entries, total)

    @worker.task(capabilities=["squaring_one"])
    def square_one(n: int) -> int:
        return n * n

    @worker.task(capabilities=["totalling"])
    def total(parts: list[int]) -> int:
        return sum(parts)

    async def use(client: MAOSClient) -> None:
        task = await run(client, "splitting", numbers=[1, 2, 3])
        assert (task["status"], task["result"]) == ("completed", 14), task
        plan = await client.get_plan(task["execution_plan_id"])
        names = sorted(member["name"] for member in plan["tasks"].values())
        assert names == ["splitting", "square 1", "square 2", "square 3", "total"]

    work(server, worker, use)


def test_a_cancelled_task_stops_its_function(server: Server) -> None:
    worker = Worker()
    stopped, started = threading.Event(), threading.Event()

    @worker.task(capabilities=["waiting"])
    async def wait() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    @worker.task(capabilities=["looking"])
    def look(task: Task) -> None:
        started.set()
        if task.cancelled.wait(60):
            stopped.set()

    async def use(client: MAOSClient) -> None:
        for capability in ("waiting", "looking"):
            started.clear()
            stopped.clear()
            accepted = await client.submit_task("n", required_capabilities=[capability])
            await asyncio.to_thread(started.wait, 30)
            await client.cancel_task(accepted["task"]["id"])
            assert await asyncio.to_thread(stopped.wait, 30), capability
            agents = await client.list_agents(capabilities=capability)
            assert agents["total_items"] == 1

    work(server, worker, use)


def test_many_tasks_and_a_server_that_is_killed_meanwhile(server: Server) -> None:
    worker = Worker(concurrency=20)
    done: list[int] = []

    @worker.task(capabilities=["counting"])
    async def count(n: int) -> int:
        await asyncio.sleep(0.02)
        done.append(n)
        return n

    async def use(client: MAOSClient) -> None:
        submissions = [
            {"name": "n", "parameters": {"n": n}, "required_capabilities": ["counting"]}
            for n in range(500)
        ]
        ids = [answer["task_id"] for answer in await client.submit_batch(submissions)]
        while len(done) < 100:
            await asyncio.sleep(0.01)
        server.kill()
        again = await asyncio.to_thread(server.again)
        server.process = again.process
        for n, task_id in enumerate(ids):
            task = await client.wait_for(task_id, 60)
            assert task["status"] == "completed" and task["result"] == n, task

    work(server, worker, use)
    assert sorted(set(done)) == list(range(500))


def test_lines_are_followed_while_a_function_works(server: Server) -> None:
    worker = Worker()
    heard = threading.Event()

    @worker.task(capabilities=["talking"])
    def talk(task: Task) -> int:
        task.log("first", "debug")
        assert heard.wait(30)
        logging.getLogger("mine").error("second")
        return 1

    async def use(client: MAOSClient) -> None:
        accepted = await client.submit_task("n", required_capabilities=["talking"])
        lines = []
        async for item in client.follow_logs(accepted["task"]["id"]):
            heard.set()
            lines.append((item["offset"], item["level"], item["line"]))
        assert lines == [(0, "debug", "first"), (1, "error", "second")]

    work(server, worker, use)


def explain() -> None:
    try:
        raise KeyError("inner")
    except KeyError:
        logging.getLogger("mine").exception("it went\nwrong")


def test_a_text_of_several_lines_is_several_lines_of_the_log(server: Server) -> None:
    worker = Worker()

    @worker.task(capabilities=["telling"])
    def tell(task: Task) -> None:
        task.log("a\r\n\nb\n", "debug")
        task.log("")
        explain()

    worker.task(capabilities=["apart"], processes=True)(explain)

    async def use(client: MAOSClient) -> None:
        for capability, before in (("telling", ["a", "", "b", ""]), ("apart", [])):
            task = await run(client, capability)
            items = (await client.task_logs(task["id"]))["items"]
            lines = [item["line"] for item in items]
            known = [*before, "it went", "wrong", "Traceback (most recent call last):"]
            assert lines[: len(known)] == known, lines
            assert lines[-1] == "KeyError: 'inner'" and items[-1]["level"] == "error", lines

    work(server, worker, use)


def divide(by: int) -> float:
    if by < 0:
        raise Failed("`by` must be positive", permanent=True)
    return 1 / by


def test_the_traceback_of_what_a_function_raises_is_in_its_tasks_log(server: Server) -> None:
    worker = Worker()

    @worker.task(capabilities=["loop"])
    async def in_the_loop(by: int) -> float:
        return divide(by)

    worker.task(capabilities=["threads"])(divide)
    worker.task(capabilities=["processes"], processes=True)(divide)

    async def use(client: MAOSClient) -> None:
        for capability in ("loop", "threads", "processes"):
            task = await run(client, capability, by=0)
            assert task["error"] == "ZeroDivisionError: division by zero", task
            items = (await client.task_logs(task["id"]))["items"]
            lines = [item["line"] for item in items]
            assert {item["level"] for item in items} == {"error"}
            assert lines[0] == "Traceback (most recent call last):", lines
            assert lines[-1] == "ZeroDivisionError: division by zero", lines
            assert "test_worker.py" in lines[1] and "    return 1 / by" in lines, lines
            assert not any("_outcome.py" in line or "_agent.py" in line for line in lines), lines
            task = await run(client, capability, by=-1)
            assert (await client.task_logs(task["id"]))["items"] == []

    work(server, worker, use)


def test_lines_and_messages_of_progress_keep_their_order(server: Server) -> None:
    worker = Worker()

    @worker.task(capabilities=["telling"])
    def tell(task: Task) -> None:
        for n in range(5):
            logging.getLogger("mine").warning("line %d", n)
            task.progress(n / 5, f"sign {n}")

    async def use(client: MAOSClient) -> None:
        task = await run(client, "telling")
        lines = [item["line"] for item in (await client.task_logs(task["id"]))["items"]]
        assert lines == [f"{what} {n}" for n in range(5) for what in ("line", "sign")]

    work(server, worker, use)


def test_every_poll_brings_what_waits_when_the_server_is_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_agent, "_PAUSE_FIRST_SECONDS", 0.1)
    worker = Worker()
    goes_on = threading.Event()
    polls: list[tuple[bytes, bool]] = []
    send = MAOSClient.poll

    async def noted(self: MAOSClient, agent_id: str, body: bytes, *more: Any) -> Any:
        try:
            answer = await send(self, agent_id, body, *more)
        except BaseException:
            polls.append((body, False))
            raise
        polls.append((body, True))
        return answer

    monkeypatch.setattr(MAOSClient, "poll", noted)

    @worker.task(capabilities=["waiting"])
    def wait() -> str:
        assert goes_on.wait(30)
        return "the outcome"

    async def failures(since: int, count: int) -> None:
        while len([arrived for _, arrived in polls[since:] if not arrived]) < count:
            await asyncio.sleep(0.01)

    async def use(client: MAOSClient) -> None:
        accepted = await client.submit_task("n", required_capabilities=["waiting"])
        while not worker._agents[0].holding:
            await asyncio.sleep(0.01)
        server.kill()
        await failures(0, 2)
        goes_on.set()
        while not worker._agents[0].outbox.outcomes and not worker._agents[0].telling:
            await asyncio.sleep(0.01)
        # At the most one poll was on its way then.
        since = len(polls) + 1
        await failures(since, 2)
        server.process = (await asyncio.to_thread(server.again)).process
        task = await client.wait_for(accepted["task"]["id"], 30)
        assert task["result"] == "the outcome"
        while not any(arrived for _, arrived in polls[since:]):
            await asyncio.sleep(0.01)
        until = next(at for at, (_, arrived) in enumerate(polls) if arrived and at >= since)
        assert all(b"the outcome" in body for body, _ in polls[since : until + 1])

    work(server, worker, use)


def test_files_are_kept_by_functions_of_both_kinds(server: Server, tmp_path: Path) -> None:
    worker = Worker()
    large = tmp_path / "large"
    large.write_bytes(os.urandom(3 << 20))

    @worker.task(capabilities=["threads"])
    def in_a_thread(task: Task) -> int:
        kept = task.artifact("a b.txt", b"text", "text/plain")
        size: int = kept["size_bytes"]
        return size

    @worker.task(capabilities=["loop"])
    async def in_the_loop(task: Task) -> str:
        kept = await task.keep_artifact("..large", large)
        checksum: str = kept["checksum"]
        return checksum

    async def use(client: MAOSClient) -> None:
        small = await run(client, "threads")
        assert (small["status"], small["result"]) == ("completed", 4), small
        assert await client.get_artifact(small["id"], "a b.txt") == b"text"
        task = await run(client, "loop")
        assert task["status"] == "completed", task
        listed = await client.list_artifacts(task["id"])
        assert [item["checksum"] for item in listed["items"]] == [task["result"]]
        assert listed["items"][0]["size_bytes"] == 3 << 20
        copy = tmp_path / "copy"
        await client.get_artifact(task["id"], "..large", copy)
        assert copy.read_bytes() == large.read_bytes()
        for name, status in [("none", 404), ("..large", 409)]:
            with pytest.raises(MAOSError) as refused:
                if status == 404:
                    await client.get_artifact(task["id"], name)
                else:
                    await client.put_artifact(task["id"], name, b"late")
            assert refused.value.status == status

    work(server, worker, use)
