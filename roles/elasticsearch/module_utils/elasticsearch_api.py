"""Elasticsearch's API for the role's modules, with Python's standard library only."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

# The arguments of every module of the role. A key overrides username and password.
CONNECTION: dict[str, dict[str, Any]] = {
    "url": {"type": "str", "required": True},
    "ca_path": {"type": "path", "required": True},
    "username": {"type": "str", "default": "elastic"},
    "password": {"type": "str", "no_log": True},
    "key": {"type": "str", "no_log": True, "default": ""},
}
UNAUTHORIZED, MISSING, UNAVAILABLE = 401, 404, 503

# Seconds to wait while Elasticsearch answers 503: a node that has just started answers before it has opened all
# indices.
PATIENCE = 60


class ElasticsearchError(Exception):
    """Elasticsearch refused a request. The message is for people."""


class UnreachableError(ElasticsearchError):
    """Elasticsearch does not answer. In a dry run it may not be installed yet."""


def basic(username: str, password: str) -> str:
    """Return an Authorization header for a user."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class Elasticsearch:
    """One server, with one login."""

    def __init__(self, url: str, ca_path: str, authorization: str) -> None:
        """Trust the authority in ``ca_path`` and no other."""
        self._url = url.rstrip("/")
        self._ca_path = ca_path
        self._authorization = authorization

    def ask(
        self, method: str, path: str, body: Any = None, authorization: str | None = None
    ) -> tuple[int, Any]:
        """Return the status and the parsed answer. Raise UnreachableError if there is none."""
        end = time.monotonic() + PATIENCE
        while (given := self._ask(method, path, body, authorization))[0] == UNAVAILABLE:
            if time.monotonic() > end:
                break
            time.sleep(1)
        return given

    def _ask(self, method: str, path: str, body: Any, authorization: str | None) -> tuple[int, Any]:
        request = urllib.request.Request(
            self._url + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": authorization or self._authorization, "Content-Type": "application/json"},
            method=method,
        )
        try:
            context = ssl.create_default_context(cafile=self._ca_path)
            with urllib.request.urlopen(request, timeout=30, context=context) as response:
                return response.status, _parsed(response.read())
        except urllib.error.HTTPError as error:
            return error.code, _parsed(error.read())
        except OSError as error:
            raise UnreachableError(f"Elasticsearch does not answer at {self._url}: {error}") from error

    def must(self, method: str, path: str, body: Any = None) -> Any:
        """Return the parsed answer. Raise ElasticsearchError if Elasticsearch refuses the request."""
        status, answer = self.ask(method, path, body)
        if status >= 300:
            raise ElasticsearchError(f"Elasticsearch refused {method} {path} with {status}: {reason(answer)}")
        return answer

    def accepts(self, authorization: str, patience: int = 0) -> bool:
        """Tell whether a credential is valid; try a refused one again for `patience` seconds.

        Raise ElasticsearchError if the answer is neither 200 nor 401.
        """
        end = time.monotonic() + patience
        while True:
            status, answer = self.ask("GET", "/_security/_authenticate", authorization=authorization)
            if status != UNAUTHORIZED or time.monotonic() >= end:
                break
            time.sleep(1)
        if status in (200, UNAUTHORIZED):
            return status == 200
        raise ElasticsearchError(
            f"Elasticsearch answered {status} to GET /_security/_authenticate: {reason(answer)}"
        )


def connect(params: dict[str, Any]) -> Elasticsearch:
    """Return the server that a module's arguments (CONNECTION) name."""
    user = basic(params["username"], params["password"] or "")
    return Elasticsearch(
        params["url"], params["ca_path"], f"ApiKey {params['key']}" if params["key"] else user
    )


def conclude(module: Any, ensure: Callable[[Elasticsearch], dict[str, Any]]) -> None:
    """End a module with ensure's result, or with the message of an ElasticsearchError."""
    try:
        module.exit_json(**ensure(connect(module.params)))
    except ElasticsearchError as error:
        module.fail_json(msg=str(error))


def reason(answer: Any) -> str:
    """Return the reason in Elasticsearch's answer to a refused request."""
    try:
        return str(answer["error"]["reason"])
    except (KeyError, TypeError):
        return str(answer)[:500]


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else {}
    except ValueError:
        return body.decode(errors="replace")
