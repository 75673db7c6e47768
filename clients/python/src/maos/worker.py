"""The worker: functions that do tasks, wherever this program runs.

Each function is an agent of its own, with its capabilities and its slots, and polls the server over
one connection. A task counts as done only when the server has said that it has the outcome.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import logging
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, Optional, TypeVar

import aiohttp

from .client import Content, MAOSClient, MAOSError

Function = TypeVar("Function", bound=Callable[..., Any])
Attempt = tuple[str, int]

_log = logging.getLogger("maos.worker")
_current: contextvars.ContextVar[Optional[Task]] = contextvars.ContextVar("task", default=None)

_POLL_MS = 30_000
_BATCH_MAX = 1_000
_LINES_MAX = 10_000
_PAUSE_MAX_SECONDS = 30.0
_ANSWER_SECONDS = 90.0
_POLLS_MAX = 2


class Failed(Exception):
    """Raise it to fail a task. With `permanent`, trying again is known to be useless."""

    def __init__(self, message: str, permanent: bool = False) -> None:
        """Say why, for the person who must act."""
        super().__init__(message)
        self.permanent = permanent


class Subtasks:
    """What a function returns when the rest of its task is for others to do.

    Each entry is as in `subtasks` of a submission: `name`, `parameters`, `required_capabilities`,
    `key`, `depends_on` and so on, with `{"$from": "key"}` for the result of another. The task's
    result is made of theirs.
    """

    def __init__(self, *entries: dict[str, Any]) -> None:
        """Take the entries, in order."""
        self.entries = list(entries)


class Task:
    """One attempt of a task, as a function gets it.

    It may be used from any thread. `cancelled` is set when the attempt is to stop.
    """

    def __init__(self, agent: _Agent, given: dict[str, Any]) -> None:
        """Take what the server sent."""
        self._agent = agent
        self.id: str = given["task_id"]
        self.attempt: int = given["attempt"]
        self.name: str = given["name"]
        self.description: Optional[str] = given["description"]
        self.parameters: dict[str, Any] = given["parameters"]
        self.metadata: dict[str, Any] = given["metadata"]
        self.tags: list[str] = given["tags"]
        self.timeout_seconds: int = given["timeout_seconds"]
        self.cancelled = threading.Event()

    def progress(self, fraction: Optional[float] = None, message: Optional[str] = None) -> None:
        """Tell how far it has come; every call counts as a sign of progress."""
        sign = {"task_id": self.id, "attempt": self.attempt}
        if fraction is not None:
            sign["fraction"] = fraction
        if message is not None:
            sign["message"] = message
        self._agent.post(self._agent.progress.append, sign)

    def log(self, line: str, level: str = "info", time_seconds: Optional[float] = None) -> None:
        """Add a line to the task's log. `logging` inside of the function does the same.

        `level` is debug, info, warning or error.
        """
        moment = datetime.fromtimestamp(time_seconds or time.time(), timezone.utc)
        entry = {
            "task_id": self.id,
            "attempt": self.attempt,
            "time": moment.isoformat(),
            "level": level,
            "line": line,
        }
        self._agent.post(self._agent.add_line, entry)

    def artifact(
        self, name: str, content: Content, media_type: str = "application/octet-stream"
    ) -> dict[str, Any]:
        """Keep a file with the task: bytes, or the `Path` of a file. It is durable on return.

        For functions that are not coroutines; those await `keep_artifact`. Raises `MAOSError` when
        this attempt is not the running one any more.
        """
        kept = self.keep_artifact(name, content, media_type)
        return asyncio.run_coroutine_threadsafe(kept, self._agent.loop).result()

    async def keep_artifact(
        self, name: str, content: Content, media_type: str = "application/octet-stream"
    ) -> dict[str, Any]:
        """Do the same in a coroutine."""
        answer = await self._agent.client.put_artifact(
            self.id, name, content, media_type, self.attempt
        )
        kept: dict[str, Any] = answer["artifact"]
        return kept


class _ToTask(logging.Handler):
    """Sends what is logged inside of a function to the log of its task."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        task = _current.get()
        if task is not None and not record.name.startswith(("maos.", "aiohttp", "asyncio")):
            task.log(self.format(record), _level(record.levelno), record.created)


