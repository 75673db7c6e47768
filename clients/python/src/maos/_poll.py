"""What waits to go with a poll, each entry encoded already, and what becomes of a refused one."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain, count
from typing import Any, NamedTuple, Union

from ._outcome import encoded
from ._task import Attempt

_ENTRIES_MAX = 1_000
_LINES_MAX = 10_000
_SIGNS_MAX = 10_000
# The server takes 64 MiB; one outcome may have 16.
_BYTES_MAX = 32 << 20
_SAID_BYTES_MAX = 16 << 20


class Outcome(NamedTuple):
    """How an attempt went, as it goes into a poll."""

    attempt: Attempt
    body: bytes
    # It stands for one that the server refused.
    is_substitute: bool


class Said(NamedTuple):
    """A line of log or a sign of progress, as it goes into a poll."""

    # In the order of arrival, of lines and signs together.
    place: int
    attempt: Attempt
    body: bytes
    is_sign: bool
    # They become a line of the log.
    has_words: bool

    def as_line(self) -> Said:
        """Return the words of a sign as a line of log."""
        sign = json.loads(self.body)
        line = {"level": "info", "line": sign["message"]}
        entry = {"task_id": sign["task_id"], "attempt": sign["attempt"], **line}
        return Said(self.place, self.attempt, encoded(entry), False, True)


class Outbox:
    """What the server was not told yet. It is used by the loop alone."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.outcomes: deque[Outcome] = deque()
        self.progress: deque[Said] = deque()
        self.lines: deque[Said] = deque()
        self._places = count()
        self._leaves_out = False

    def add_line(self, attempt: Attempt, entry: dict[str, Any]) -> None:
        """Take a line of log, as long as there is room."""
        if len(self.lines) < _LINES_MAX:
            self._leaves_out = False
        elif self._leaves_out:
            return
        else:
            self._leaves_out = True
            missing = "lines are left out from here on: the server does not keep up"
            entry = {**entry, "level": "warning", "line": missing}
        self.lines.append(Said(next(self._places), attempt, encoded(entry), False, True))

    def add_sign(self, attempt: Attempt, sign: dict[str, Any]) -> None:
        """Take a sign of progress: while the server is away the last ones are as good as all."""
        if len(self.progress) >= _SIGNS_MAX:
            self.progress.popleft()
        has_words = "message" in sign
        self.progress.append(Said(next(self._places), attempt, encoded(sign), True, has_words))

    def is_empty(self) -> bool:
        """Say whether nothing waits."""
        return not (self.outcomes or self.progress or self.lines)

    def take(self) -> Sent:
        """Return what the next poll may hold: what an attempt says in order, its outcome last.

        The server stores what it gets at once as signs, lines, outcomes. So words of a sign that
        came behind a line go as a line, too. Only the last sign of an attempt that goes on waits
        for the next poll then, with what came after it: it says how far the attempt is.
        """
        progress, lines = self._said()
        return Sent(self._ended(), progress, lines)

    def put_back(self, sent: Sent) -> None:
        """Take back what a poll held that did not arrive: it goes with the next."""
        self.outcomes.extendleft(reversed(sent.outcomes))
        self.progress.extendleft(reversed(sent.progress))
        self.lines.extendleft(reversed(sent.lines))

    def _said(self) -> tuple[list[Said], list[Said]]:
        progress: list[Said] = []
        lines: list[Said] = []
        ended = {outcome.attempt for outcome in self.outcomes}
        # No outcome is to wait for what others say.
        waiting = sorted(
            chain(self.progress, self.lines),
            key=lambda said: (said.attempt not in ended, said.place),
        )
        last = {said.attempt: said.place for said in self.progress}
        self.progress.clear()
        self.lines.clear()
        talked: set[Attempt] = set()
        held: set[Attempt] = set()
        room = _SAID_BYTES_MAX
        for said in waiting:
            attempt = said.attempt
            is_last = said.place == last.get(attempt)
            if said.is_sign and not (said.has_words or is_last):
                # The server would only put the last in its place.
                continue
            goes = room > 0 and attempt not in held
            sign_is_late = said.has_words and attempt in talked
            if goes and said.is_sign and (sign_is_late or len(progress) == _ENTRIES_MAX):
                goes = said.has_words and (attempt in ended or not is_last)
                said = said.as_line() if goes else said
            if not said.is_sign:
                goes = goes and len(lines) < _LINES_MAX
            if not goes:
                held.add(attempt)
                (self.progress if said.is_sign else self.lines).append(said)
                continue
            room -= len(said.body)
            if not said.is_sign:
                talked.add(attempt)
            (progress if said.is_sign else lines).append(said)
        return progress, lines

    def _ended(self) -> list[Outcome]:
        taken: list[Outcome] = []
        left: list[Outcome] = []
        talking = {said.attempt for said in chain(self.progress, self.lines)}
        room = _BYTES_MAX
        while self.outcomes and len(taken) < _ENTRIES_MAX:
            outcome = self.outcomes.popleft()
            fits = len(outcome.body) <= room and outcome.attempt not in talking
            (taken if fits else left).append(outcome)
            if fits:
                room -= len(outcome.body)
        self.outcomes.extendleft(reversed(left))
        return taken


class Sent:
    """What one poll holds of it."""

    def __init__(self, outcomes: list[Outcome], progress: list[Said], lines: list[Said]) -> None:
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
            body += b',"progress":[' + b",".join([each.body for each in self.progress]) + b"]"
        if self.lines:
            body += b',"logs":[' + b",".join([each.body for each in self.lines]) + b"]"
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


def _index(field: str, kind: str) -> int:
    """Return the place that a field such as `progress[3].fraction` names, or one that is none."""
    name, _, rest = field.partition("[")
    digits = rest.partition("]")[0]
    return int(digits) if name == kind and digits.isdigit() else _LINES_MAX * 2


def _dropped(kind: str, entry: Union[Outcome, Said]) -> Union[Outcome, str]:
    return entry if isinstance(entry, Outcome) else f"{kind}: {entry.body[:200]!r}"
