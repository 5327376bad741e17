"""Run a command with long output, and print one line for each phase of it, with its seconds.

Usage: progress.py COMMAND [ARGUMENT...]

A phase is a play that does something, or the build of an image. The whole output goes to the file
lab.log in the cache. If the command fails, the end of that file is printed. The exit status is the command's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

#: How many lines of the log are shown after a failure.
SHOWN = 60

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PHASE = re.compile(r"\bPLAY \[(?P<play>[^\]]+)\]|^image: building (?P<image>\S+)")
_DONE = re.compile(r"\b(ok|changed|failed|fatal): \[")


def seconds_of_phases(lines: Iterable[str], log: IO[str]) -> Iterator[str]:
    """Copy the lines to the log. Yield each phase's name when it begins, and its seconds when it ends."""
    running, began, begins, play = False, 0.0, 0.0, None
    for line in lines:
        log.write(line)
        log.flush()
        plain = _COLOUR.sub("", line)
        name = None
        if found := _PHASE.search(plain):
            play, begins = found["play"], time.monotonic()
            name = found["image"] and f"Image {found['image']}"
        elif _DONE.search(plain):
            # A play without hosts, or with nothing to do for them, is no phase.
            name = play
        if name:
            if running:
                yield f"{begins - began:4.0f} s\n"
            running, began, play = True, begins, None
            yield f"  {name:<22}"
    if running:
        yield f"{time.monotonic() - began:4.0f} s\n"


def log_file() -> Path:
    """Return the path of the log file; make its folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("WRTFLOW_CACHE") or Path(cache) / "wrtflow")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "lab.log"


def main(command: list[str]) -> int:
    """Run the command and return its exit status."""
    path = log_file()
    print(f"The whole output goes to {path}.", flush=True)
    with path.open("w", encoding="utf-8") as log:
        running = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
        )
        assert running.stdout is not None
        for words in seconds_of_phases(running.stdout, log):
            print(words, end="", flush=True)
        status = running.wait()
    if status:
        lines = _COLOUR.sub("", path.read_text(encoding="utf-8")).splitlines()
        print(f"\n{' '.join(command)} failed. The end of {path}:", *lines[-SHOWN:], sep="\n", file=sys.stderr)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
