"""One bad value, and a server that is away, never end a worker in the wrong way."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Server
from test_worker import run, work

from maos import MAOSClient, Task, Worker
from maos._outcome import RESULT_BYTES_MAX
from maos._poll import Outbox, Outcome

RESULTS: dict[str, Any] = {
    "nan": float("nan"),
    "a set": {1, 2},
    "bytes": b"x",
    "a date": __import__("datetime").datetime(2026, 1, 1),
    "a surrogate": "\ud800",
    "a key": {(1, 2): 3},
    "too large": "x" * (RESULT_BYTES_MAX + 1),
}
NESTED: list[Any] = []
NESTED.append(NESTED)
RESULTS["endless"] = NESTED
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


def returns(which: str) -> Any:
    return RESULTS[which]


def test_a_result_that_is_no_json_fails_its_task_for_good_and_nothing_else(server: Server) -> None:
    worker = Worker()

    @worker.task(capabilities=["loop"])
    async def in_the_loop(which: str) -> Any:
        return RESULTS[which]

    worker.task(capabilities=["threads"])(returns)
    worker.task(capabilities=["processes"], processes=True)(returns)

    async def use(client: MAOSClient) -> None:
        for capability in ("loop", "threads", "processes"):
            for which in RESULTS:
                accepted = await client.submit_task(
                    which, parameters={"which": which}, required_capabilities=[capability]
                )
                task = await client.wait_for(accepted["task"]["id"], 30)
                assert (task["status"], task["retry_count"]) == ("failed", 0), task
                assert "what it returned" in task["error"], task

    work(server, worker, use)


class Mute(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Stop(BaseException):
    pass


RAISED: dict[str, BaseException] = {
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "generator": GeneratorExit(),
    "of its own": Stop("enough"),
    "stop": StopIteration(1),
    "mute": Mute(),
    "text": ValueError("a\0\ud800" + "x" * 100_000),
}


def raises(how: str) -> None:
    raise RAISED[how]


def test_what_ends_a_program_ends_only_its_task(server: Server) -> None:
    worker = Worker()

    worker.task(capabilities=["threads"])(raises)
    worker.task(capabilities=["processes"], processes=True)(raises)

    @worker.task(capabilities=["loop"])
    async def in_the_loop(how: str) -> None:
        if how == "stop":
            raise asyncio.CancelledError
        raises(how)

    async def use(client: MAOSClient) -> None:
        for capability in ("threads", "loop", "processes"):
            for how in RAISED:
                task = await run(client, capability, how=how)
                assert task["status"] == "failed" and task["attempt"] == 1, task

    work(server, worker, use)


def test_signs_are_checked_where_they_are_given(server: Server) -> None:
    worker = Worker()

    @worker.task(capabilities=["telling"])
    def tell(task: Task) -> list[str]:
        refused = []
        for fraction in (7.0, -0.1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="0 to 1") as error:
                task.progress(fraction)
            refused.append(str(error.value))
        with pytest.raises(ValueError, match="debug, info, warning, error"):
            task.log("x", level="fatal")
        task.log("nul \0 and \ud800", "warning")
        task.log("x" * 1_000_000)
        task.log(7, time_seconds=-1.0)  # type: ignore[arg-type]
        task.progress(True, "half \0")
        return refused

    async def use(client: MAOSClient) -> None:
        task = await run(client, "telling")
        assert task["status"] == "completed", task
        assert task["result"][0] == "`fraction` must be 0 to 1, found 7.0"
        lines = [item["line"] for item in (await client.task_logs(task["id"]))["items"]]
        assert {"nul \ufffd and ?", "7", "half \ufffd"} < set(lines), lines

    work(server, worker, use)


def test_what_the_server_refuses_is_dropped_and_the_rest_arrives(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker()

    @worker.task(capabilities=["telling"])
    async def tell(task: Task, bad: bool) -> str:
        if bad:
            agent = task._agent
            here = (task.id, task.attempt)
            agent.tell_progress(here, {"task_id": "x", "attempt": 0})
            agent.tell_line(here, {"task_id": task.id, "attempt": 1, "level": "fatal", "line": ""})
        for n in range(5):
            task.log(f"line {n}")
            task.progress(n / 5)
        if bad:
            key = (task.id, task.attempt)
            del agent.holding[key]
            agent.outbox.outcomes.append(Outcome(key, b'{"status":"great"}', False))
        return "fine"

    async def use(client: MAOSClient) -> None:
        for bad in (False, True, False, True):
            task = await run(client, "telling", bad=bad)
            if bad:
                assert task["status"] == "failed" and "refused" in task["error"], task
            else:
                assert (task["status"], task["result"]) == ("completed", "fine"), task
            page = await client.task_logs(task["id"])
            lines = sorted(item["line"] for item in page["items"])
            assert lines == [f"line {n}" for n in range(5)]

    work(server, worker, use)
    assert "the server refused" in caplog.text


def test_a_poll_without_names_is_halved_until_one_entry_is_left() -> None:
    outbox = Outbox()
    for n in range(4):
        outbox.outcomes.append(Outcome((str(n), 1), b"%d" % n, False))
        outbox.add_line(("x", 1), {"line": n})
    sent = outbox.take()
    dropped = []
    for _ in range(3):
        dropped += list(sent.correct(outbox, {}))
    assert dropped == ["""logs: b'{"line":0}'"""]
    assert [len(outbox.lines), len(outbox.outcomes), sent.is_empty()] == [3, 4, True]
    sent = outbox.take()
    assert list(sent.correct(outbox, {"logs[1].level": "is unknown", "logs[9]": ""})) == [
        """logs: b'{"line":2}'"""
    ]
    assert len(outbox.outcomes) == 4 and [len(sent.lines), len(outbox.lines)] == [2, 0]
    assert sent.body(b"{}").endswith(b'"logs":[{"line":1},{"line":3}]}')


def told_by(outbox: Outbox) -> list[list[tuple[Any, Any]]]:
    """What each poll tells until nothing waits, in the order in which the server stores it."""
    polls = []
    while not outbox.is_empty():
        if len(polls) == 1:
            # It did not arrive.
            outbox.put_back(outbox.take())
        sent = outbox.take()
        told: list[tuple[Any, Any]] = []
        for said in [*sent.progress, *sent.lines]:
            entry = json.loads(said.body)
            told.append((said.attempt, entry.get("message", entry.get("line"))))
        told += [(outcome.attempt, "ended") for outcome in sent.outcomes]
        polls.append(told)
    return polls


ONE, OTHER = ("one", 1), ("other", 1)


def sign(attempt: tuple[str, int], **more: Any) -> dict[str, Any]:
    return {"task_id": attempt[0], "attempt": attempt[1], **more}


def test_what_an_attempt_said_goes_in_order_with_its_outcome() -> None:
    outbox = Outbox()
    for n in range(3):
        outbox.add_line(ONE, {"line": f"line {n}"})
        outbox.add_sign(ONE, sign(ONE, message=f"sign {n}"))
        outbox.add_sign(OTHER, sign(OTHER, message=f"sign {n}"))
    for attempt in (ONE, OTHER):
        outbox.outcomes.append(Outcome(attempt, b"{}", False))
    polls = told_by(outbox)
    assert len(polls) == 1
    words = [f"{what} {n}" for n in range(3) for what in ("line", "sign")]
    assert [text for attempt, text in polls[0] if attempt == ONE] == [*words, "ended"]
    signs = [f"sign {n}" for n in range(3)]
    assert [text for attempt, text in polls[0] if attempt == OTHER] == [*signs, "ended"]


def test_the_last_sign_of_an_attempt_that_goes_on_is_one() -> None:
    outbox = Outbox()
    for n in range(3):
        for attempt in (ONE, OTHER):
            outbox.add_line(attempt, {"line": f"line {n}"})
            outbox.add_sign(attempt, sign(attempt, fraction=n / 4))
            outbox.add_sign(attempt, sign(attempt, message=f"sign {n}"))
    outbox.add_line(ONE, {"line": "line 3"})
    first, second = outbox.take(), outbox.take()
    assert outbox.is_empty() and not first.progress
    lasts = [json.loads(said.body) for said in second.progress]
    assert lasts == [sign(attempt, message="sign 2") for attempt in (ONE, OTHER)]
    outbox.put_back(second)
    outbox.put_back(first)
    told = [text for poll in told_by(outbox) for by, text in poll if by == ONE]
    assert told == [f"{what} {n}" for n in range(3) for what in ("line", "sign")] + ["line 3"]


def test_of_fractions_the_last_goes() -> None:
    outbox = Outbox()
    for n in range(5_000):
        outbox.add_line(ONE, {"line": n})
        outbox.add_sign(ONE, sign(ONE, fraction=n / 5_000))
    sent = outbox.take()
    assert [json.loads(said.body)["fraction"] for said in sent.progress] == [4_999 / 5_000]
    assert len(sent.lines) == 5_000 and outbox.is_empty()


@pytest.mark.parametrize("has_ended", [True, False])
def test_a_flood_goes_in_order_and_in_few_polls(has_ended: bool) -> None:
    outbox = Outbox()
    outbox.add_line(OTHER, {"line": "of another"})
    for n in range(15_000):
        outbox.add_line(ONE, {"line": n})
        outbox.add_sign(ONE, sign(ONE, message=n))
    assert len(outbox.progress) == 10_000
    assert json.loads(outbox.lines[-1].body)["line"].startswith("lines are left out")
    if has_ended:
        outbox.outcomes.append(Outcome(ONE, b"{}", False))
    outbox.outcomes.append(Outcome(OTHER, b"{}", False))
    polls = told_by(outbox)
    assert len(polls) <= 4, len(polls)
    assert (OTHER, "ended") in polls[0]
    numbers = [text for told in polls for by, text in told if by == ONE and type(text) is int]
    assert numbers == sorted(numbers) and len(numbers) > 19_000


def test_large_outcomes_go_in_several_polls() -> None:
    outbox = Outbox()
    for n in range(5):
        outbox.outcomes.append(Outcome((str(n), 1), b"x" * (10 << 20), False))
    counts = [len(outbox.take().outcomes) for _ in range(2)]
    assert counts == [3, 2] and outbox.take().is_empty()


# ---- stopping without a server ------------------------------------------------------------------


SLEEPER = """
import asyncio, time, logging
from maos import Worker

