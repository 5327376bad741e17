"""A request to Elasticsearch's REST API."""

import json
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from .answers import Answer, bad_request
from .core import Core

FORWARDED = ("content-type", "accept", "accept-encoding", "x-opaque-id")


class Request:
    """A request, read whole."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        """Take it apart."""
        self.method, self.headers, self.body = method, headers, body
        split = urlsplit(target)
        self.path = unquote(split.path)
        self.query = dict(parse_qsl(split.query, keep_blank_values=True))

    def json(self) -> Any:
        """Return the body, None if it is empty."""
        if not self.body.strip():
            return None
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise bad_request(
                f"request body is not valid JSON: {error}", "x_content_parse_exception"
            ) from None

    def forward(self, core: Core, path: str | None = None, body: bytes | None = None) -> Answer:
        """Pass the request on, with another path or body if given."""
        return self._ask(core, path or self.path, body, self.query, FORWARDED)

    def forward_readably(self, core: Core, path: str | None = None, body: bytes | None = None) -> Answer:
        """Pass the request on so that the answer comes whole and can be read here."""
        query = {name: value for name, value in self.query.items() if name != "filter_path"}
        return self._ask(core, path or self.path, body, query, ("content-type",))

    def _ask(
        self, core: Core, path: str, body: bytes | None, query: dict[str, str], forwarded: tuple[str, ...]
    ) -> Answer:
        headers = {name: value for name, value in self.headers.items() if name in forwarded}
        target = quote(path, safe="/*,-_.:") + (f"?{urlencode(query)}" if query else "")
        return core.ask(self.method, target, self.body if body is None else body, headers)
