"""Helpers of the tests of names: a clock that the test sets, a state file, and a way to wait."""

import time
from collections.abc import Callable
from pathlib import Path

from wrtflow.clock import Clock
from wrtflow.state import State

NOW = 1_700_000_000_000
SECOND, HOUR, DAY = 1000, 3_600_000, 86_400_000


class SetClock(Clock):
    """Stands at a time that the test sets, in ms."""

    def __init__(self, time: int = NOW) -> None:
        self.time = time

    def now(self) -> int:
        return self.time

    def wall(self) -> int:
        return self.time


def state(directory: Path | None = None) -> State:
    """Return a state; one that is not to be opened needs no directory."""
    return State((directory or Path("/nonexistent")) / "state.sqlite")


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true; fail after 10 s."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)