def _level(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"


class Worker:
    """Functions as agents of one server.

    Every function has as many slots as its `concurrency`. Functions that are not coroutines run in
    threads, or in processes of their own if they are registered with `processes=True`: then they
    must be importable, and take no `task`.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        concurrency: int = 4,
        grace_seconds: float = 30.0,
    ) -> None:
        """Note where the server is; nothing is sent before `run`."""
        self._base_url = base_url
        self._concurrency = concurrency
        self._grace_seconds = grace_seconds
        self._agents: list[_Agent] = []

    def task(
        self,
        capabilities: Sequence[str] = ("task_execution",),
        agent_type: Optional[str] = None,
        concurrency: Optional[int] = None,
        agent_id: Optional[str] = None,
        processes: bool = False,
    ) -> Callable[[Function], Function]:
        """Make a function an agent with these capabilities.

        What the function returns is the task's result. It gets the task's parameters by name, and
        the `Task` itself if it has a parameter called `task`. With an `agent_id` (a UUID) it stays
        the same agent over restarts of this program.
        """

        def register(function: Function) -> Function:
            slots = concurrency or self._concurrency
            agent = _Agent(
                function, agent_type or function.__name__, list(capabilities), slots, agent_id
            )
            agent.processes = processes
            self._agents.append(agent)
            return function

        return register

    def run(self, base_url: Optional[str] = None) -> None:
        """Work until SIGTERM or SIGINT; what runs then is finished first."""
        asyncio.run(self.serve(base_url))

    async def serve(
        self, base_url: Optional[str] = None, stop: Optional[asyncio.Event] = None
    ) -> None:
        """Work until `stop` is set, or a signal comes; what runs then is finished first."""
        if not self._agents:
            raise ValueError("no function is registered: use @worker.task(...)")
        stop = stop or _stop_on_signals()
        handler = _ToTask()
        logging.getLogger().addHandler(handler)
        try:
            async with MAOSClient(base_url or self._base_url) as client:
                serving = [agent.serve(client, stop, self._grace_seconds) for agent in self._agents]
                await asyncio.gather(*serving)
        finally:
            logging.getLogger().removeHandler(handler)


class _Agent:
    """One function and its conversation with the server."""

    def __init__(
        self,
        function: Callable[..., Any],
        agent_type: str,
        capabilities: list[str],
        slots: int,
        agent_id: Optional[str],
    ) -> None:
        self.function = function
        self.takes = inspect.signature(function).parameters
        self.agent_type = agent_type
        self.capabilities = capabilities
        self.slots = slots
        self.keeps_id = agent_id is not None
        self.id = agent_id or str(uuid.uuid4())
        self.processes = False
        self.incarnation = time.time_ns() // 1_000_000
        self.holding: dict[Attempt, tuple[Task, asyncio.Task[None]]] = {}
        self.outcomes: list[dict[str, Any]] = []
        # Whose outcome is on its way: held until the server has said that it has it.
        self.telling: set[Attempt] = set()
        self.progress: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []

    # ---- the conversation -----------------------------------------------------------------------

    async def serve(self, client: MAOSClient, stop: asyncio.Event, grace_seconds: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.client = client
        self.news = asyncio.Event()
        self.drains = False
        self.ended = False
        self.executor = self._executor()
        stopping = asyncio.create_task(self._drain(stop, grace_seconds))
        polls: set[asyncio.Task[None]] = set()
        try:
            await self._register()
            while not self._is_done():
                if not polls or (self.news.is_set() and len(polls) < _POLLS_MAX):
                    # A newer poll has the older one answered at once: so news never wait for it.
                    self.news.clear()
                    polls.add(asyncio.create_task(self._poll()))
                polls = await self._something(polls)
                # What becomes ready in the same moment goes with the same poll.
                await asyncio.sleep(0)
            if not self.ended and not self.keeps_id:
                with contextlib.suppress(MAOSError, aiohttp.ClientError, asyncio.TimeoutError):
                    await client.terminate_agent(self.id)
        finally:
            stopping.cancel()
            for poll in polls:
                poll.cancel()
            for _, run in self.holding.values():
                run.cancel()
            self.executor.shutdown(wait=False, cancel_futures=True)

    async def _something(self, polls: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        """Wait for news or for the end of a poll; return the polls that go on."""
        news = asyncio.create_task(self.news.wait())
        waits: set[asyncio.Task[Any]] = set(polls)
        if len(polls) < _POLLS_MAX:
            waits.add(news)
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()
        for poll in polls & done:
            poll.result()
        return polls - done

    def post(self, take: Callable[..., Any], *given: Any) -> None:
        """Hand something over from any thread, to go with the next poll."""

        def hand_over() -> None:
            take(*given)
            self.news.set()

        self.loop.call_soon_threadsafe(hand_over)

    def add_line(self, entry: dict[str, Any]) -> None:
        if len(self.lines) < _LINES_MAX:
            self.lines.append(entry)
        elif len(self.lines) == _LINES_MAX:
            missing = "lines are left out from here on: the server does not keep up"
            self.lines.append({**entry, "level": "warning", "line": missing})

    def _executor(self) -> concurrent.futures.Executor:
        if self.processes:
            return concurrent.futures.ProcessPoolExecutor(self.slots)
        return concurrent.futures.ThreadPoolExecutor(self.slots, self.agent_type)

    def _is_done(self) -> bool:
        left = self.holding or self.outcomes or self.telling
        return self.ended or (self.drains and not left)

    async def _drain(self, stop: asyncio.Event, grace_seconds: float) -> None:
        await stop.wait()
        self.drains = True
        self.news.set()
        await asyncio.sleep(grace_seconds)
        for _, run in list(self.holding.values()):
            run.cancel()

    async def _register(self) -> None:
        pause = 1.0
        while True:
            try:
                await self.client.create_agent(
                    self.agent_type,
                    self.capabilities,
                    max_concurrent_tasks=self.slots,
                    runtime="worker",
                    id=self.id,
                )
                _log.info("`%s` serves %s", self.agent_type, ", ".join(self.capabilities))
                return
            except MAOSError as error:
                if error.status not in (429, 503):
                    raise
                _log.warning("not registered yet: %s", error.message)
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                _log.warning("the server is not there yet: %s", error)
            pause = await _wait(pause)

    async def _poll(self) -> None:
        outcomes, self.outcomes = self.outcomes[:_BATCH_MAX], self.outcomes[_BATCH_MAX:]
        told = {(outcome["task_id"], outcome["attempt"]) for outcome in outcomes}
        self.telling |= told
        free = 0 if self.drains else self.slots - len(self.holding)
        lines, self.lines = self.lines[:_LINES_MAX], self.lines[_LINES_MAX:]
        progress, self.progress = self.progress[:_BATCH_MAX], self.progress[_BATCH_MAX:]
        body = {
            "incarnation": self.incarnation,
            "max_tasks": max(0, min(free, _BATCH_MAX)),
            "wait_ms": _POLL_MS,
            "holding": [
                {"task_id": id, "attempt": attempt}
                for id, attempt in (self.holding.keys() | self.telling) - told
            ],
            "outcomes": outcomes,
            "progress": progress,
            "logs": lines,
        }
        try:
            answer = await self._told(body)
            if answer is not None:
                self._take(answer)
        finally:
            self.telling -= told

    async def _told(self, body: dict[str, Any]) -> Optional[dict[str, Any]]:
        """Send a poll until it is answered; `None` when it makes no sense any more."""
        path = f"/api/v1/agents/{self.id}/poll"
        pause = 1.0
        while True:
            try:
                sent = self.client._send("POST", path, body, None, None, True, (200,))
                answer: dict[str, Any] = await asyncio.wait_for(sent, _ANSWER_SECONDS)
                return answer
            except MAOSError as error:
                if not await self._go_on_after(error):
                    return None
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                _log.warning("the server is away: %s", error or "no answer")
            pause = await _wait(pause)

    async def _go_on_after(self, error: MAOSError) -> bool:
        """Say whether the same poll is worth another try."""
        if error.error_code in ("AGENT_LOST", "AGENT_NOT_FOUND"):
            _log.warning("%s: what it ran is given up", error.message)
            for task, run in self.holding.values():
                task.cancelled.set()
                run.cancel()
            self.holding.clear()
            self.outcomes.clear()
            await self._register()
            return False
        if error.error_code in ("AGENT_ENDED", "STALE_INCARNATION"):
            _log.warning("%s", error.message)
            self.ended = True
            return False
        if error.status in (429, 503):
            return True
        raise error

    def _take(self, answer: dict[str, Any]) -> None:
        for given in answer["tasks"]:
            attempt = (given["task_id"], given["attempt"])
            if attempt not in self.holding and attempt not in self.telling:
                task = Task(self, given)
                self.holding[attempt] = (task, asyncio.create_task(self._work(task)))
        for told in answer["cancel"]:
            held = self.holding.get((told["task_id"], told["attempt"]))
            if held is not None and not held[0].cancelled.is_set():
                held[0].cancelled.set()
                if inspect.iscoroutinefunction(self.function):
                    held[1].cancel()
        for refused in answer["refused"]:
            _log.warning("task %s: %s", refused["task_id"], refused["error"])

    # ---- the work -------------------------------------------------------------------------------

    async def _work(self, task: Task) -> None:
        outcome: dict[str, Any] = {"task_id": task.id, "attempt": task.attempt}
        try:
            returned = await self._call(task)
            if isinstance(returned, Subtasks):
                outcome.update(status="completed", subtasks=returned.entries)
            else:
                outcome.update(status="completed", result=returned)
        except asyncio.CancelledError:
            outcome["status"] = "cancelled" if task.cancelled.is_set() else "lost"
        except Failed as error:
            outcome.update(status="failed", error=str(error), permanent=error.permanent)
        except Exception as error:
            _log.debug("task %s failed", task.id, exc_info=True)
            outcome.update(status="failed", error=f"{type(error).__name__}: {error}")
        if task.cancelled.is_set():
            outcome = {"task_id": task.id, "attempt": task.attempt, "status": "cancelled"}
        if self.holding.pop((task.id, task.attempt), None) is not None:
            self.outcomes.append(outcome)
            self.news.set()

    async def _call(self, task: Task) -> Any:
        arguments = self._arguments(task)
        _current.set(task)
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**arguments)
        if self.processes:
            run = _bound(self.function, arguments)
        else:
            context = contextvars.copy_context()
            run = _bound(context.run, {}, _bound(self.function, arguments))
        return await self.loop.run_in_executor(self.executor, run)

    def _arguments(self, task: Task) -> dict[str, Any]:
        kinds = [parameter.kind for parameter in self.takes.values()]
        if inspect.Parameter.VAR_KEYWORD in kinds:
            arguments = dict(task.parameters)
        else:
            arguments = {
                name: task.parameters[name] for name in self.takes if name in task.parameters
            }
        if "task" in self.takes:
            arguments["task"] = task
        for name, parameter in self.takes.items():
            named = parameter.kind in (
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                inspect.Parameter.KEYWORD_ONLY,
            )
            if named and parameter.default is inspect.Parameter.empty and name not in arguments:
                raise Failed(f"`parameters.{name}` is missing", permanent=True)
        return arguments


class _bound:
    """A call with its arguments; unlike a lambda it can be sent to another process."""

    def __init__(self, call: Callable[..., Any], named: dict[str, Any], *given: Any) -> None:
        self.call, self.named, self.given = call, named, given

    def __call__(self) -> Any:
        return self.call(*self.given, **self.named)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _wait(pause: float) -> float:
    """Wait about so long, and say how long to wait the next time. Chance keeps workers apart."""
    await asyncio.sleep(pause * random.uniform(1, 2))
    return min(pause * 2, _PAUSE_MAX_SECONDS)
