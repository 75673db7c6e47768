"""One attempt of a task as its function sees it, and the way from `logging` to the task's log."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Optional

from ._outcome import clean
from .client import Content

if TYPE_CHECKING:
    from ._agent import Agent

Attempt = tuple[str, int]

_LEVELS = ("debug", "info", "warning", "error")
# The server keeps less than this of a line, and says so in the log.
_LINE_CHARS_MAX = 16_384

current: contextvars.ContextVar[Optional[Task]] = contextvars.ContextVar("task", default=None)


class Task:
    """One attempt of a task, as a function gets it.

    It may be used from any thread. `cancelled` is set when the attempt is to stop.
    """

    def __init__(self, agent: Agent, given: dict[str, Any]) -> None:
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
        """Tell how far it has come; every call counts as a sign of progress.

        A `fraction` that is not 0 to 1 is a `ValueError`.
        """
        sign: dict[str, Any] = {"task_id": self.id, "attempt": self.attempt}
        if fraction is not None:
            part = float(fraction)
            if not 0.0 <= part <= 1.0:
                raise ValueError(f"`fraction` must be 0 to 1, found {part}")
            sign["fraction"] = part
        if message is not None:
            sign["message"] = clean(str(message), _LINE_CHARS_MAX)
        self._agent.tell_progress((self.id, self.attempt), sign)

    def log(self, line: str, level: str = "info", time_seconds: Optional[float] = None) -> None:
        """Add a line to the task's log, or several. `logging` inside of the function does the same.

        `level` is debug, info, warning or error; another one is a `ValueError`. What no text may
        hold (NUL, lone surrogates) is replaced.
        """
        if level not in _LEVELS:
            raise ValueError(f"`level` must be one of {', '.join(_LEVELS)}, found `{level}`")
        seconds = time.time() if time_seconds is None else max(0.0, time_seconds)
        moment = datetime.fromtimestamp(seconds, timezone.utc)
        entry = {
            "task_id": self.id,
            "attempt": self.attempt,
            "time": moment.isoformat(),
            "level": level,
        }
        for each in str(line).splitlines() or [""]:
            line_entry = {**entry, "line": clean(each, _LINE_CHARS_MAX)}
            self._agent.tell_line((self.id, self.attempt), line_entry)

    def artifact(
        self, name: str, content: Content, media_type: str = "application/octet-stream"
    ) -> dict[str, Any]:
        """Keep a file with the task: bytes, or the `Path` of a file. It is durable on return.

        For functions that are not coroutines; those await `keep_artifact`. Raises `MAOSError` when
        this attempt is not the running one any more, `TypeError` and `OSError` as `put_artifact`.
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

    def note(self, line: str, level_number: int, seconds: float) -> None:
        """Take what `logging` has to say."""
        self.log(line, _level(level_number), seconds)


class ToTask(logging.Handler):
    """Sends what is logged inside of a function to the log of its task."""

    of_this_process_only = True

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        task = current.get()
        if task is None or record.name.startswith(("maos.", "aiohttp", "asyncio")):
            return
        try:
            task.note(self.format(record), record.levelno, record.created)
        except Exception:
            self.handleError(record)


def _level(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"
