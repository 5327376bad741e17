"""unparsed.log: the lines that could not be trusted, with the reason. Two files of a given size, whatever comes in."""

from __future__ import annotations

import logging
import logging.handlers
import time
from pathlib import Path

# Of each line; enough to see what it is.
_LONGEST = 1000


class Unparsed:
    """The log. Nothing is raised from it: a full disk must not stop the flows."""

    def __init__(self, file: Path, size: int) -> None:
        """Open the file at the first line; size is in bytes, of the file and of the one before it."""
        # Not through syslog-ng's file(): this one can't rotate by itself, and a flood would fill the disk by the hour.
        self._handler = logging.handlers.RotatingFileHandler(
            file, maxBytes=size, backupCount=1, encoding="ascii", delay=True
        )
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self._handler.setFormatter(formatter)
        self._handler.handleError = lambda record: None  # type: ignore[method-assign]

    def write(self, sender: str, reason: str, line: str) -> None:
        """Log a line; what is not printable ASCII is escaped."""
        shown = line[:_LONGEST].encode("unicode_escape").decode("ascii")
        rest = f" ... {len(line)} characters" if len(line) > _LONGEST else ""
        text = f"{sender} {reason}: {shown}{rest}"
        self._handler.handle(logging.LogRecord("wrtflow", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        self._handler.close()
