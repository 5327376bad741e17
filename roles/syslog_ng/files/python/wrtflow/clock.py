"""The collector's time: steady for ages and orders, and the wall clock for documents."""

from __future__ import annotations

import time

from wrtflow.state import State, Table

# ms that the wall clock may be beside the steady one.
_STEP = 50
# ms between two notes of the clocks on disk, and a step of the wall clock that is noted at once.
_NOTE = 60_000
_NOTED_STEP = 1_000
# ms without a collector, at most. Where the wall clock says more, it was set meanwhile.
_AWAY = 30 * 86_400_000


class Clock:
    """Milliseconds since 1970 by two clocks. A step of the wall clock does not touch the steady one.

    The steady clock goes on over a restart: times on disk stay times of the same clock.
    """

    _ahead = 0
    _noted = (0, 0)  # both clocks, steady and wall
    _table: Table[str]

    def __init__(self) -> None:
        """Start the steady clock at the time of the wall clock."""
        self._offset = time.time_ns() - time.monotonic_ns()

    def keep(self, state: State) -> None:
        """Have the clocks noted in a state. Before State.open()."""
        self._table = state.table("clock", lambda: [("clock", self._noted)])

    def load(self) -> int:
        """Go on from where an earlier process ended. Returns the ms since its last note, as far as they are known."""
        for steady, wall in self._table.load(lambda _, row: (int(row[0]), int(row[1]))):
            away = self.wall() - wall
            if not 0 <= away <= _AWAY:
                # The last note may be so old: this clock never goes back.
                away = _NOTE
            # Within what both clocks can be: a damaged note must not end all flows.
            if 0 <= steady < 1 << 42:
                self._set(steady + away)
                return away
        return 0

    def note(self) -> None:
        """Note the clocks on disk now and then."""
        now, wall = self.now(), self.wall()
        steady, noted = self._noted
        if now - steady >= _NOTE or abs((wall - now) - (noted - steady)) >= _NOTED_STEP:
            self._noted = now, wall
            self._table.put("clock", self._noted)

    def _set(self, milliseconds: int) -> None:
        self._offset += (milliseconds - self.now()) * 1_000_000

    def now(self) -> int:
        """Return the steady time: the wall clock's of this clock's start, carried on by the monotonic clock."""
        return (self._offset + time.monotonic_ns()) // 1_000_000

    def wall(self) -> int:
        """Return the wall clock's time."""
        return time.time_ns() // 1_000_000

    def ahead(self) -> int:
        """Return how far the wall clock is ahead of the steady one, to _STEP ms: two moments keep their distance."""
        ahead = self.wall() - self.now()
        if abs(ahead - self._ahead) >= _STEP:
            self._ahead = ahead
        return self._ahead
