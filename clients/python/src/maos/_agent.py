"""One function as an agent, and its conversation with the server.

Law: nothing that a function does, and no poll that is refused, ends the conversation. What cannot
be told is dropped by itself, and the log says so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import logging
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Optional

import aiohttp

from ._outcome import Failed, completed, encoded, failed, outcome_of, raised
from ._pause import Pauses, retry_after
from ._poll import Outbox, Outcome, Sent
from ._processes import Processes
from ._task import Attempt, Task, current
from .client import MAOSClient, MAOSError

_log = logging.getLogger("maos.worker")

_POLL_MS = 30_000
_TASKS_MAX = 1_000
_PAUSE_FIRST_SECONDS = 1.0
_PAUSE_MAX_SECONDS = 30.0
_PAUSES_PER_LEASE = 3
# How long the answer of a poll that does not wait may take: a share of the lease, with a least, and
# what a slow line needs for a large body.
_ANSWERS_PER_LEASE = 3
_ANSWER_SECONDS_MIN = 5.0
_BYTES_PER_SECOND = 1 << 20
# The server's own lease, unless it says another.
_LEASE_SECONDS = 90.0
# What is left of the grace time for telling the server what was given up, and for taking leave.
_TELL_SECONDS = 2.0
_LEAVE_SECONDS = 5.0


class Stop(NamedTuple):
    """What ends a worker: when it is asked to, and when it is to wait for nothing any more."""

    asked: asyncio.Event
    urgent: asyncio.Event


class Agent:
    """One function and what the server is to know of it."""

    def __init__(
        self,
        function: Callable[..., Any],
        agent_type: str,
        capabilities: list[str],
        slots: int,
        agent_id: Optional[str],
        heartbeat_timeout: Optional[int] = None,
    ) -> None:
        """Note it; nothing is sent before `serve`."""
        self.function = function
        self.is_coroutine = inspect.iscoroutinefunction(function)
        self.takes = _Takes(function)
        self.agent_type = agent_type
        self.capabilities = capabilities
        self.slots = slots
        self.keeps_id = agent_id is not None
        self.id = agent_id or str(uuid.uuid4())
        self.in_processes = False
        self.heartbeat_timeout = heartbeat_timeout
        self.incarnation = time.time_ns() // 1_000_000
        self.holding: dict[Attempt, tuple[Task, asyncio.Task[None]]] = {}
        self.outbox = Outbox()
        self.pauses = Pauses(_PAUSE_FIRST_SECONDS, _PAUSE_MAX_SECONDS)
        self.lease_seconds = _LEASE_SECONDS
        self._learn_lease(heartbeat_timeout)
        # Counts how often it was registered anew: what is answered to a poll from before does not
        # hold any more.
        self.registration = 0
        # Whose outcome is on its way: held until the server has said that it has it.
        self.telling: set[Attempt] = set()

    # ---- the conversation -----------------------------------------------------------------------

    async def enter(self, client: MAOSClient, stop: Stop) -> bool:
        """Register it, and say so; raises `MAOSError` if the server refuses it.

        Asked to stop before, it waits no longer for a server that is away, and says no.
        """
        self.client = client
        if await self._unless_asked_to_stop(stop, self._register()):
            return True
        _log.warning("`%s` was stopped before it was registered", self.agent_type)
        return False

    async def leave(self) -> None:
        """End its service at the server, unless it is to stay the same agent over restarts."""
        if self.keeps_id:
            return
        with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
            await asyncio.wait_for(self.client.terminate_agent(self.id), _LEAVE_SECONDS)

    async def serve(self, stop: Stop, grace_seconds: float) -> int:
        """Work until it is to stop; return of how many attempts the server was not told.

        It is registered already.
        """
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.wake = asyncio.Event()
        self.news = self.drains = self.gives_up = self.gave_up = self.ended = False
        self.fault: Optional[BaseException] = None
        self.executor = concurrent.futures.ThreadPoolExecutor(self.slots, self.agent_type)
        self.processes = Processes()
        self.polls: set[asyncio.Task[None]] = set()
        self.tells: Optional[asyncio.Task[None]] = None
        self.rest: Optional[asyncio.TimerHandle] = None
        self.registers = False
        stopping = asyncio.create_task(self._drain(stop, grace_seconds))
        try:
            await self._converse()
            untold = 0 if self.ended else self._left()
            for poll in self.polls:
                poll.cancel()
            if not (untold or self.ended):
                await self.leave()
            return untold
        finally:
            stopping.cancel()
            self._end_rest()
            for poll in self.polls:
                poll.cancel()
            for _, run in self.holding.values():
                run.cancel()
            self.executor.shutdown(wait=False, cancel_futures=True)
            self.processes.close()

    async def _converse(self) -> None:
        while not self._is_done():
            self._begin_poll()
            self.wake.clear()
            await self.wake.wait()
            # What becomes ready in the same moment goes with the same poll.
            await asyncio.sleep(0)
            if self.fault is not None:
                raise self.fault

    def _begin_poll(self) -> None:
        """Have one poll that waits, and at most one beside it that tells.

        The server answers the older one at once: so news never wait for it. There is never a second
        one that tells, because it might overtake the first.
        """
        if self.rest is not None or self.registers:
            return
        tells = self.news and self.tells is None
        if not (tells or not self.polls):
            return
        poll = asyncio.create_task(self._poll(tells))
        if tells:
            self.tells = poll
        self.polls.add(poll)
        poll.add_done_callback(self._polled)

    def _polled(self, poll: asyncio.Task[None]) -> None:
        self.polls.discard(poll)
        if poll is self.tells:
            self.tells = None
        if not poll.cancelled():
            self.fault = self.fault or poll.exception()
        self.wake.set()

    def _begin_rest(self, asked_seconds: float) -> None:
        """Send nothing for a while: the server is away. What waits goes with the next poll."""
        if self.rest is None:
            self.rest = self.loop.call_later(self.pauses.next(asked_seconds), self._end_rest)

    def _end_rest(self) -> None:
        if self.rest is not None:
            self.rest.cancel()
            self.rest = None
            self.wake.set()

    def _learn_lease(self, lease_seconds: Optional[float]) -> None:
        """Keep pauses well below the silence after which the server takes this for lost."""
        if lease_seconds is not None:
            self.lease_seconds = lease_seconds
            self.pauses.seconds_max = min(_PAUSE_MAX_SECONDS, lease_seconds / _PAUSES_PER_LEASE)

    def _patience(self, waits: bool, body: bytes) -> aiohttp.ClientTimeout:
        """Return how long the answer of a poll may take: its connection may die in silence."""
        seconds = max(_ANSWER_SECONDS_MIN, self.lease_seconds / _ANSWERS_PER_LEASE)
        if waits:
            # The server waits no longer than that, either.
            seconds += min(_POLL_MS / 1_000, self.lease_seconds * 2 / 3)
        return aiohttp.ClientTimeout(total=seconds + len(body) / _BYTES_PER_SECOND)

    async def _unless_asked_to_stop(self, stop: Stop, first: Coroutine[Any, Any, None]) -> bool:
        doing, asked = asyncio.create_task(first), asyncio.create_task(stop.asked.wait())
        try:
            await asyncio.wait({doing, asked}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
                return True
            return False
        finally:
            doing.cancel()
            asked.cancel()

    def _is_done(self) -> bool:
        return self.ended or self.gave_up or (self.drains and not self._left())

    def _left(self) -> int:
        return len(self.holding) + len(self.outbox.outcomes) + len(self.telling)

    async def _drain(self, stop: Stop, grace_seconds: float) -> None:
        await stop.asked.wait()
        self.drains = self.news = True
        self._end_rest()
        self.wake.set()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.urgent.wait(), grace_seconds)
        if self.holding:
            _log.warning("`%s` gives up %d attempts", self.agent_type, len(self.holding))
        self.gives_up = True
        for attempt, (_, run) in list(self.holding.items()):
            self.processes.end(attempt)
            run.cancel()
        self._end_rest()
        await asyncio.sleep(_TELL_SECONDS)
        self.gave_up = True
        self.wake.set()

    # ---- what goes with the next poll -----------------------------------------------------------

    def tell_progress(self, attempt: Attempt, sign: dict[str, Any]) -> None:
        """Have a sign of progress go with the next poll; from any thread."""
        self._hand_over(self.outbox.add_sign, attempt, sign)

    def tell_line(self, attempt: Attempt, entry: dict[str, Any]) -> None:
        """Have a line of log go with the next poll; from any thread."""
        self._hand_over(self.outbox.add_line, attempt, entry)

    def _hand_over(
        self,
        take: Callable[[Attempt, dict[str, Any]], None],
        attempt: Attempt,
        entry: dict[str, Any],
    ) -> None:
        def hand_over() -> None:
            take(attempt, entry)
            self._has_news()

        # In order before the outcome, which may go with a poll at once.
        if threading.get_ident() == self.thread:
            hand_over()
            return
        # A thread that was given up may go on when all of this is over.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(hand_over)

    def _has_news(self) -> None:
        self.news = True
        self.wake.set()

    # ---- requests -------------------------------------------------------------------------------

    async def _register(self) -> None:
        while True:
            asked_seconds = 0.0
            try:
                await self.client.create_agent(
                    self.agent_type,
                    self.capabilities,
                    max_concurrent_tasks=self.slots,
                    runtime="worker",
                    id=self.id,
                    heartbeat_timeout=self.heartbeat_timeout,
                )
                self.pauses.reset()
                _log.info("`%s` serves %s", self.agent_type, ", ".join(self.capabilities))
                return
            except MAOSError as error:
                if error.status not in (429, 503):
                    error.message = f"`{self.agent_type}` was not registered: {error.message}"
                    raise
                asked_seconds = retry_after(error.headers)
                _log.warning("not registered yet: %s", error.message)
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                _log.warning("the server is not there yet: %s", error or "no answer")
            await asyncio.sleep(self.pauses.next(asked_seconds))

    async def _poll(self, tells: bool) -> None:
        sent = Sent([], [], [])
        registration = self.registration
        if tells:
            self.news = False
            sent = self.outbox.take()
        try:
            answer = await self._told(sent, tells)
        except MAOSError as error:
            self._put_back(sent, registration)
            await self._go_on_after(error, registration)
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            self._put_back(sent, registration)
            _log.warning("the server is away: %s", error or "no answer")
            self._begin_rest(0.0)
        else:
            self.pauses.reset()
            self._learn_lease(answer["lease_seconds"])
            if registration == self.registration:
                self._take(answer)
        finally:
            if tells:
                self.telling.clear()
                self.news = self.news or not self.outbox.is_empty()

    def _put_back(self, sent: Sent, registration: int) -> None:
        if registration != self.registration:
            # Those attempts were given up meanwhile.
            sent.outcomes.clear()
        self.outbox.put_back(sent)

    def _body(self, sent: Sent, waits: bool) -> bytes:
        free = 0 if self.drains else self.slots - len(self.holding)
        held = self._held() - {outcome.attempt for outcome in sent.outcomes}
        fields = {
            "incarnation": self.incarnation,
            "max_tasks": max(0, min(free, _TASKS_MAX)),
            "wait_ms": _POLL_MS if waits else 0,
            "holding": [{"task_id": id, "attempt": attempt} for id, attempt in held],
        }
        return sent.body(encoded(fields))

    def _held(self) -> set[Attempt]:
        waiting = {outcome.attempt for outcome in self.outbox.outcomes}
        return self.holding.keys() | self.telling | waiting

    async def _told(self, sent: Sent, tells: bool) -> dict[str, Any]:
        """Send a poll, without what the server refuses of it, and return the answer."""
        while True:
            if tells:
                self.telling = {outcome.attempt for outcome in sent.outcomes}
            # One that tells is answered at once, for the next one that does. The last outcomes of a
            # worker that ends are not to wait for what comes next, either.
            waits = not tells and (bool(self._held()) or not self.drains)
            body = self._body(sent, waits)
            try:
                return await self.client.poll(self.id, body, self._patience(waits, body))
            except MAOSError as error:
                if error.status not in (400, 413, 415, 422) or sent.is_empty():
                    raise
                self._correct(sent, error)

    def _correct(self, sent: Sent, error: MAOSError) -> None:
        """Take out of a poll what the server refused: the rest goes out again."""
        self._has_news()
        for dropped in sent.correct(self.outbox, error.details.get("fields") or {}):
            if not isinstance(dropped, Outcome):
                _log.error("the server refused `%s`, which is dropped: %s", dropped, error.message)
                continue
            task_id, _ = dropped.attempt
            _log.error("the server refused the outcome of task %s: %s", task_id, error.message)
            if not dropped.is_substitute:
                refusal = Failed(f"its outcome was refused: {error.message}", permanent=True)
                self.outbox.outcomes.append(self._outcome(dropped.attempt, failed(refusal), True))

    async def _go_on_after(self, error: MAOSError, registration: int) -> None:
        if error.error_code in ("AGENT_LOST", "AGENT_NOT_FOUND"):
            # Both polls may hear of it, one when it is over.
            if registration == self.registration:
                _log.warning("%s: what it ran is given up", error.message)
                await self._begin_anew()
        elif error.error_code in ("AGENT_ENDED", "STALE_INCARNATION", "NOT_A_WORKER"):
            _log.warning("%s", error.message)
            self.ended = True
        else:
            _log.warning("the server refuses polls: %s", error.message)
            self._begin_rest(retry_after(error.headers))

    async def _begin_anew(self) -> None:
        self.registers = True
        self.registration += 1
        for attempt, (task, run) in self.holding.items():
            task.cancelled.set()
            self.processes.end(attempt)
            run.cancel()
        self.holding.clear()
        self.outbox.outcomes.clear()
        self.telling.clear()
        try:
            await self._register()
        finally:
            self.registers = False

    def _take(self, answer: dict[str, Any]) -> None:
        ended = self.telling | {outcome.attempt for outcome in self.outbox.outcomes}
        for given in answer["tasks"]:
            attempt = (given["task_id"], given["attempt"])
            if attempt not in self.holding and attempt not in ended:
                task = Task(self, given)
                self.holding[attempt] = (task, asyncio.create_task(self._work(attempt, task)))
        for told in answer["cancel"]:
            self._cancel((told["task_id"], told["attempt"]))
        for refused in answer["refused"]:
            _log.warning("task %s: %s", refused["task_id"], refused["error"])

    def _cancel(self, attempt: Attempt) -> None:
        held = self.holding.get(attempt)
        if held is None:
            return
        task, run = held
        # It is told again and again: a process may have begun since.
        self.processes.end(attempt)
        if not task.cancelled.is_set():
            task.cancelled.set()
            if self.is_coroutine:
                run.cancel()

    # ---- the work -------------------------------------------------------------------------------

    async def _work(self, attempt: Attempt, task: Task) -> None:
        try:
            outcome = await self._call(attempt, task)
        except asyncio.CancelledError as error:
            outcome = b'"status":"lost"' if self.gives_up else failed(error)
        if task.cancelled.is_set():
            outcome = b'"status":"cancelled"'
        if self.holding.pop(attempt, None) is not None:
            self.outbox.outcomes.append(self._outcome(attempt, outcome, False))
            self._has_news()

    async def _call(self, attempt: Attempt, task: Task) -> bytes:
        current.set(task)
        try:
            arguments = self.takes.arguments(task)
            if self.is_coroutine:
                return completed(await self.function(**arguments))
            if self.in_processes:
                there = (attempt, self.function, arguments, task.note)
                return await self.loop.run_in_executor(self.executor, self.processes.run, *there)
            run = contextvars.copy_context().run
            here = (outcome_of, self.function, arguments, task.note)
            return await self.loop.run_in_executor(self.executor, run, *here)
        except asyncio.CancelledError:
            raise
        # In a task of the loop an interrupt or an exit would end the loop, and all else would be
        # forgotten with the task.
        except BaseException as error:
            return raised(error, task.note)

    def _outcome(self, attempt: Attempt, members: bytes, is_substitute: bool) -> Outcome:
        head = encoded({"task_id": attempt[0], "attempt": attempt[1]})[:-1]
        return Outcome(attempt, head + b"," + members + b"}", is_substitute)


class _Takes:
    """Which arguments a function takes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        parameters = inspect.signature(function).parameters
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        kinds = [parameter.kind for parameter in parameters.values()]
        self.names = list(parameters)
        self.all = inspect.Parameter.VAR_KEYWORD in kinds
        self.task = "task" in parameters
        self.required = [
            name
            for name, parameter in parameters.items()
            if parameter.kind in named and parameter.default is inspect.Parameter.empty
        ]

    def arguments(self, task: Task) -> dict[str, Any]:
        """Return them as a task has them; `Failed` names one that is missing."""
        given = task.parameters
        if self.all:
            arguments = dict(given)
        else:
            arguments = {name: given[name] for name in self.names if name in given}
        if self.task:
            arguments["task"] = task
        for name in self.required:
            if name not in arguments:
                raise Failed(f"`parameters.{name}` is missing", permanent=True)
        return arguments
