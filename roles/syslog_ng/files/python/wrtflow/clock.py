"""The collector's time: steady for ages and orders, and the wall clock for documents."""

from __future__ import annotations

import time

# ms that the wall clock may be beside the steady one.
_STEP = 50


class Clock:
    """Milliseconds since 1970 by two clocks. A step of the wall clock does not touch the steady one."""

    _ahead = 0

    def __init__(self) -> None:
        """Start the steady clock at the time of the wall clock."""
        self._offset = time.time_ns() - time.monotonic_ns()

    def now(self) -> int:
        """Return the steady time: the wall clock's of this clock's start, carried on by the monotonic clock."""
        return (self._offset + time.monotonic_ns()) // 1_000_000

    def wall(self) -> int:
        """Return the wall clock's time."""
        return time.time_ns() // 1_000_000

    def ahead(self) -> int:
        """Return how far the wall clock is ahead of the steady one, to _STEP ms.

        Not to the millisecond: two moments keep their distance in documents.
        """
        ahead = self.wall() - self.now()
        if abs(ahead - self._ahead) >= _STEP:
            self._ahead = ahead
        return self._ahead