worker = Worker(grace_seconds=GRACE)

@worker.task(capabilities=["waiting"])
async def wait(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return 1

@worker.task(capabilities=["blocking"])
def block(seconds: float) -> int:
    time.sleep(seconds)
    return 1
"""


class Program:
    """A `maos-worker`, and what it says."""

    def __init__(self, folder: Path, url: str, grace: float = 600.0) -> None:
        (folder / "sleeper.py").write_text(SLEEPER.replace("GRACE", str(grace)))
        command = [sys.executable, "-m", "maos._command", "sleeper:worker", "--url", url]
        self.said = folder / "said"
        with self.said.open("w") as output:
            self.process = subprocess.Popen(command, cwd=folder, stderr=output)

    def says(self, wanted: str) -> None:
        until = time.monotonic() + 30
        while wanted not in self.said.read_text():
            assert time.monotonic() < until, self.said.read_text()
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.02)

    def ends(self) -> int:
        return self.process.wait(20)


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Any]:
    started: list[Program] = []

    def start(url: str, grace: float = 600.0) -> Program:
        started.append(Program(tmp_path, url, grace))
        return started[-1]

    yield start
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_stops_although_there_never_was_a_server(programs: Any, number: int) -> None:
    program = programs("http://127.0.0.1:1")
    program.says("the server is not there yet")
    program.process.send_signal(number)
    assert program.ends() == 0
    assert "was stopped before it was registered" in program.said.read_text()


def test_a_worker_stops_although_the_server_says_nothing(programs: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        program = programs(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        connection, _ = deaf.accept()
        program.process.terminate()
        assert program.ends() == 0
        connection.close()


def given(server: Server, program: Program, capability: str, seconds: float) -> str:
    async def submit() -> str:
        async with MAOSClient(server.url) as client:
            accepted = await client.submit_task(
                "n", parameters={"seconds": seconds}, required_capabilities=[capability]
            )
            task_id: str = accepted["task"]["id"]
            until = time.monotonic() + 30
            while (await client.get_task(task_id))["task"]["status"] != "running":
                assert time.monotonic() < until
                await asyncio.sleep(0.02)
            # Running means assigned; the answer that brings it is on its way.
            await asyncio.sleep(0.3)
            return task_id

    program.says("serves blocking")
    program.says("serves waiting")
    return asyncio.run(submit())


def test_a_worker_gives_up_after_its_grace_time_if_the_server_is_gone(
    server: Server, programs: Any
) -> None:
    program = programs(server.url, 0.5)
    given(server, program, "waiting", 0.2)
    given(server, program, "blocking", 60.0)
    server.kill()
    program.process.terminate()
    assert program.ends() == 1
    said = program.said.read_text()
    assert re.search(r"stopped before the server was told of \d attempts", said), said


def test_a_second_signal_does_not_wait_for_the_grace_time(server: Server, programs: Any) -> None:
    program = programs(server.url)
    task_id = given(server, program, "blocking", 60.0)
    program.process.terminate()
    program.says("a second signal ends it")
    program.process.terminate()
    assert program.ends() == 0, program.said.read_text()

    async def look() -> str:
        async with MAOSClient(server.url) as client:
            status: str = (await client.get_task(task_id))["task"]["status"]
            return status

    assert asyncio.run(look()) == "ready"
    assert os.path.exists(program.said)
