"""The client: every endpoint as a coroutine that returns the answer's JSON.

Errors are `MAOSError`, an `aiohttp.ClientResponseError` that also knows the server's error code
and details. What may pass by itself (429, 503, a broken connection) is tried again with a growing
pause; submissions carry an idempotency key, so that trying again never makes a second task.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Optional, Union
from urllib.parse import quote

import aiohttp
from yarl import URL

JSON = dict[str, Any]
Content = Union[bytes, Path]

_RETRY_STATUSES = (429, 503)
_PAUSE_FIRST_SECONDS = 0.2
_PAUSE_MAX_SECONDS = 5.0
_WAIT_MAX_SECONDS = 60
_PIECE_BYTES = 1 << 18
_JSON = {"content-type": "application/json"}


class MAOSError(aiohttp.ClientResponseError):
    """The server refused a request, and says why.

    `message` is for people, `error_code` and `details` are for programs; `request_id` finds the
    request in the server's log.
    """

    def __init__(self, response: aiohttp.ClientResponse, body: Mapping[str, Any]) -> None:
        """Take what the server said."""
        message = str(body.get("error") or response.reason or "the server gave no reason")
        super().__init__(
            response.request_info,
            response.history,
            status=response.status,
            message=message,
            headers=response.headers,
        )
        self.error_code = str(body.get("error_code", ""))
        self.details: JSON = dict(body.get("details") or {})
        self.request_id = response.headers.get("x-request-id", "")


class MAOSClient:
    """Talks to a server: `async with MAOSClient("http://127.0.0.1:8000") as client`.

    `timeout_seconds` bounds one request, its retries included; at its end `asyncio.TimeoutError` is
    raised.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        timeout_seconds: float = 30.0,
        retries: int = 3,
    ) -> None:
        """Note where the server is; nothing is sent yet."""
        self._base = base_url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._retries = retries
        self._session: Optional[aiohttp.ClientSession] = None

    async def __aenter__(self) -> MAOSClient:
        """Open the session."""
        self._open()
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Close the session."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

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
        **more: Any,
    ) -> JSON:
        """Submit a task; durable when this returns. `more` are further fields of a submission."""
        body = _given(
            name=name,
            description=description,
            priority=priority,
            parameters=parameters,
            resource_requirements=resource_requirements,
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            tags=None if tags is None else list(tags),
            metadata=metadata,
            decomposition_strategy=decomposition_strategy,
            **more,
        )
        return await self._submit("/api/v1/tasks", body)

    async def submit_batch(self, submissions: Sequence[Mapping[str, Any]]) -> list[JSON]:
        """Submit up to 10,000 tasks in one commit; each answer has `task_id` or `error`."""
        path, body, key = "/api/v1/tasks/batch", list(submissions), uuid.uuid4().hex
        sent = self._send("POST", path, body, None, key, True, (200,))
        answers: list[JSON] = await asyncio.wait_for(sent, self._timeout_seconds)
        return answers

    async def get_task(self, task_id: str, wait_seconds: int = 0) -> JSON:
        """Look at a task; with a wait, once it has ended or the wait is over (at most 60 s)."""
        query = {"wait_seconds": str(wait_seconds)} if wait_seconds else None
        return await self._call("GET", f"/api/v1/tasks/{_id(task_id)}", query=query)

    async def wait_for(self, task_id: str, timeout_seconds: Optional[float] = None) -> JSON:
        """Wait until a task has ended, and return it.

        Raises `asyncio.TimeoutError` when that takes longer than `timeout_seconds`.
        """

        async def ended() -> JSON:
            while True:
                task: JSON = (await self.get_task(task_id, _WAIT_MAX_SECONDS))["task"]
                if task["completed_at"] is not None:
                    return task

        return await asyncio.wait_for(ended(), timeout_seconds)

    async def run_task(self, name: str, **fields: Any) -> Any:
        """Submit a task, wait for its end, and return its result; `RuntimeError` if it fails."""
        # One request for both: who submits hears of the end as soon as it is there.
        body = _given(name=name, **fields)
        wait = {"wait_seconds": str(_WAIT_MAX_SECONDS)}
        task: JSON = (await self._submit("/api/v1/tasks", body, wait))["task"]
        if task["completed_at"] is None:
            task = await self.wait_for(task["id"])
        if task["status"] != "completed":
            raise RuntimeError(f"task `{name}` is {task['status']}: {task['error']}")
        return task["result"]

    async def cancel_task(self, task_id: str, reason: Optional[str] = None) -> JSON:
        """End a task and everything below it."""
        query = None if reason is None else {"reason": reason}
        return await self._call("DELETE", f"/api/v1/tasks/{_id(task_id)}", query=query)

    async def retry_task(self, task_id: str) -> JSON:
        """Run a failed or cancelled task again."""
        return await self._call("PUT", f"/api/v1/tasks/{_id(task_id)}/retry")

    async def get_results(self, task_id: str) -> JSON:
        """Get what a task made."""
        return await self._call("GET", f"/api/v1/tasks/{_id(task_id)}/results")

    async def explain_task(self, task_id: str) -> JSON:
        """Ask why a task does not go on."""
        return await self._call("GET", f"/api/v1/tasks/{_id(task_id)}/explain")

    async def list_tasks(self, **filters: Any) -> JSON:
        """List a page of tasks, filtered as `docs/lists.md` says."""
        return await self._call("GET", "/api/v1/tasks", query=_query(filters))

    async def bulk(self, operation: str, task_ids: Sequence[str]) -> JSON:
        """Do `cancel`, `retry` or `delete` to each of many tasks."""
        body = {"operation": operation, "task_ids": list(task_ids)}
        return await self._call("POST", "/api/v1/tasks/bulk", body=body)

    async def get_plan(self, plan_id: str) -> JSON:
        """Get the graph that a submission became."""
        return await self._call("GET", f"/api/v1/plans/{_id(plan_id)}")

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
        query = _query(
            {"offset": offset, "limit": limit, "level": level, "wait_seconds": wait_seconds}
        )
        return await self._call("GET", f"/api/v1/tasks/{_id(task_id)}/logs", query=query)

    async def follow_logs(
        self, task_id: str, offset: int = 0, level: Optional[str] = None
    ) -> AsyncIterator[JSON]:
        """Get the lines of a task as they come, until it has ended.

        A broken connection is taken up again behind the last line.
        """
        while True:
            page = await self.task_logs(task_id, offset, 1_000, level, _WAIT_MAX_SECONDS)
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
        """
        query = None if attempt is None else {"attempt": str(attempt)}
        sent = self._send(
            "PUT", _artifact(task_id, name), content, query, None, True, (200,), media_type
        )
        answer: JSON = await sent
        return answer

    async def list_artifacts(self, task_id: str) -> JSON:
        """List the files of a task: `items` with name, media_type, size_bytes and checksum."""
        return await self._call("GET", f"/api/v1/tasks/{_id(task_id)}/artifacts")

    async def get_artifact(self, task_id: str, name: str, to: Optional[Path] = None) -> bytes:
        """Fetch a file of a task; with `to` into that file, piece by piece, and return nothing."""
        url = URL(self._base + _artifact(task_id, name), encoded=True)
        async with self._open().get(url, timeout=aiohttp.ClientTimeout(total=None)) as response:
            if response.status != 200:
                raise MAOSError(response, await _body(response))
            if to is None:
                return await response.read()
            with to.open("wb") as file:
                async for piece in response.content.iter_chunked(_PIECE_BYTES):
                    file.write(piece)
            return b""

    # ---- messages -------------------------------------------------------------------------------

    async def send_message(self, to: Mapping[str, Any], body: Any, **more: Any) -> JSON:
        """Send a message to `{"agent": id}`, `{"task": id}`, `{"topic": name}` or `{"all": True}`.

        `more` are further fields, such as `sender`, `kind`, `reply_to` and `ttl_seconds`.
        """
        message = {"to": dict(to), "body": body, **_given(**more)}
        return await self._submit("/api/v1/messages", message)

    async def read_messages(
        self,
        mailbox: str,
        reader: Optional[str] = None,
        offset: Optional[int] = None,
        limit: Optional[int] = None,
        wait_seconds: Optional[int] = None,
    ) -> JSON:
        """Read a mailbox: behind what the reader has acknowledged, or from an offset on."""
        query = _query(
            {
                "mailbox": mailbox,
                "reader": reader,
                "offset": offset,
                "limit": limit,
                "wait_seconds": wait_seconds,
            }
        )
        return await self._call("GET", "/api/v1/messages", query=query)

    async def acknowledge_messages(
        self, mailbox: str, offset: int, reader: Optional[str] = None
    ) -> JSON:
        """Say that everything up to a message was handled."""
        body = _given(mailbox=mailbox, offset=offset, reader=reader)
        return await self._call("POST", "/api/v1/messages/ack", body=body)

    # ---- what happens ---------------------------------------------------------------------------

    async def events(self, last_event_id: str = "", **filters: Any) -> AsyncIterator[JSON]:
        """Follow what happens; each event has its place as `id`.

        A broken connection is taken up again behind the last event that was seen.
        """
        pause = _PAUSE_FIRST_SECONDS
        while True:
            headers = {"last-event-id": last_event_id} if last_event_id else {}
            try:
                async with self._open().get(
                    f"{self._base}/api/v1/events",
                    params=_query(filters),
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=None, sock_read=60),
                ) as response:
                    if response.status != 200:
                        raise MAOSError(response, await _body(response))
                    async for event in _server_sent(response):
                        last_event_id = event.get("id") or last_event_id
                        pause = _PAUSE_FIRST_SECONDS
                        yield event
            except MAOSError as error:
                if error.status not in _RETRY_STATUSES:
                    raise
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                pass
            await asyncio.sleep(pause * random.uniform(1, 2))
            pause = min(pause * 2, _PAUSE_MAX_SECONDS)

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
        body = _given(
            agent_type=agent_type,
            capabilities=list(capabilities),
            configuration=configuration,
            max_concurrent_tasks=max_concurrent_tasks,
            resource_limits=resource_limits,
            tags=None if tags is None else list(tags),
            **more,
        )
        return await self._call("POST", "/api/v1/agents", body=body, again=False)

    async def get_agent(self, agent_id: str) -> JSON:
        """Look at an agent."""
        return await self._call("GET", f"/api/v1/agents/{_id(agent_id)}")

    async def list_agents(self, **filters: Any) -> JSON:
        """List a page of agents."""
        return await self._call("GET", "/api/v1/agents", query=_query(filters))

    async def terminate_agent(self, agent_id: str) -> JSON:
        """End an agent; what it runs goes to others."""
        return await self._call("DELETE", f"/api/v1/agents/{_id(agent_id)}")

    async def poll(
        self, agent_id: str, body: bytes, timeout: Optional[aiohttp.ClientTimeout] = None
    ) -> JSON:
        """Poll for a worker with a body as `docs/worker-protocol.md` says. It is sent only once."""
        url = f"{self._base}/api/v1/agents/{_id(agent_id)}/poll"
        async with self._open().post(url, data=body, headers=_JSON, timeout=timeout) as response:
            if response.status == 200:
                answer: JSON = json.loads(await response.read())
                return answer
            raise MAOSError(response, await _body(response))

    # ---- the system -----------------------------------------------------------------------------

    async def health_check(self) -> JSON:
        """Ask whether the server lives."""
        return await self._call("GET", "/health")

    async def detailed_health_check(self) -> JSON:
        """Ask how each component is; also a system that is not healthy answers."""
        return await self._call("GET", "/health/detailed", accepted=(200, 503))

    async def get_system_status(self) -> JSON:
        """Ask how the system is."""
        return await self._call("GET", "/api/v1/system/status")

    async def get_system_metrics(self) -> JSON:
        """Get the system's figures."""
        return await self._call("GET", "/api/v1/system/metrics")

    # ---- Claude Code ----------------------------------------------------------------------------

    async def submit_claude_task(self, spec: Mapping[str, Any]) -> JSON:
        """Submit a task as Claude Code's clients do."""
        return await self._submit("/api/v1/claude/tasks", dict(spec))

    async def get_claude_task_status(self, claude_task_id: str) -> JSON:
        """Look at such a task."""
        return await self._call("GET", f"/api/v1/claude/tasks/{_id(claude_task_id)}")

    async def get_claude_orchestrator_status(self) -> JSON:
        """Ask how the system is, as these clients do."""
        return await self._call("GET", "/api/v1/claude/orchestrator/status")

    # ---- how it talks ---------------------------------------------------------------------------

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    async def _submit(
        self, path: str, body: JSON, query: Optional[Mapping[str, str]] = None
    ) -> JSON:
        return await self._call("POST", path, body=body, query=query, key=uuid.uuid4().hex)

    async def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Optional[Mapping[str, str]] = None,
        key: Optional[str] = None,
        again: bool = True,
        accepted: tuple[int, ...] = (200,),
    ) -> JSON:
        waits = float(query.get("wait_seconds", 0)) if query else 0.0
        asked = self._send(method, path, body, query, key, again, accepted)
        answer: JSON = await asyncio.wait_for(asked, self._timeout_seconds + waits)
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        body: Any,
        query: Optional[Mapping[str, str]],
        key: Optional[str],
        again: bool,
        accepted: tuple[int, ...],
        media_type: Optional[str] = None,
    ) -> Any:
        headers = {"idempotency-key": key} if key else {}
        if media_type is not None:
            headers["content-type"] = media_type
        url = URL(self._base + path, encoded=True)
        pause = _PAUSE_FIRST_SECONDS
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                async with self._open().request(
                    method,
                    url if query is None else url.update_query(query),
                    json=body if media_type is None else None,
                    data=None if media_type is None else _pieces(body),
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as response:
                    if response.status in accepted:
                        return await response.json()
                    if last or response.status not in _RETRY_STATUSES:
                        raise MAOSError(response, await _body(response))
            except aiohttp.ClientConnectionError:
                if last or not again:
                    raise
            await asyncio.sleep(pause * random.uniform(1, 2))
            pause = min(pause * 2, _PAUSE_MAX_SECONDS)
        raise AssertionError("the last attempt returns or raises")


def _pieces(content: Content) -> Union[bytes, AsyncIterator[bytes]]:
    """Return what is sent of a file: itself, or its pieces as they are read."""
    if isinstance(content, bytes):
        return content

    async def read() -> AsyncIterator[bytes]:
        with content.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                yield piece

    return read()


def _given(**fields: Any) -> JSON:
    """Return the fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def _query(filters: Mapping[str, Any]) -> dict[str, str]:
    def text(value: Union[str, int, bool, Sequence[str]]) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (str, int)):
            return str(value)
        return ",".join(value)

    return {name: text(value) for name, value in filters.items() if value is not None}


def _id(text: str) -> str:
    return quote(str(text), safe="")


def _artifact(task_id: str, name: str) -> str:
    # Dots alone would be taken for folders on the way.
    return f"/api/v1/tasks/{_id(task_id)}/artifacts/{_id(name).replace('.', '%2E')}"


async def _body(response: aiohttp.ClientResponse) -> JSON:
    try:
        body = await response.json(content_type=None)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


async def _server_sent(response: aiohttp.ClientResponse) -> AsyncIterator[JSON]:
    fields: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().rstrip("\r\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
            continue
        if "data" in fields:
            event = json.loads(fields["data"])
            event["id"] = fields.get("id", "")
            yield event
        fields = {}
