"""How the client talks: one session, each request until it is answered or refused.

What may pass by itself (429, 503, a broken connection) is tried again with a growing pause, and not
before the server's `Retry-After`, if that is harmless.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Optional, TypeVar, Union
from urllib.parse import quote

import aiohttp
from yarl import URL

from ._pause import Pauses, retry_after

JSON = dict[str, Any]
Content = Union[bytes, bytearray, memoryview, Path]
Self = TypeVar("Self", bound="Wire")

AWAY_STATUS = 503
RETRY_STATUSES = (429, AWAY_STATUS)
# What says that the server is away: it may come back.
PASSING = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError)
PAUSE_FIRST_SECONDS = 0.2
PAUSE_MAX_SECONDS = 5.0
PIECE_BYTES = 1 << 18
_FAULTS_MAX = 10
_SUCH_AS = "hint: write it such as `http://127.0.0.1:8000`"


class MAOSError(aiohttp.ClientResponseError):
    """The server refused a request, and says why.

    `message` is for people, with each fault of a field on a line of its own, `error_code` and
    `details` are for programs; `request_id` finds the request in the server's log.
    """

    def __init__(self, response: aiohttp.ClientResponse, body: Mapping[str, Any]) -> None:
        """Take what the server said."""
        said = str(body.get("error") or response.reason or "the server gave no reason")
        details: JSON = dict(body.get("details") or {})
        super().__init__(
            response.request_info,
            response.history,
            status=response.status,
            message=_with_faults(said, details.get("fields")),
            headers=response.headers,
        )
        self.error_code = str(body.get("error_code", ""))
        self.details = details
        self.request_id = response.headers.get("x-request-id", "")

    def __str__(self) -> str:
        """Return the message as it is; that of the base has it on one line, in quotes."""
        return f"{self.status} {self.error_code}: {self.message}"


def _with_faults(said: str, fields: Any) -> str:
    """Add the faults of several fields: the server names one, but only counts many."""
    if not isinstance(fields, dict) or len(fields) < 2:
        return said
    faults = [f"`{field}` {fault}" for field, fault in fields.items()]
    more = len(faults) - _FAULTS_MAX
    # That hint is for those who see the whole answer.
    lines = [line for line in said.splitlines() if not line.startswith("hint: details.fields")]
    lines += faults[:_FAULTS_MAX] + ([f"and {more} more in `details`"] if more > 0 else [])
    return "\n".join(lines)


class Misused(ValueError):
    """What the caller gave cannot work; the text says what would."""


class Wire:
    """A server, and the session with it."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        timeout_seconds: float = 30.0,
        retries: int = 3,
    ) -> None:
        """Note where the server is; nothing is sent yet. An address that is none is `Misused`."""
        self._base = _address(base_url)
        self._timeout_seconds = timeout_seconds
        self._retries = retries
        self._session: Optional[aiohttp.ClientSession] = None
        # Whether there was a connection to this server at any time.
        self.was_reached = False

    async def __aenter__(self: Self) -> Self:
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

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # The server sets no cookies; to look for some would cost every request.
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    async def _submit(
        self,
        path: str,
        body: Any,
        key: Optional[str] = None,
        query: Optional[Mapping[str, str]] = None,
    ) -> JSON:
        key = uuid.uuid4().hex if key is None else key
        return await self._call("POST", path, body=body, query=query, key=key)

    async def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Optional[Mapping[str, str]] = None,
        key: Optional[str] = None,
        again: bool = True,
        accepted: tuple[int, ...] = (200,),
        more_seconds: float = 0.0,
    ) -> JSON:
        waits = float(query.get("wait_seconds", 0)) if query else more_seconds
        asked = self._send(method, path, body, query, key, again, accepted)
        answer: JSON = await asyncio.wait_for(asked, self._timeout_seconds + waits)
        return answer

    async def _until_answered(
        self, ask: Callable[[], Awaitable[JSON]], statuses: Sequence[int] = RETRY_STATUSES
    ) -> JSON:
        """Ask what is harmless to ask again, as long as the server is away or busy.

        One that was never reached is not there: its error is the caller's.
        """
        pauses = Pauses(PAUSE_FIRST_SECONDS, PAUSE_MAX_SECONDS)
        while True:
            asked_seconds = 0.0
            try:
                return await ask()
            except MAOSError as error:
                if error.status not in statuses:
                    raise
                asked_seconds = retry_after(error.headers)
            except PASSING:
                if not self.was_reached:
                    raise
            await asyncio.sleep(pauses.next(asked_seconds))

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
        pauses = Pauses(PAUSE_FIRST_SECONDS, PAUSE_MAX_SECONDS)
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            asked_seconds = 0.0
            try:
                async with self._open().request(
                    method,
                    url if query is None else url.update_query(query),
                    json=body if media_type is None else None,
                    data=None if media_type is None else _pieces(body),
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as response:
                    self.was_reached = True
                    if response.status in accepted:
                        return json.loads(await response.read())
                    if last or response.status not in RETRY_STATUSES:
                        raise MAOSError(response, await read_body(response))
                    asked_seconds = retry_after(response.headers)
            except aiohttp.ClientConnectionError as error:
                self.was_reached |= not isinstance(error, aiohttp.ClientConnectorError)
                if last or not again:
                    raise
            await asyncio.sleep(pauses.next(asked_seconds))
        raise AssertionError("the last attempt returns or raises")


def _address(base_url: str) -> str:
    scheme, found, rest = base_url.partition("://")
    rest = rest.rstrip("/")
    host = rest if found else scheme.rstrip("/")
    try:
        if found and scheme.lower() in ("http", "https") and URL(f"{scheme}://{rest}").host:
            return f"{scheme}://{rest}"
    # Such as a port that is no number.
    except ValueError as error:
        raise Misused(f"`{base_url}` is no address of a server: {error}\n{_SUCH_AS}") from error
    such_as = f"hint: write `http://{host}`" if host else _SUCH_AS
    raise Misused(f"`{base_url}` is no address of a server: it must begin with http\n{such_as}")


def sendable(content: Content) -> Union[bytes, Path]:
    """Return what can be sent of a file; raises `TypeError`, or the `OSError` of opening it.

    Within a request an error of a file is taken for one of the connection.
    """
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    if isinstance(content, Path):
        content.open("rb").close()
        return content
    raise TypeError(
        f"`content` must be bytes or a `Path`, found `{type(content).__name__}`\n"
        "hint: write `text.encode()` for a text, `Path(name)` for a file"
    )


def _pieces(content: Union[bytes, Path]) -> Union[bytes, AsyncIterator[bytes]]:
    """Return what is sent of a file: itself, or its pieces as they are read."""
    if isinstance(content, bytes):
        return content

    async def read() -> AsyncIterator[bytes]:
        with content.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece

    return read()


def given(**fields: Any) -> JSON:
    """Return the fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def listed(name: str, values: Sequence[str]) -> list[str]:
    """Return a list of texts; a text in its place, whose letters would be taken, is refused."""
    if isinstance(values, str):
        raise TypeError(f"`{name}` must be a list such as `{json.dumps([values])}`, found a text")
    return list(values)


def query(filters: Mapping[str, Any]) -> dict[str, str]:
    def text(value: Union[str, int, bool, Sequence[str]]) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (str, int)):
            return str(value)
        return ",".join(value)

    return {name: text(value) for name, value in filters.items() if value is not None}


def escaped(text: str) -> str:
    return quote(str(text), safe="")


def artifact_path(task_id: str, name: str) -> str:
    # Dots alone would be taken for folders on the way.
    return f"/api/v1/tasks/{escaped(task_id)}/artifacts/{escaped(name).replace('.', '%2E')}"


async def read_body(response: aiohttp.ClientResponse) -> JSON:
    try:
        body = await response.json(content_type=None)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


async def server_sent(response: aiohttp.ClientResponse) -> AsyncIterator[JSON]:
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
