"""One Python worker process on the release server: scripts/bench runs it.

    target/python/bin/python benches/python_worker.py [--json]

It needs target/release/maos, and the Python package in the environment that runs it. Nothing here
passes or fails.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maos import MAOSClient, Worker

BINARY = Path(__file__).resolve().parents[1] / "target/release/maos"
TASKS = 50_000
BATCH = 500
ROUND_TRIPS = 300
CAPABILITY = "bench"

worker = Worker(concurrency=1_000)


@worker.task(capabilities=[CAPABILITY])
async def nothing(number: int, text: str) -> int:
    """Do nothing."""
    return number


async def measure(url: str) -> tuple[float, float]:
    """Return tasks a second in batches, and the milliseconds of one task on an idle server."""
    body = {
        "name": "bench",
        "required_capabilities": [CAPABILITY],
        "parameters": {"number": 1, "text": "x" * 160},
    }
    async with MAOSClient(url) as client:
        before = time.perf_counter()
        for _ in range(TASKS // BATCH):
            await client.submit_batch([body] * BATCH)
        while True:
            metrics = await client.get_system_metrics()
            if metrics["orchestrator"]["tasks_completed"] >= TASKS:
                break
            await asyncio.sleep(0.02)
        rate = TASKS / (time.perf_counter() - before)
        times = []
        for _ in range(ROUND_TRIPS):
            before = time.perf_counter()
            await client.run_task(**body)
            times.append((time.perf_counter() - before) * 1e3)
    return rate, statistics.median(times)


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Have a process end with the block."""
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Start a server and a worker, measure, and end both."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said")
        arguments = [BINARY, "serve", "--port", "0", "--data-dir", "data"]
        with (
            said.open("w") as output,
            ended(subprocess.Popen(arguments, cwd=folder, stderr=output)),
        ):
            while not (found := re.search(r"maos listens on (http://\S+),", said.read_text())):
                time.sleep(0.05)
            work = [sys.executable, __file__, "work", found[1]]
            with ended(subprocess.Popen(work)):
                rate, middle = asyncio.run(measure(found[1]))
    for name, figure, unit in [
        ("one Python worker process, submitted in batches of 500", rate, "tasks/s"),
        ("submit to completion through a Python worker, p50", middle, "ms"),
    ]:
        if "--json" in sys.argv:
            print(f'{{"name":"{name}","figure":{figure:.2f},"unit":"{unit}"}}')
        else:
            print(f"{name:<58} {figure:>12.2f} {unit}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        asyncio.run(worker.serve(sys.argv[2]))
    else:
        main()
