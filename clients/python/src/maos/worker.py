"""The worker: functions that do tasks, wherever this program runs.

Each function is an agent of its own, with its capabilities and its slots. A task counts as done
only when the server has said that it has the outcome.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from typing import Any, Optional, TypeVar, Union, overload

from ._agent import Agent, Stop
from ._outcome import Failed, Subtasks
from ._task import Task, ToTask
from ._wire import Misused, listed
from .client import MAOSClient

__all__ = ["Failed", "GaveUp", "Subtasks", "Task", "Worker"]

Function = TypeVar("Function", bound=Callable[..., Any])

_log = logging.getLogger("maos.worker")


class GaveUp(Exception):
    """The worker was stopped, and the server could not be told of everything that it ran.

    Nothing is lost: those tasks go to others once the server misses this worker.
    """


class Worker:
    """Functions as agents of one server.

    Every function has as many slots as its `concurrency`. Functions that are not coroutines run in
    threads, or in processes of their own if they are registered with `processes=True`: then they
    must be importable, and take no `task`. Only such a process can be ended by a cancellation; a
    thread must look at `task.cancelled` itself.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        concurrency: int = 4,
        grace_seconds: float = 30.0,
    ) -> None:
        """Note where the server is; nothing is sent before `run`."""
        self._base_url = base_url
        self._concurrency = _slots(concurrency)
        self._grace_seconds = grace_seconds
        self._agents: list[Agent] = []

    @overload
    def task(self, capabilities: Function) -> Function: ...

    @overload
    def task(
        self,
        capabilities: Sequence[str] = ...,
        agent_type: Optional[str] = None,
        concurrency: Optional[int] = None,
        agent_id: Optional[str] = None,
        processes: bool = False,
        heartbeat_timeout: Optional[int] = None,
    ) -> Callable[[Function], Function]: ...

    def task(
        self,
        capabilities: Union[Sequence[str], Callable[..., Any]] = ("task_execution",),
        agent_type: Optional[str] = None,
        concurrency: Optional[int] = None,
        agent_id: Optional[str] = None,
        processes: bool = False,
        heartbeat_timeout: Optional[int] = None,
    ) -> Callable[..., Any]:
        """Make a function an agent with these capabilities.

        What the function returns is the task's result. It gets the task's parameters by name, and
        the `Task` itself if it has a parameter called `task`. With an `agent_id` (a UUID) it stays
        the same agent over restarts of this program. After `heartbeat_timeout` seconds of silence
        the server takes it for lost, if it is not to be the server's own time. `@worker.task` alone
        is as `@worker.task()`. A text in the place of the list is a `TypeError`, a `concurrency`
        below 1 a `ValueError`.
        """
        if callable(capabilities):
            return self.task()(capabilities)
        names = listed("capabilities", capabilities)
        slots = self._concurrency if concurrency is None else _slots(concurrency)

        def register(function: Function) -> Function:
            kind = agent_type or function.__name__
            agent = Agent(function, kind, names, slots, agent_id, heartbeat_timeout)
            agent.in_processes = processes
            self._agents.append(agent)
            return function

        return register

    def run(self, base_url: Optional[str] = None) -> None:
        """Work until SIGTERM or SIGINT; what runs then is finished first.

        A second signal does not wait for that. Raises `GaveUp` as `serve` does.
        """
        asyncio.run(self.serve(base_url))

    async def serve(
        self, base_url: Optional[str] = None, stop: Optional[asyncio.Event] = None
    ) -> None:
        """Work until `stop` is set, or a signal comes; what runs then is finished first.

        It gets `grace_seconds` for that, also if the server is away. Raises `GaveUp` if the server
        could not be told of everything by then, and `MAOSError` if it refuses a function: then the
        others end, too.
        """
        if not self._agents:
            raise Misused(
                "no function is registered\n"
                'hint: write `@worker.task(capabilities=["greeting"])` above one'
            )
        stopping = _stop_on_signals() if stop is None else Stop(stop, asyncio.Event())
        handler = ToTask()
        logging.getLogger().addHandler(handler)
        try:
            async with MAOSClient(base_url or self._base_url) as client:
                untold = await self._serve_all(client, stopping)
        finally:
            logging.getLogger().removeHandler(handler)
        if untold:
            raise GaveUp(
                f"stopped before the server was told of {untold} attempts: others get their tasks "
                "once it misses this worker"
            )

    async def _serve_all(self, client: MAOSClient, stop: Stop) -> int:
        serving: dict[Agent, asyncio.Task[int]] = {}
        try:
            for agent in self._agents:
                if await agent.enter(client, stop):
                    serving[agent] = asyncio.create_task(agent.serve(stop, self._grace_seconds))
            return sum(await asyncio.gather(*serving.values()))
        except BaseException:
            for run in serving.values():
                run.cancel()
            await asyncio.gather(*serving.values(), return_exceptions=True)
            # Nobody serves them any more: they are not to stand there until they are missed.
            await asyncio.gather(*(agent.leave() for agent in serving))
            raise


def _slots(concurrency: int) -> int:
    if concurrency < 1:
        raise ValueError(f"`concurrency` must be at least 1, found {concurrency}")
    return concurrency


def _stop_on_signals() -> Stop:
    stop = Stop(asyncio.Event(), asyncio.Event())

    def stop_or_hurry() -> None:
        if stop.asked.is_set():
            _log.warning("asked again: what runs is given up")
            stop.urgent.set()
        else:
            _log.info("stopping: what runs gets its time, a second signal ends it")
            stop.asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop_or_hurry)
    return stop
