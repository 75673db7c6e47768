#!/usr/bin/env python3
"""What a client does with MAOS, one function for each thing; all of it runs on a fresh server.

maos serve &
python examples/client_examples.py --example all --base-url http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import aiohttp

from maos import MAOSClient


async def simple_task(client: MAOSClient) -> None:
    """Submit a task, and wait for its result."""
    accepted = await client.submit_task(
        name="Add up sales",
        description="A task for a built-in agent",
        priority="high",
        parameters={"action": "compute.sum", "values": [120, 80, 42]},
        resource_requirements={"cpu_cores": 0.5, "memory_mb": 128},
        tags=["example"],
    )
    task = await client.wait_for(accepted["task"]["id"], timeout_seconds=30)
    print(f"simple task: {task['status']}, the result is {task['result']}")


async def parallel_workflow(client: MAOSClient) -> None:
    """Do the same to many things at once; the result is the list of results, in order."""
    results = await client.run_task(
        "Measure each region",
        parameters={
            "action": "compute.expression",
            "expression": "item * item",
            "items": [1, 2, 3, 4, 5],
        },
        decomposition_strategy="parallel",
    )
    print(f"parallel workflow: {results}")


async def hierarchical_decomposition(client: MAOSClient) -> None:
    """Stages one after another, with steps of their own."""
    does = {"action": "noop"}
    stages = [
        {"name": "collect", "parameters": does, "steps": ["sales", "costs"]},
        {"name": "analyse", "parameters": does, "items": ["north", "south", "west"]},
        {"name": "publish", "parameters": does},
    ]
    accepted = await client.submit_task(
        name="Build a report",
        parameters={"stages": stages},
        decomposition_strategy="hierarchical",
    )
    task = await client.wait_for(accepted["task"]["id"], timeout_seconds=30)
    plan = await client.get_plan(accepted["execution_plan_id"])
    print(f"hierarchical decomposition: {task['status']}, {len(plan['tasks'])} tasks")


async def resource_intensive_pipeline(client: MAOSClient) -> None:
    """Steps that each take the result of the one before, and reserve what they need."""
    accepted = await client.submit_task(
        name="Heavy figures",
        parameters={
            "steps": [
                {"name": "load", "parameters": {"action": "noop", "rows": [3, 5, 8, 13]}},
                {"name": "sum", "parameters": {"action": "compute.sum", "values": [3, 5, 8, 13]}},
                {"name": "keep", "parameters": {"action": "noop"}},
            ]
        },
        resource_requirements={"cpu_cores": 4, "memory_mb": 4096, "disk_mb": 1024},
        timeout_seconds=600,
        max_retries=2,
        decomposition_strategy="pipeline",
    )
    task = await client.wait_for(accepted["task"]["id"], timeout_seconds=30)
    allocator = (await client.get_system_metrics())["resource_allocator"]
    cores = allocator["cpu_cores"]
    print(f"resource-intensive pipeline: {task['status']}, cores: {cores}")


async def specialised_agents(client: MAOSClient) -> None:
    """Make agents for one kind of work, give them some, and end them."""
    kinds = {"calculator": "computation", "watchman": "monitoring"}
    actions: dict[str, dict[str, Any]] = {
        "calculator": {"action": "compute.mean", "values": [1, 2, 6]},
        "watchman": {"action": "monitor.system"},
    }
    for agent_type, capability in kinds.items():
        made = await client.create_agent(agent_type, [capability], max_concurrent_tasks=2)
        agent = made["agent"]
        accepted = await client.submit_task(
            f"For the {agent_type}", parameters=actions[agent_type], agent_id=agent["id"]
        )
        task = await client.wait_for(accepted["task"]["id"], timeout_seconds=30)
        print(f"specialised agents: {agent['name']} ({capability}) says {task['status']}")
        await client.terminate_agent(agent["id"])


async def health_monitoring(client: MAOSClient) -> None:
    """Look at health, state and figures."""
    health = await client.health_check()
    detailed = await client.detailed_health_check()
    status = await client.get_system_status()
    metrics = await client.get_system_metrics()
    well = sum(component["healthy"] for component in detailed["components"].values())
    print(f"health monitoring: {health['service']} {health['version']} is {health['status']}")
    print(f"  {well} of {len(detailed['components'])} components are well")
    print(f"  {status['total_tasks']} tasks, {status['total_agents']} agents")
    print(f"  {metrics['orchestrator']['tasks_completed']} tasks completed so far")


async def error_handling(client: MAOSClient) -> None:
    """Every error says what is wrong and what to do."""
    accepted = await client.submit_task("Over soon", parameters={"action": "noop"})
    ended = await client.wait_for(accepted["task"]["id"], timeout_seconds=30)
    mistakes = {
        "no such task": client.get_task("01890000-0000-7000-8000-000000000000"),
        "no name": client.submit_task(""),
        "no such strategy": client.submit_task("n", decomposition_strategy="guess"),
        "too late": client.cancel_task(ended["id"], "changed my mind"),
    }
    for what, mistake in mistakes.items():
        try:
            await mistake
        except aiohttp.ClientResponseError as error:
            print(f"error handling: {what}: {error.status}, {error.message}")
        else:
            raise AssertionError(f"`{what}` was accepted")
    try:
        waits = await client.submit_task("For nobody", required_capabilities=["nobody_has_this"])
        await client.wait_for(waits["task"]["id"], timeout_seconds=0.2)
    except asyncio.TimeoutError:
        why = await client.explain_task(waits["task"]["id"])
        print(f"error handling: it waits: {why['blockers'][0]['message']}")
        await client.cancel_task(waits["task"]["id"], "the example is over")


async def claude_tasks(client: MAOSClient) -> None:
    """Submit a task as Claude Code does, and look at it."""
    accepted = await client.submit_claude_task(
        {
            "name": "Collect what was found",
            "description": "A task in the form of Claude Code's clients",
            "type": "coordination",
            "priority": "urgent",
            "parameters": {"action": "join.collect", "inputs": ["a", "b"]},
        }
    )
    id = accepted["claude_task_id"]
    task = await client.get_claude_task_status(id)
    await client.wait_for(task["maos_task_id"], timeout_seconds=30)
    task = await client.get_claude_task_status(id)
    orchestrator = await client.get_claude_orchestrator_status()
    print(f"claude: {task['status']}, priority {task['priority']}, tags {task['tags']}")
    print(f"claude: the orchestrator is {orchestrator['status']}")


EXAMPLES = {
    "tasks": [
        simple_task,
        parallel_workflow,
        hierarchical_decomposition,
        resource_intensive_pipeline,
        error_handling,
    ],
    "agents": [specialised_agents, health_monitoring],
    "claude": [claude_tasks],
}


async def run(example: str, base_url: str) -> None:
    """Run one group of examples, or all."""
    groups = list(EXAMPLES) if example == "all" else [example]
    async with MAOSClient(base_url=base_url) as client:
        for group in groups:
            for show in EXAMPLES[group]:
                await show(client)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description="Show what a client does with MAOS.")
    parser.add_argument("--example", choices=["all", *EXAMPLES], default="all")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    given = parser.parse_args()
    asyncio.run(run(given.example, given.base_url))


if __name__ == "__main__":
    main()
