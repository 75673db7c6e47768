"""The client: every endpoint as a coroutine that returns the answer's JSON.

Errors are `MAOSError`, an `aiohttp.ClientResponseError` that also knows the server's error code
and details. Submissions carry an idempotency key, so that trying again never makes a second task.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Optional, cast

import aiohttp
from yarl import URL

from ._pause import Pauses, retry_after
from ._wider import Wider
from ._wire import (
    AWAY_STATUS,
    JSON,
    PAUSE_FIRST_SECONDS,
    PAUSE_MAX_SECONDS,
    PIECE_BYTES,
    RETRY_STATUSES,
    Content,
    MAOSError,
    artifact_path,
    escaped,
    given,
    listed,
    query,
    read_body,
    sendable,
    server_sent,
)

__all__ = ["Content", "MAOSClient", "MAOSError"]

_WAIT_MAX_SECONDS = 60
_JSON = {"content-type": "application/json"}


class MAOSClient(Wider):
    """Talks to a server: `async with MAOSClient("http://127.0.0.1:8000") as client`.

    `timeout_seconds` bounds one request, its retries included; at its end `asyncio.TimeoutError` is
    raised.
    """

    # ---- tasks ----------------------------------------------------------------------------------

    async def submit_task(
        self,
        name: str,
        description: Optional[str] = None,
        priority: Optional[str] = None,
        parameters: Optional[Mapping[str, Any]] = None,
        resource_requirements: Optional[Mapping[str, float]] = None,
        timeout_seconds: Optional[int] = None,
        max_retries: Optional[int] = None,
        tags: Optional[Sequence[str]] = None,
        metadata: Optional[Mapping[str, Any]] = None,
        decomposition_strategy: Optional[str] = None,
        *,
        idempotency_key: Optional[str] = None,
        wait_seconds: int = 0,
        **more: Any,
    ) -> JSON:
        """Submit a task; durable when this returns. `more` are further fields of a submission.

        The same `idempotency_key` with the same fields is answered as the first time; without one
        it gets one of its own. With `wait_seconds` (up to 60) it is answered at the task's end, or
        after the wait.
        """
        fields = given(
            name=name,
            description=description,
            priority=priority,
            parameters=parameters,
            resource_requirements=resource_requirements,
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            tags=None if tags is None else listed("tags", tags),
            metadata=metadata,
            decomposition_strategy=decomposition_strategy,
            **more,
        )
        wait = query({"wait_seconds": wait_seconds}) if wait_seconds else None
        return await self._submit("/api/v1/tasks", fields, idempotency_key, wait)

    async def submit_batch(
        self, submissions: Sequence[Mapping[str, Any]], *, idempotency_key: Optional[str] = None
    ) -> list[JSON]:
        """Submit up to 10,000 tasks in one commit; each answer has `task_id` or `error`."""
        sent = self._submit("/api/v1/tasks/batch", list(submissions), idempotency_key)
        return cast("list[JSON]", await sent)

    async def get_task(self, task_id: str, wait_seconds: int = 0) -> JSON:
        """Look at a task; with a wait, once it has ended or the wait is over (at most 60 s)."""
        query = {"wait_seconds": str(wait_seconds)} if wait_seconds else None
        return await self._call("GET", f"/api/v1/tasks/{escaped(task_id)}", query=query)

    async def wait_for(self, task_id: str, timeout_seconds: Optional[float] = None) -> JSON:
        """Wait until a task has ended, and return it; also for a server that is away meanwhile.

        Raises `asyncio.TimeoutError` when that takes longer than `timeout_seconds`. A server that
        this client has never reached is an `aiohttp.ClientConnectionError`, as with every other
        method.
        """

        def look() -> Awaitable[JSON]:
            return self.get_task(task_id, _WAIT_MAX_SECONDS)

        async def ended() -> JSON:
            while True:
                task: JSON = (await self._until_answered(look))["task"]
                if task["completed_at"] is not None:
                    return task

        return await asyncio.wait_for(ended(), timeout_seconds)

    async def run_task(
        self, name: str, *, idempotency_key: Optional[str] = None, **fields: Any
    ) -> Any:
        """Submit a task, wait for its end, and return its result; `RuntimeError` if it fails.

        A server that is away meanwhile, or says so (503), is waited for. One that this client has
        never reached is an `aiohttp.ClientConnectionError`, as with every other method.
        """
        # One request for both: who submits hears of the end as soon as it is there.
        wait = {"wait_seconds": str(_WAIT_MAX_SECONDS)}
        submission = given(name=name, **fields)
        key = uuid.uuid4().hex if idempotency_key is None else idempotency_key

        def submit() -> Awaitable[JSON]:
            return self._submit("/api/v1/tasks", submission, key, wait)

        # One whose queue is full takes nothing: that is for the caller to know.
        answer = await self._until_answered(submit, [AWAY_STATUS])
        task: JSON = answer["task"]
        if task["completed_at"] is None:
            task = await self.wait_for(task["id"])
        if task["status"] != "completed":
            raise RuntimeError(f"task `{name}` is {task['status']}: {task['error']}")
        return task["result"]

    async def cancel_task(self, task_id: str, reason: Optional[str] = None) -> JSON:
        """End a task and everything below it."""
        asked = None if reason is None else {"reason": reason}
        return await self._call("DELETE", f"/api/v1/tasks/{escaped(task_id)}", query=asked)

    async def retry_task(self, task_id: str) -> JSON:
        """Run a failed or cancelled task again."""
        return await self._json("PUT", f"/api/v1/tasks/{escaped(task_id)}/retry")

    async def change_task(self, task_id: str, **changes: Any) -> JSON:
        """Change `priority`, `tags` and `metadata` of a task, and until it starts also
        `parameters`, `timeout_seconds`, `max_retries` and `resource_requirements`; until it ends
        `deadline`, `queue_timeout_seconds` and `no_progress_seconds`, which `None` takes away.
        """
        return await self._json("PATCH", f"/api/v1/tasks/{escaped(task_id)}", changes)

    async def task_events(self, task_id: str) -> JSON:
        """Get what happened to a task, step by step."""
        return await self._json("GET", f"/api/v1/tasks/{escaped(task_id)}/events")

    async def get_results(self, task_id: str) -> JSON:
        """Get what a task made."""
        return await self._json("GET", f"/api/v1/tasks/{escaped(task_id)}/results")

    async def explain_task(self, task_id: str) -> JSON:
        """Ask why a task does not go on."""
        return await self._json("GET", f"/api/v1/tasks/{escaped(task_id)}/explain")

    async def list_tasks(self, **filters: Any) -> JSON:
        """List a page of tasks, filtered as `docs/lists.md` says."""
        return await self._call("GET", "/api/v1/tasks", query=query(filters))

    async def bulk(
        self, operation: str, task_ids: Sequence[str], reason: Optional[str] = None
    ) -> JSON:
        """Do `cancel`, `retry` or `delete` to each of many tasks."""
        body = given(operation=operation, task_ids=listed("task_ids", task_ids), reason=reason)
        return await self._call("POST", "/api/v1/tasks/bulk", body=body)

    async def get_plan(self, plan_id: str) -> JSON:
        """Get the graph that a submission became."""
        return await self._json("GET", f"/api/v1/plans/{escaped(plan_id)}")

    async def preview_plan(self, submission: Mapping[str, Any]) -> JSON:
        """Get the graph that a submission would become."""
        return await self._call("POST", "/api/v1/plans/preview", body=dict(submission))

    async def task_logs(
        self,
        task_id: str,
        offset: int = 0,
        limit: Optional[int] = None,
        level: Optional[str] = None,
        wait_seconds: Optional[int] = None,
    ) -> JSON:
        """Get a page of what a task's attempts say; go on with its `next_offset`.

        With `wait_seconds` (up to 60) it is there as soon as there is a line, or the task has
        ended. `ended` says that nothing more will come.
        """
        asked = query(
            {"offset": offset, "limit": limit, "level": level, "wait_seconds": wait_seconds}
        )
        return await self._call("GET", f"/api/v1/tasks/{escaped(task_id)}/logs", query=asked)

    async def follow_logs(
        self, task_id: str, offset: int = 0, level: Optional[str] = None
    ) -> AsyncIterator[JSON]:
        """Get the lines of a task as they come, until it has ended.

        A broken connection is taken up again behind the last line, as soon as the server is back.
        One that this client has never reached is an `aiohttp.ClientConnectionError`.
        """
        while True:
            ask = partial(self.task_logs, task_id, offset, 1_000, level, _WAIT_MAX_SECONDS)
            page = await self._until_answered(ask)
            for item in page["items"]:
                yield item
            offset = page["next_offset"]
            if page["ended"]:
                return

    # ---- artifacts ------------------------------------------------------------------------------

    async def put_artifact(
        self,
        task_id: str,
        name: str,
        content: Content,
        media_type: str = "application/octet-stream",
        attempt: Optional[int] = None,
    ) -> JSON:
        """Keep a file with a task that has not ended, in the place of one of this name.

        `content` is bytes, or the `Path` of a file, which is never whole in memory. With an
        `attempt` it is refused unless just that one runs. There is no bound on the time it takes.
        A text is a `TypeError`, and a file that cannot be read the `OSError` of opening it.
        """
        content = sendable(content)
        query = None if attempt is None else {"attempt": str(attempt)}
        sent = self._send(
            "PUT", artifact_path(task_id, name), content, query, None, True, (200,), media_type
        )
        answer: JSON = await sent
        return answer

    async def list_artifacts(self, task_id: str) -> JSON:
        """List the files of a task: `items` with name, media_type, size_bytes and checksum."""
        return await self._json("GET", f"/api/v1/tasks/{escaped(task_id)}/artifacts")

    async def get_artifact(self, task_id: str, name: str, to: Optional[Path] = None) -> bytes:
        """Fetch a file of a task; with `to` into that file, piece by piece, and return nothing."""
        url = URL(self._base + artifact_path(task_id, name), encoded=True)
        async with self._open().get(url, timeout=aiohttp.ClientTimeout(total=None)) as response:
            self.was_reached = True
            if response.status != 200:
                raise MAOSError(response, await read_body(response))
            if to is None:
                return await response.read()
            with to.open("wb") as file:
                async for piece in response.content.iter_chunked(PIECE_BYTES):
                    file.write(piece)
            return b""

    # ---- what happens ---------------------------------------------------------------------------

    async def events(self, last_event_id: str = "", **filters: Any) -> AsyncIterator[JSON]:
        """Follow what happens; each event has its place as `id`.

        A broken connection is taken up again behind the last event that was seen. A server that
        this client has never reached is an `aiohttp.ClientConnectionError` after its retries.
        """
        pauses = Pauses(PAUSE_FIRST_SECONDS, PAUSE_MAX_SECONDS)
        retries = self._retries
        while True:
            asked_seconds = 0.0
            headers = {"last-event-id": last_event_id} if last_event_id else {}
            try:
                async with self._open().get(
                    f"{self._base}/api/v1/events",
                    params=query(filters),
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=None, sock_read=60),
                ) as response:
                    self.was_reached = True
                    if response.status != 200:
                        raise MAOSError(response, await read_body(response))
                    async for event in server_sent(response):
                        last_event_id = event.get("id") or last_event_id
                        pauses.reset()
                        yield event
            except MAOSError as error:
                if error.status not in RETRY_STATUSES:
                    raise
                asked_seconds = retry_after(error.headers)
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                if not self.was_reached and retries == 0:
                    raise
                retries -= 1
            await asyncio.sleep(pauses.next(asked_seconds))

    # ---- agents ---------------------------------------------------------------------------------

    async def create_agent(
        self,
        agent_type: str,
        capabilities: Sequence[str],
        configuration: Optional[Mapping[str, Any]] = None,
        max_concurrent_tasks: Optional[int] = None,
        resource_limits: Optional[Mapping[str, float]] = None,
        tags: Optional[Sequence[str]] = None,
        **more: Any,
    ) -> JSON:
        """Create an agent. `more` are further fields, such as `runtime` or `id`."""
        body = given(
            agent_type=agent_type,
            capabilities=listed("capabilities", capabilities),
            configuration=configuration,
            max_concurrent_tasks=max_concurrent_tasks,
            resource_limits=resource_limits,
            tags=None if tags is None else listed("tags", tags),
            **more,
        )
        return await self._call("POST", "/api/v1/agents", body=body, again=False)

    async def get_agent(self, agent_id: str) -> JSON:
        """Look at an agent."""
        return await self._json("GET", f"/api/v1/agents/{escaped(agent_id)}")

    async def list_agents(self, **filters: Any) -> JSON:
        """List a page of agents."""
        return await self._call("GET", "/api/v1/agents", query=query(filters))

    async def change_agent(self, agent_id: str, **changes: Any) -> JSON:
        """Change `name`, `capabilities`, `max_concurrent_tasks`, `configuration`,
        `resource_limits` or `tags` of an agent.
        """
        return await self._json("PATCH", f"/api/v1/agents/{escaped(agent_id)}", changes)

    async def terminate_agent(self, agent_id: str) -> JSON:
        """End an agent; what it runs goes to others."""
        return await self._json("DELETE", f"/api/v1/agents/{escaped(agent_id)}")

    async def poll(
        self, agent_id: str, body: bytes, timeout: Optional[aiohttp.ClientTimeout] = None
    ) -> JSON:
        """Poll for a worker with a body as `docs/worker-protocol.md` says. It is sent only once."""
        url = URL(f"{self._base}/api/v1/agents/{escaped(agent_id)}/poll", encoded=True)
        async with self._open().post(url, data=body, headers=_JSON, timeout=timeout) as response:
            self.was_reached = True
            if response.status == 200:
                answer: JSON = json.loads(await response.read())
                return answer
            raise MAOSError(response, await read_body(response))

    # ---- the system -----------------------------------------------------------------------------

    async def health_check(self) -> JSON:
        """Ask whether the server lives."""
        return await self._json("GET", "/health")

    async def detailed_health_check(self) -> JSON:
        """Ask how each component is; also a system that is not healthy answers."""
        return await self._call("GET", "/health/detailed", accepted=(200, 503))

    async def get_system_status(self) -> JSON:
        """Ask how the system is."""
        return await self._json("GET", "/api/v1/system/status")

    async def get_system_metrics(self) -> JSON:
        """Get the system's figures."""
        return await self._json("GET", "/api/v1/system/metrics")

    # ---- Claude Code ----------------------------------------------------------------------------

    async def submit_claude_task(
        self, spec: Mapping[str, Any], *, idempotency_key: Optional[str] = None
    ) -> JSON:
        """Submit a task as Claude Code's clients do."""
        return await self._submit("/api/v1/claude/tasks", dict(spec), idempotency_key)

    async def cancel_claude_task(self, claude_task_id: str, reason: Optional[str] = None) -> JSON:
        """End such a task and everything below it."""
        asked = None if reason is None else {"reason": reason}
        path = f"/api/v1/claude/tasks/{escaped(claude_task_id)}"
        return await self._call("DELETE", path, query=asked)

    async def get_claude_task_results(self, claude_task_id: str) -> JSON:
        """Get what such a task made."""
        return await self._json("GET", f"/api/v1/claude/tasks/{escaped(claude_task_id)}/results")

    async def get_claude_task_status(self, claude_task_id: str) -> JSON:
        """Look at such a task."""
        return await self._json("GET", f"/api/v1/claude/tasks/{escaped(claude_task_id)}")

    async def get_claude_orchestrator_status(self) -> JSON:
        """Ask how the system is, as these clients do."""
        return await self._json("GET", "/api/v1/claude/orchestrator/status")
