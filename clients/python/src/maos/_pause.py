"""Pauses before the next try: they grow, chance spreads them, and the server may ask for more.

Chance, because those that lost a server together would else come back together.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Optional


class Pauses:
    """The pauses of one row of tries, each about twice as long as the one before."""

    def __init__(self, first_seconds: float, seconds_max: float) -> None:
        """Begin with the first, which is at least so long; none is longer than the maximum."""
        self._first_seconds = first_seconds
        self._next_seconds = first_seconds
        self.seconds_max = seconds_max

    def next(self, asked_seconds: float = 0.0) -> float:
        """Return the length of the next one in seconds, not below what the server asked for."""
        # Twice of half the maximum: also the longest are spread.
        grown = min(self._next_seconds, self.seconds_max / 2)
        least = max(grown, min(asked_seconds, self.seconds_max))
        self._next_seconds = grown * 2
        return random.uniform(least, min(least * 2, self.seconds_max))

    def reset(self) -> None:
        """Begin anew: a try went well."""
        self._next_seconds = self._first_seconds


def retry_after(headers: Optional[Mapping[str, str]]) -> float:
    """Return for how many seconds an answer asks to wait: 0 if it does not, or not clearly."""
    text = (headers or {}).get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=timezone.utc)
    return max(0.0, (until - datetime.now(timezone.utc)).total_seconds())
