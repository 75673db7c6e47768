"""The wider API, method by method; and that there is a method for every operation."""

from __future__ import annotations

import asyncio
import json

import pytest
from conftest import ROOT, Server

from maos import MAOSClient, MAOSError

# Operations whose method has another name than the description gives them.
NAMES = {
    "bring_outcome": None,  # callbacks of HTTP agents, which are no clients
    "cancel_claude_task_too": "cancel_claude_task",
    "cancel_task_too": "cancel_task",
    "change_tasks": "bulk",
    "detailed_health": "detailed_health_check",
    "docs": None,
    "get_claude_status": "get_claude_orchestrator_status",
    "get_claude_task": "get_claude_task_status",
    "get_metrics": "get_system_metrics",
    "get_status": "get_system_status",
    "get_task_events": "task_events",
    "get_task_logs": "task_logs",
    "get_task_results": "get_results",
    "health": "health_check",
    "openapi": None,
    "redoc": None,
    "submit_tasks": "submit_batch",
    "watch_events": "events",
}


def test_there_is_a_method_for_every_operation() -> None:
    document = json.loads((ROOT / "docs/openapi.json").read_text())
    operations = [
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
        if "operationId" in operation
    ]
    assert len(operations) > 60
    wanted = [NAMES.get(name, name) for name in operations]
    missing = [name for name in wanted if name is not None and not hasattr(MAOSClient, name)]
    assert missing == []


def test_changes_history_and_keys_of_ones_own(server: Server) -> None:
    async def use() -> None:
        async with MAOSClient(server.url) as client:
            later = {"name": "n", "delay_seconds": 600, "parameters": {"action": "noop"}}
            first = await client.submit_task(**later, idempotency_key="k")
            again = await client.submit_task(**later, idempotency_key="k")
            assert first["task"]["id"] == again["task"]["id"]
            with pytest.raises(MAOSError) as refused:
                await client.submit_task("other", idempotency_key="k")
            assert refused.value.error_code == "IDEMPOTENCY_CONFLICT"
            task_id = first["task"]["id"]
            changed = await client.change_task(task_id, priority="high", tags=["t"])
            assert (changed["task"]["priority"], changed["task"]["tags"]) == ("high", ["t"])
            changed = await client.change_task(task_id, queue_timeout_seconds=9)
            assert changed["task"]["queue_timeout_seconds"] == 9
            changed = await client.change_task(task_id, queue_timeout_seconds=None)
            assert "queue_timeout_seconds" not in changed["task"]
            answer = await client.bulk("cancel", [task_id], reason="enough")
            assert answer["successful_operations"] == 1
            task = (await client.get_task(task_id))["task"]
            assert "enough" in task["error"]
            history = await client.task_events(task_id)
            assert history["task_id"] == task_id and len(history["items"]) == 2
            noop = {"action": "noop"}
            waited = await client.submit_task("w", parameters=noop, wait_seconds=30)
            assert waited["task"]["status"] == "completed"
            agent = await client.create_agent("mine", ["computation"])
            changed = await client.change_agent(agent["agent"]["id"], tags=["a"])
            assert changed["agent"]["tags"] == ["a"]
            claude = await client.submit_claude_task({"name": "c"}, idempotency_key="c")
            claude_id = claude["claude_task_id"]
            with pytest.raises(MAOSError):
                await client.get_claude_task_results(claude_id)
            cancelled = await client.cancel_claude_task(claude_id, "no more")
            assert cancelled["reason"] == "no more"

    asyncio.run(use())


def test_resources_pools_schedules_and_keys(server: Server) -> None:
    async def use() -> None:
        async with MAOSClient(server.url) as client:
            made = await client.create_resource("custom", "licence", 3, unit="seats")
            resource_id = made["resource"]["id"]
            await client.change_resource(resource_id, capacity=4)
            assert (await client.get_resource(resource_id))["resource"]["capacity"] == 4
            await client.allocate_resources("me", {"licence": 2}, lease_seconds=60)
            assert (await client.list_allocations())["total_items"] == 1
            await client.release_resources("me")
            await client.delete_resource(resource_id)
            names = [each["name"] for each in (await client.list_resources())["items"]]
            assert "licence" not in names and "cpu_cores" in names
            pools = (await client.list_pools())["items"]
            name = pools[0]["name"]
            changed = await client.change_pool(name, max=pools[0]["max"] + 1)
            assert (await client.get_pool(name))["pool"]["max"] == changed["pool"]["max"]
            assert await client.get_pool_demand(name) >= 0
            made = await client.create_schedule("s", {"name": "n"}, cron="0 3 * * *")
            schedule_id = made["schedule"]["id"]
            await client.pause_schedule(schedule_id)
            assert (await client.get_schedule(schedule_id))["schedule"]["paused"] is True
            assert (await client.list_schedules())["total_items"] == 1
            await client.delete_schedule(schedule_id)
            await client.set_limit("k/1", running_max=2, starts_per_minute=60)
            await client.set_weight("w", 3)
            assert "k/1" in json.dumps(await client.list_keys())
            await client.unset_limit("k/1")
            keys = await client.unset_weight("w")
            assert "k/1" not in json.dumps(keys)

    asyncio.run(use())


def test_checkpoints_mailboxes_and_subscriptions(server: Server) -> None:
    (server.folder / "maos.toml").write_text("[outbound]\nallow_private = true\n")
    server.kill()
    server.process = server.again().process

    async def use() -> None:
        async with MAOSClient(server.url) as client:
            made = await client.create_checkpoint("before", {"m": 1})
            checkpoint_id = made["checkpoint"]["id"]
            assert (await client.get_checkpoint(checkpoint_id))["checkpoint"]["name"] == "before"
            await client.restore_checkpoint(checkpoint_id)
            listed = await client.list_checkpoints()
            assert {each["type"] for each in listed["items"]} >= {"before_restore"}
            await client.delete_checkpoint(checkpoint_id)
            await client.send_message({"topic": "t"}, 1, idempotency_key="m")
            twice = await client.send_message({"topic": "t"}, 1, idempotency_key="m")
            assert twice["offset"] == 0
            mailboxes = await client.list_mailboxes(prefix="topic:")
            assert [each["mailbox"] for each in mailboxes["items"]] == ["topic:t"]
            await client.set_subscription("s", "topic:t", "http://127.0.0.1:1/", from_offset=1)
            assert (await client.get_subscription("s"))["mailbox"] == "topic:t"
            assert len((await client.list_subscriptions())["items"]) == 1
            with pytest.raises(MAOSError):
                await client.replay_subscription("none")
            await client.end_subscription("s")

    asyncio.run(use())
