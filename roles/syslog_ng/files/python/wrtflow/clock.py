"""The collector's time: steady for ages and orders, and the wall clock for documents."""

from __future__ import annotations

import time


class Clock:
    """Milliseconds since 1970 by two clocks. A step of the wall clock does not touch the steady one."""

    def __init__(self) -> None:
        """Start the steady clock at the time of the wall clock."""
        self._offset = self.wall() - time.monotonic_ns() // 1_000_000

    def now(self) -> int:
        """Return the steady time: the wall clock's of this clock's start, carried on by the monotonic clock."""
        return self._offset + time.monotonic_ns() // 1_000_000

    def wall(self) -> int:
        """Return the wall clock's time."""
        return time.time_ns() // 1_000_000
