#!/usr/bin/env python3
"""Run Molecule scenarios, each until its end even if others fail, and print how each one ended and what failed.

Usage: scenarios.py NAME...

Several scenarios run two at a time, if the machine allows it: one in the first lab, one in a second lab
(tools/second-lab). They begin in the order of the arguments, so the longest ones should come first. The output of
each scenario is in one piece: one scenario's output is shown as it comes, the other's when that one has ended.

Run by tools/lab-env. The exit status is 0 if all scenarios passed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

#: Megabytes of free memory that two labs need.
MEMORY = 5_000

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_REASON = re.compile(r"fatal: |(FAILED|ERROR) .*::| E  ")


def reasons(output: str) -> list[str]:
    """Return the lines that say what failed, at most 40: Ansible's, and pytest's assertions and summary."""
    return [line for line in _COLOUR.sub("", output).splitlines() if _REASON.search(line)][-40:]


@dataclass
class Screen:
    """Standard output, for several writers: the text of each one stays in one piece."""

    _lock: threading.RLock = field(default_factory=threading.RLock)
    _owner: object = None
    _waiting: list[str] = field(default_factory=list)

    def begin(self, writer: object) -> None:
        """Show what this writer writes as it comes, if no other's is shown."""
        with self._lock:
            self._owner = self._owner or writer

    def write(self, writer: object, text: str) -> None:
        """Show the text if this writer's is shown."""
        with self._lock:
            if self._owner is writer:
                print(text, end="", flush=True)

    def end(self, writer: object, whole: str) -> None:
        """Show the whole text of a writer whose text was not shown, as soon as no other's is shown."""
        with self._lock:
            if self._owner is writer:
                self._owner = None
            else:
                self._waiting.append(whole)
            if self._owner is None:
                print("".join(self._waiting), end="", flush=True)
                self._waiting.clear()


@dataclass
class Scenario:
    """One scenario, and what came of it."""

    name: str
    seconds: float = 0.0
    passed: bool = False
    output: str = ""

    def run(self, lab: list[str], screen: Screen) -> None:
        """Run it. lab is what comes before the command that runs in that lab."""
        began = time.monotonic()
        screen.begin(self)
        self._write(f"\n=== scenario {self.name} ===\n", screen)
        running = subprocess.Popen(
            [*lab, "molecule", "test", "--scenario-name", self.name],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
            # Molecule draws a frame around the output: wide enough for a line of pytest's summary.
            env={"COLUMNS": "160", **os.environ},
        )  # fmt: skip
        assert running.stdout is not None
        for line in running.stdout:
            self._write(line, screen)
        self.passed = running.wait() == 0
        self.seconds = time.monotonic() - began
        screen.end(self, self.output)

    def _write(self, text: str, screen: Screen) -> None:
        self.output += text
        screen.write(self, text)

    def summary(self) -> str:
        """Return how it ended, and what failed."""
        ended = f"{self.name:<12} {'passed' if self.passed else 'FAILED'} in {self.seconds:.0f} s"
        return "\n".join([ended] if self.passed else [ended, *reasons(self.output)])


def second_lab() -> list[str]:
    """Make the images, and return what comes before a command in the second lab: nothing if it can't be had."""
    command = [str(PROJECT / "tools/second-lab")]
    free = int(re.findall(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) // 1024
    if os.geteuid() != 0:
        why = "this is not root"
    elif (os.cpu_count() or 1) < 2:
        why = "there is one processor"
    elif free < MEMORY:
        why = f"{free} MB of memory are free, and two labs need {MEMORY} MB"
    elif missing := [name for name in ("unshare", "dockerd", "ip") if not shutil.which(name)]:
        why = f"{' and '.join(missing)} are missing"
    else:
        # If one of them fails, the scenarios that need it say so.
        for makes in ("molecule/images/build.sh", "molecule/geolite/full-size.sh"):
            subprocess.run([PROJECT / makes], stdout=subprocess.DEVNULL, check=False)
        if subprocess.run([*command, "true"], check=False).returncode == 0:
            return command
        why = "the second lab does not start"
    print(f"One scenario at a time: {why}.", flush=True)
    return []


def main(names: list[str]) -> int:
    """Run the scenarios, print the summary, and return the exit status."""
    scenarios = [Scenario(name) for name in names]
    waiting, screen = deque(scenarios), Screen()

    def work(lab: list[str]) -> None:
        while True:
            try:
                scenario = waiting.popleft()
            except IndexError:
                return
            scenario.run(lab, screen)

    labs: list[list[str]] = [[]]
    if len(scenarios) > 1 and (second := second_lab()):
        labs.append(second)
    workers = [threading.Thread(target=work, args=(lab,), daemon=True) for lab in labs]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        # Molecule got it, too, and ends.
        waiting.clear()
        for worker in workers:
            worker.join()
        raise
    failed = [scenario for scenario in scenarios if not scenario.passed]
    print("\n=== scenarios ===", *(scenario.summary() for scenario in scenarios), sep="\n")
    print(f"\n{len(scenarios) - len(failed)} passed, {len(failed)} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
