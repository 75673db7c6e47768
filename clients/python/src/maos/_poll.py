"""What waits to go with a poll, each entry encoded already, and what becomes of a refused one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Union

from ._outcome import encoded
from ._task import Attempt

_ENTRIES_MAX = 1_000
_LINES_MAX = 10_000
_SIGNS_MAX = 10_000
# The server takes 64 MiB; one outcome may have 16.
_BYTES_MAX = 32 << 20


class Outcome(NamedTuple):
    """How an attempt went, as it goes into a poll."""

    attempt: Attempt
    body: bytes
    # It stands for one that the server refused.
    is_substitute: bool


class Outbox:
    """What the server was not told yet. It is used by the loop alone."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.outcomes: deque[Outcome] = deque()
        # While the server is away the last signs are as good as all.
        self.progress: deque[bytes] = deque(maxlen=_SIGNS_MAX)
        self.lines: deque[bytes] = deque()

    def add_line(self, entry: dict[str, Any]) -> None:
        """Take a line of log, as long as there is room."""
        if len(self.lines) == _LINES_MAX:
            missing = "lines are left out from here on: the server does not keep up"
            entry = {**entry, "level": "warning", "line": missing}
        if len(self.lines) <= _LINES_MAX:
            self.lines.append(encoded(entry))

    def is_empty(self) -> bool:
        """Say whether nothing waits."""
        return not (self.outcomes or self.progress or self.lines)

    def take(self) -> Sent:
        """Return what the next poll may hold."""
        room = _BYTES_MAX
        outcomes: list[Outcome] = []
        while self.outcomes and len(outcomes) < _ENTRIES_MAX:
            room -= len(self.outcomes[0].body)
            if room < 0:
                break
            outcomes.append(self.outcomes.popleft())
        progress, room = _some(self.progress, _ENTRIES_MAX, room)
        lines, _ = _some(self.lines, _LINES_MAX, room)
        return Sent(outcomes, progress, lines)


class Sent:
    """What one poll holds of it."""

    def __init__(self, outcomes: list[Outcome], progress: list[bytes], lines: list[bytes]) -> None:
        """Take what was waiting."""
        self.outcomes, self.progress, self.lines = outcomes, progress, lines

    def is_empty(self) -> bool:
        """Say whether it brings nothing that could be refused."""
        return not (self.outcomes or self.progress or self.lines)

    def body(self, fields: bytes) -> bytes:
        """Return the whole poll, with these fields before it."""
        body = fields[:-1]
        if self.outcomes:
            body += b',"outcomes":[' + b",".join([each.body for each in self.outcomes]) + b"]"
        if self.progress:
            body += b',"progress":[' + b",".join(self.progress) + b"]"
        if self.lines:
            body += b',"logs":[' + b",".join(self.lines) + b"]"
        return body + b"}"

    def correct(self, outbox: Outbox, fields: Mapping[str, Any]) -> Iterator[Union[Outcome, str]]:
        """Take out what was refused by the fields that the answer names, and return what is lost.

        Where it names no single entry, half of them goes back to wait for a poll of its own, so
        that in the end only the faulty one is dropped. What comes behind waits meanwhile: lines of
        an attempt are to arrive before its outcome.
        """
        lists: list[tuple[str, list[Any], deque[Any]]] = [
            ("logs", self.lines, outbox.lines),
            ("progress", self.progress, outbox.progress),
            ("outcomes", self.outcomes, outbox.outcomes),
        ]
        kinds = {field.partition("[")[0] for field in fields}
        filled = [entries for entries in lists if entries[1]]
        kind, here, back = next((each for each in filled if each[0] in kinds), filled[0])
        wrong = sorted({at for field in fields if (at := _index(field, kind)) < len(here)})
        if wrong:
            for index in reversed(wrong):
                yield _dropped(kind, here.pop(index))
        elif len(here) > 1:
            _put_back(here, len(here) // 2, back)
        else:
            yield _dropped(kind, here.pop())
        behind = [name for name, _, _ in lists].index(kind) + 1
        for _, here, back in lists[behind:]:
            _put_back(here, 0, back)


def _put_back(here: list[Any], since: int, back: deque[Any]) -> None:
    back.extendleft(reversed(here[since:]))
    del here[since:]


def _some(waiting: deque[bytes], most: int, room: int) -> tuple[list[bytes], int]:
    taken: list[bytes] = []
    while waiting and len(taken) < most and room >= len(waiting[0]):
        room -= len(waiting[0])
        taken.append(waiting.popleft())
    return taken, room


def _index(field: str, kind: str) -> int:
    """Return the place that a field such as `progress[3].fraction` names, or one that is none."""
    name, _, rest = field.partition("[")
    digits = rest.partition("]")[0]
    return int(digits) if name == kind and digits.isdigit() else _LINES_MAX * 2


def _dropped(kind: str, entry: Union[Outcome, bytes]) -> Union[Outcome, str]:
    return entry if isinstance(entry, Outcome) else f"{kind}: {entry[:200]!r}"
