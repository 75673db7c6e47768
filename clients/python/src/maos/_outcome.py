"""What an attempt of a function comes to, as it is told to the server.

Nothing that a function returns or raises gets out of here as it is: it becomes JSON that a poll can
hold, or the reason why it cannot.
"""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from collections.abc import Mapping
from typing import Any, Callable

RESULT_BYTES_MAX = 16 << 20
# Takes lines for the log of a task, with the number of their level and their time in seconds.
Note = Callable[[str, int, float], None]
_ERROR_CHARS_MAX = 10_000
_HERE = os.path.dirname(__file__) + os.sep


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


def outcome_of(function: Callable[..., Any], arguments: Mapping[str, Any], note: Note) -> bytes:
    """Call a function, and return the members of the outcome that this makes.

    `note` gets the traceback of what it raises.
    """
    try:
        return completed(function(**arguments))
    # Whatever it is, also `sys.exit()`: it is only this function's own end.
    except BaseException as error:
        return raised(error, note)


def raised(error: BaseException, note: Note) -> bytes:
    """Return the outcome of a function that raised this, and note where."""
    # A failure with a reason for people needs none, unless something else is behind it.
    if not isinstance(error, Failed) or error.__cause__ is not None:
        note(_where(error), logging.ERROR, time.time())
    return failed(error)


def completed(returned: Any) -> bytes:
    """Return the outcome of a function that returned this."""
    handed_over = isinstance(returned, Subtasks)
    try:
        document = encoded(returned.entries if handed_over else returned)
    except (TypeError, ValueError, RecursionError) as error:
        return failed(Failed(f"what it returned is no JSON: {said(error)}", permanent=True))
    if len(document) > RESULT_BYTES_MAX:
        found = f"what it returned has {len(document)} bytes"
        return failed(Failed(f"{found}, at most {RESULT_BYTES_MAX} are taken", permanent=True))
    name = b"subtasks" if handed_over else b"result"
    return b'"status":"completed","' + name + b'":' + document


def failed(error: BaseException) -> bytes:
    """Return the outcome of a function that raised this."""
    if isinstance(error, Failed):
        message, permanent = said(error), error.permanent
    else:
        message, permanent = f"{type(error).__name__}: {said(error)}", False
    fields = {"status": "failed", "error": clean(message), "permanent": bool(permanent)}
    return encoded(fields)[1:-1]


def _where(error: BaseException) -> str:
    """Return the traceback, from the function on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_HERE):
        frames = frames.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except BaseException:
        return f"{type(error).__name__}: it cannot say where"


def encoded(value: Any) -> bytes:
    """Return a value as JSON that any reader takes; a `ValueError` or `TypeError` says why not."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def clean(text: str, chars_max: int = _ERROR_CHARS_MAX) -> str:
    """Return a text as the server takes it: no NUL, no lone surrogate, and not endless."""
    cut = text[:chars_max].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return cut.encode("utf-8", "replace").decode()


def said(error: BaseException) -> str:
    """Return what an exception says, which may fail like all else in it."""
    try:
        return str(error)
    except BaseException:
        return "it cannot say why"
