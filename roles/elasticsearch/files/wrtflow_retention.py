#!/usr/bin/python3
"""Keep the flows within their size, and count each month's age from the first of that month.

    wrtflow-retention [--settings FILE]

For every index PREFIX-YYYY.MM, set index.lifecycle.origination_date to the first of its month. Without that,
Elasticsearch counts an index's age from its creation, and a month that was restored, copied or begun by a late flow
would be too young.

Then, while the flows take more than elasticsearch_max_size, drop the oldest closed month (in UTC, as the indices'
names). Never drop the current month. If snapshots are taken, drop a month only if a complete snapshot began after the
month was over. Print one line for each change. Exit with 1, and the reason on standard error, if the flows take too
much and no month can be dropped, or if Elasticsearch does not answer.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SETTINGS = "/etc/wrtflow/retention.json"
UNITS = {"b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}

# Seconds to wait for an answer of Elasticsearch.
PATIENCE = 60


class RetentionError(Exception):
    """A run can't do its work. The message is for people."""


class Storage:
    """The indices PREFIX-YYYY.MM, reached with the retention's own key."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Take url, prefix, ca and key from the settings."""
        self._url, self._prefix = settings["url"].rstrip("/"), settings["prefix"]
        self._context = ssl.create_default_context(cafile=settings["ca"])
        self._headers = {"Authorization": f"ApiKey {settings['key']}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the parsed answer. Raise RetentionError if Elasticsearch refuses the request or does not answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE, context=self._context) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            words = error.read().decode(errors="replace")[:500]
            raise RetentionError(
                f"Elasticsearch refused {method} {path} with {error.code}: {words}"
            ) from error
        except (OSError, ValueError) as error:
            raise RetentionError(f"Elasticsearch does not answer at {self._url}: {error}") from error

    def sizes(self) -> dict[str, int]:
        """Return each month's bytes, oldest first.

        Add up segments, not files: a month that is being merged is on the disk twice for a while.
        """
        found = self.ask("GET", f"/{self._prefix}-*/_segments?ignore_unavailable=true").get("indices", {})
        return {
            index: sum(
                segment["size_in_bytes"]
                for copies in about["shards"].values()
                for copy in copies
                for segment in copy["segments"].values()
            )
            for index, about in sorted(found.items())
            if month_of(index, self._prefix)
        }

    def dates(self) -> dict[str, str | None]:
        """Return each month's origination date (ms since 1970, as text); None if it has none."""
        name = "index.lifecycle.origination_date"
        found = self.ask("GET", f"/{self._prefix}-*/_settings?flat_settings=true")
        return {
            index: about["settings"].get(name)
            for index, about in sorted(found.items())
            if month_of(index, self._prefix)
        }

    def date(self, index: str, begin: int) -> None:
        """Set a month's origination date, in ms since 1970."""
        self.ask("PUT", f"/{index}/_settings", {"index.lifecycle.origination_date": begin})

    def saved(self, repository: str) -> dict[str, int]:
        """Return when the last complete snapshot of each index began, in ms since 1970."""
        found = self.ask("GET", f"/_snapshot/{repository}/*?index_names=true&ignore_unavailable=true")
        begins: dict[str, int] = {}
        for snapshot in found["snapshots"]:
            if snapshot["state"] == "SUCCESS":
                for index in snapshot["indices"]:
                    begins[index] = max(begins.get(index, 0), snapshot["start_time_in_millis"])
        return begins

    def drop(self, index: str) -> None:
        """Delete a month."""
        self.ask("DELETE", f"/{index}")


def month_of(index: str, prefix: str) -> str | None:
    """Return the month (YYYY.MM) in an index's name, None if the name has another form."""
    found = re.fullmatch(re.escape(prefix) + r"-(\d{4}\.(?:0[1-9]|1[0-2]))", index)
    return found[1] if found else None


def first_of(month: str) -> int:
    """Return when a month (YYYY.MM) begins, in ms since 1970."""
    begin = datetime.datetime.strptime(month, "%Y.%m").replace(tzinfo=datetime.UTC)
    return int(begin.timestamp()) * 1000


def end_of(month: str) -> int:
    """Return when a month (YYYY.MM) is over, in ms since 1970."""
    year, number = map(int, month.split("."))
    return first_of(f"{year + number // 12}.{number % 12 + 1:02}")


def allowed(max_size: str, directory: str) -> int | None:
    """Return the limit in bytes, from a size or a share of directory's disk. None: no limit."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(b|kb|mb|gb|tb|%)?", max_size.strip().lower())
    if not found or (not found[2] and float(found[1])):
        raise RetentionError(
            f"elasticsearch_max_size is '{max_size}'. Use a size (200gb), a share (75%) or 0."
        )
    number = float(found[1])
    if not number:
        return None
    if found[2] == "%":
        try:
            return int(shutil.disk_usage(directory).total * number / 100)
        except OSError as error:
            raise RetentionError(f"The size of {directory}'s disk can't be read: {error}") from error
    return int(number * UNITS[found[2]])


def size(count: int) -> str:
    """Return a number of bytes as text, in the units of elasticsearch_max_size."""
    unit = max((unit for unit, factor in UNITS.items() if factor <= max(count, 1)), key=UNITS.__getitem__)
    return f"{count / UNITS[unit]:.1f}{unit}"


def surplus(sizes: dict[str, int], limit: int, current: str) -> list[str]:
    """Return the indices to drop, oldest first: as few as bring the flows below the limit.

    current (an index's name) and later indices are never among them.
    """
    total, going = sum(sizes.values()), []
    for index in sorted(sizes):
        if total <= limit or index >= current:
            break
        going.append(index)
        total -= sizes[index]
    return going


def keep(storage: Storage, settings: dict[str, Any], now: float) -> Iterator[str]:
    """Set origination dates, drop months above the limit, and yield a line for each change. now: seconds since 1970."""
    prefix = settings["prefix"]
    for index, date in storage.dates().items():
        month = month_of(index, prefix)
        assert month
        if date != str(first_of(month)):
            storage.date(index, first_of(month))
            yield f"{index}: its age counts from the first of its month"
    limit = allowed(settings["max_size"], settings["data_directory"])
    if limit is None:
        return
    sizes = storage.sizes()
    current = f"{prefix}-{time.strftime('%Y.%m', time.gmtime(now))}"
    going = surplus(sizes, limit, current)
    saved = storage.saved(settings["repository"]) if going and settings["repository"] else None
    for index in going:
        total = sum(sizes.values())
        month = month_of(index, prefix)
        assert month
        if saved is not None and saved.get(index, 0) < end_of(month):
            raise RetentionError(
                f"The flows take {size(total)} and may take {size(limit)}. {index} would be dropped, but no snapshot in"
                f" {settings['repository']} has the whole month yet."
            )
        storage.drop(index)
        yield (
            f"{index}: dropped, {size(sizes.pop(index))}. The flows took {size(total)},"
            f" and elasticsearch_max_size is {settings['max_size']} ({size(limit)})"
        )
    if (total := sum(sizes.values())) > limit:
        raise RetentionError(
            f"The flows take {size(total)} and may take {size(limit)}, and no closed month is left to drop."
            " Give elasticsearch_max_size more, or the machine a bigger disk."
        )


def main() -> None:
    """Run once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", default=SETTINGS, help=f"default: {SETTINGS}")
    settings = json.loads(Path(parser.parse_args().settings).read_text())
    try:
        for line in keep(Storage(settings), settings, time.time()):
            print(line, flush=True)
    except RetentionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
