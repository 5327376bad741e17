"""The state that survives a run: one JSON file, replaced as a whole."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from wrtflow_alerts.storage import Json


@dataclass
class Memory:
    """The state. Times are seconds since 1970."""

    since: float | None = None  # all flows that ended before this have been looked at
    heard: Json = field(default_factory=dict)  # the collector's counter of lines (wrtflow_alerts.chain)
    # By fault: rule, device, since, when it was found, when it was over, and the headline of the alert that was sent.
    wrong: dict[str, Json] = field(default_factory=dict)
    known: dict[str, float] = field(
        default_factory=dict
    )  # devices, by name and MAC: when they were seen last
    told: dict[str, float] = field(default_factory=dict)  # reported events, by key: when they were seen last
    queue: list[Json] = field(default_factory=list)  # waiting messages (wrtflow_alerts.post)
    sent: list[float] = field(default_factory=list)  # when messages were sent, within the last hour
    summed: float = 0  # when "more" was sent last
    away: dict[str, str] = field(default_factory=dict)  # receivers that don't take messages, and why
    lost: int = 0  # messages that found no place in the queue


class File:
    """The file that keeps the state."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        self._path = path
        self.damaged = False

    def load(self) -> Memory:
        """Return the state; a new one if the file is missing or damaged. A damaged file is renamed."""
        try:
            read = json.loads(self._path.read_text(encoding="utf-8"))
            memory = Memory(**read)
            for name, value in vars(Memory()).items():
                kinds = type(value) if isinstance(value, (dict, list)) else (int, float, type(value))
                if not isinstance(getattr(memory, name), kinds):
                    raise TypeError(name)
        except FileNotFoundError:
            return Memory()
        except (ValueError, TypeError, RecursionError):
            self.damaged = True
            self._path.replace(self._path.with_name(f"{self._path.name}.damaged"))
            return Memory()
        return memory

    def save(self, memory: Memory) -> None:
        """Replace the file. After a power cut there is the old file or the new one."""
        new = self._path.with_name(f"{self._path.name}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(vars(memory), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


def say(level: int, sentence: str) -> None:
    """Write a sentence to the journal. level: syslog's, from 3 (error) to 5 (notice)."""
    print(f"<{level}>{' '.join(sentence.split())}", flush=True)
