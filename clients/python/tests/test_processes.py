"""Functions in processes of their own: what they log, how they end, and that none is left."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from conftest import Server
from test_worker import run, work

from maos import MAOSClient, Worker


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
        stat = Path(f"/proc/{process}/stat").read_text()
    # It may go between the two.
    except (ProcessLookupError, FileNotFoundError):
        return True
    return stat.rsplit(")", 1)[1].split()[0] == "Z"


def wait_until_gone(process: int) -> None:
    until = time.monotonic() + 20
    while not gone(process):
        assert time.monotonic() < until
        time.sleep(0.02)


def talk(n: int) -> int:
    logging.getLogger("mine").warning("number %d", n)
    return os.getpid()


def sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(0.1)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_process_logs_is_in_its_tasks_log(server: Server) -> None:
    worker = Worker(concurrency=1)
    worker.task(capabilities=["talking"], processes=True)(talk)

    async def use(client: MAOSClient) -> None:
        processes = set()
        for n in range(3):
            task = await run(client, "talking", n=n)
            processes.add(task["result"])
            page = await client.task_logs(task["id"])
            lines = [(item["level"], item["line"]) for item in page["items"]]
            assert lines == [("warning", f"number {n}")]
        assert len(processes) == 1 and os.getpid() not in processes

    work(server, worker, use)


def test_a_cancellation_ends_the_process_and_frees_the_slot(server: Server, tmp_path: Path) -> None:
    worker = Worker(concurrency=1)
    worker.task(capabilities=["sleeping"], processes=True)(sleep)
    worker.task(capabilities=["dying"], processes=True)(die)
    worker.task(capabilities=["lambda"], processes=True)(lambda: 1)

    async def use(client: MAOSClient) -> None:
        for n in range(2):
            path = tmp_path / str(n)
            accepted = await client.submit_task(
                "n", parameters={"path": str(path)}, required_capabilities=["sleeping"]
            )
            while not path.exists() or not path.read_text():
                await asyncio.sleep(0.02)
            await client.cancel_task(accepted["task"]["id"])
            await asyncio.to_thread(wait_until_gone, int(path.read_text()))
        for _ in range(2):
            task = await run(client, "dying")
            assert task["error"] == "its process ended with code -9", task
        task = await run(client, "lambda")
        assert "it cannot run in a process of its own" in task["error"], task

    work(server, worker, use)


PROGRAM = """
import os, sys, time
from maos import Worker

worker = Worker(concurrency=2)

@worker.task(capabilities=["sleeping"], processes=True)
def sleep(path: str) -> None:
    open(path, "w").write(str(os.getpid()))
    time.sleep(600)
"""


def test_no_process_outlives_a_worker_that_is_killed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "maos._command", "program:worker", "--url", server.url]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)

    async def submit() -> list[int]:
        paths = [tmp_path / "a", tmp_path / "b"]
        async with MAOSClient(server.url) as client:
            for path in paths:
                given: dict[str, Any] = {"path": str(path)}
                await client.submit_task("n", None, None, given, required_capabilities=["sleeping"])
            while not all(path.exists() and path.read_text() for path in paths):
                await asyncio.sleep(0.02)
        return [int(path.read_text()) for path in paths]

    try:
        children = asyncio.run(asyncio.wait_for(submit(), 30))
    finally:
        process.kill()
        process.wait()
    for child in children:
        wait_until_gone(child)
