"""Functions in processes of their own: their log reaches the task's, and one can be ended alone.

A process is kept for the next call, unless it was ended. It ends with this program, however that
ends.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Callable, Optional

from ._outcome import Failed, Note, failed, outcome_of

_END_SECONDS = 5.0
_NOT_THERE = "it cannot run in a process of its own"
# One at a time: a process that is forked while another one's pipe is open here would keep it open.
_starting = threading.Lock()


class Processes:
    """As many processes as there are calls at once."""

    def __init__(self) -> None:
        """Start none yet."""
        self._lock = threading.Lock()
        self._closed = False
        self._idle: list[_Process] = []
        self._busy: dict[Any, _Process] = {}

    def run(
        self, key: Any, function: Callable[..., Any], arguments: Mapping[str, Any], note: Note
    ) -> bytes:
        """Call a function there and wait; `note` gets what it logs. Returns its outcome."""
        try:
            process = self._take(key)
        except BaseException as error:
            return failed(error)
        try:
            outcome = process.call(function, arguments, note)
        finally:
            with self._lock:
                del self._busy[key]
        if outcome is None:
            return failed(Failed(f"its process ended with code {process.end()}"))
        with self._lock:
            self._idle.append(process)
        return outcome

    def end(self, key: Any) -> None:
        """End the process of a call, if it runs."""
        with self._lock:
            process = self._busy.get(key)
        if process is not None:
            process.process.terminate()

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            self._closed = True
            left = [*self._idle, *self._busy.values()]
            self._idle.clear()
        for process in left:
            process.process.terminate()
        for process in left:
            process.end()

    def _take(self, key: Any) -> _Process:
        with self._lock:
            process = self._idle.pop() if self._idle else None
        process = process or _Process()
        with self._lock:
            self._busy[key] = process
            if self._closed:
                process.process.terminate()
        return process


class _Process:
    """One process, and the pipe to it."""

    def __init__(self) -> None:
        with _starting:
            self.pipe, theirs = multiprocessing.Pipe()
            level = logging.getLogger().level
            self.process = multiprocessing.Process(target=_serve, args=(theirs, level))
            try:
                self.process.start()
            finally:
                theirs.close()

    def call(
        self, function: Callable[..., Any], arguments: Mapping[str, Any], note: Note
    ) -> Optional[bytes]:
        """Return the outcome; `None` if the process is gone."""
        try:
            self.pipe.send((function, arguments))
            while True:
                told = self.pipe.recv()
                if isinstance(told, bytes):
                    return told
                note(*told)
        except (EOFError, OSError):
            return None
        except BaseException as error:
            # The function cannot be sent there: nothing was.
            return failed(Failed(f"{_NOT_THERE}: {type(error).__name__}: {error}", permanent=True))

    def end(self) -> Optional[int]:
        """Return the exit code of a process that has ended or is about to."""
        self.process.join(_END_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.pipe.close()
        return self.process.exitcode


class _ToParent(logging.Handler):
    """Sends what is logged to the other end of the pipe."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        super().__init__()
        self._pipe = pipe

    def note(self, line: str, level_number: int, seconds: float) -> None:
        """Send what belongs to the log; from any thread."""
        with self.lock or contextlib.nullcontext():
            self._pipe.send((line, level_number, seconds))

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            self.note(self.format(record), record.levelno, record.created)
        except Exception:
            self.handleError(record)


def _serve(pipe: Connection[Any, Any], level: int) -> None:
    """Do calls until the other end of the pipe is closed."""
    # A signal to the worker's group is the worker's to handle; its handlers are not ours.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    root = logging.getLogger()
    root.setLevel(level)
    for handler in list(root.handlers):
        if getattr(handler, "of_this_process_only", False):
            root.removeHandler(handler)
    handler = _ToParent(pipe)
    root.addHandler(handler)
    with contextlib.suppress(EOFError, OSError):
        while True:
            outcome = _next(pipe, handler.note)
            with handler.lock or contextlib.nullcontext():
                pipe.send(outcome)


def _next(pipe: Connection[Any, Any], note: Note) -> bytes:
    try:
        function, arguments = pipe.recv()
    except (EOFError, OSError):
        raise
    # To read a function imports its module, which may do and raise anything.
    except BaseException as error:
        return failed(Failed(f"{_NOT_THERE}: {type(error).__name__}: {error}", permanent=True))
    return outcome_of(function, arguments, note)


def _end_with(parent: BaseProcess) -> None:
    wait([parent.sentinel])
    os._exit(1)
