"""Answers in Elasticsearch's shape."""

import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)


class RefusedError(Exception):
    """Ends a request with an error in Elasticsearch's shape."""

    def __init__(self, status: int, kind: str, reason: str, header: dict[str, Any] | None = None) -> None:
        """Take status, type and reason of the error, and headers for the answer."""
        super().__init__(reason)
        self.status = status
        self.error: dict[str, Any] = {"type": kind, "reason": reason}
        if header:
            self.error["header"] = header

    def answer(self) -> Answer:
        """Return the error as a whole answer."""
        body = {"error": {"root_cause": [self.error], **self.error}, "status": self.status}
        headers = self.error.get("header", {})
        return answer(body, self.status, [(name, value) for name in headers for value in headers[name]])


def answer(body: Any, status: int = 200, headers: list[tuple[str, str]] | None = None) -> Answer:
    """Return a JSON answer of the double's own."""
    return Answer(
        status,
        json.dumps(body, separators=(",", ":")).encode(),
        [
            ("X-elastic-product", "Elasticsearch"),
            ("Content-Type", "application/json"),
            *(headers or []),
        ],
    )


def filtered(body: Any, filter_path: str | None) -> Any:
    """Return what ``filter_path`` leaves of an answer: dotted paths, ``*`` for one step, ``**`` for any number."""
    if not filter_path:
        return body

    def keep(value: Any, paths: list[list[str]]) -> Any:
        if any(not path or path == ["**"] for path in paths):
            return value
        if isinstance(value, list):
            kept_items = [keep(item, paths) for item in value]
            return [item for item in kept_items if item is not None] or None
        if not isinstance(value, dict):
            return None
        kept = {}
        for key, item in value.items():
            below = [path[1:] for path in paths if fnmatchcase(key, path[0])]
            below += [path for path in paths if path[0] == "**"]
            below += [
                path[2:] for path in paths if path[0] == "**" and len(path) > 1 and fnmatchcase(key, path[1])
            ]
            if below and (part := keep(item, below)) is not None:
                kept[key] = part
        return kept or None

    return keep(body, [path.split(".") for path in filter_path.split(",")]) or {}


def bad_request(reason: str, kind: str = "illegal_argument_exception") -> RefusedError:
    """Return a 400."""
    return RefusedError(400, kind, reason)
