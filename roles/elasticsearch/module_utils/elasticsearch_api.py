"""Speaking with Elasticsearch from the role's modules, with nothing but Python's standard library."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

# The arguments of every module of the role. A key goes before username and password.
CONNECTION: dict[str, dict[str, Any]] = {
    "url": {"type": "str", "required": True},
    "ca_path": {"type": "path", "required": True},
    "username": {"type": "str", "default": "elastic"},
    "password": {"type": "str", "no_log": True},
    "key": {"type": "str", "no_log": True, "default": ""},
}
UNAUTHORIZED, MISSING, UNAVAILABLE = 401, 404, 503

# Seconds that a node which has just started is given: it answers before it has opened all of its indices.
PATIENCE = 60


class ElasticsearchError(Exception):
    """Elasticsearch could not be asked, or refused; the text is for people."""


class UnreachableError(ElasticsearchError):
    """Nobody answers: in a dry run, a server that is still to be installed or started."""


def basic(username: str, password: str) -> str:
    """Return an Authorization header for a user."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class Elasticsearch:
    """One server, asked as one user."""

    def __init__(self, url: str, ca_path: str, authorization: str) -> None:
        """Trust the authority in ``ca_path`` and no other."""
        self._url = url.rstrip("/")
        self._ca_path = ca_path
        self._authorization = authorization

    def ask(
        self, method: str, path: str, body: Any = None, authorization: str | None = None
    ) -> tuple[int, Any]:
        """Return the status and the parsed answer; raise when there is none."""
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
        """Return the parsed answer of a request that has to succeed."""
        status, answer = self.ask(method, path, body)
        if status >= 300:
            raise ElasticsearchError(f"Elasticsearch refused {method} {path} with {status}: {reason(answer)}")
        return answer

    def accepts(self, authorization: str, patience: int = 0) -> bool:
        """Tell whether a credential is valid, a refused one after so many seconds; raise when that can't be known."""
        end = time.monotonic() + patience
        while True:
            status, answer = self.ask("GET", "/_security/_authenticate", authorization=authorization)
            if status != UNAUTHORIZED or time.monotonic() >= end:
                break
            time.sleep(1)
        if status in (200, UNAUTHORIZED):
            return status == 200
        raise ElasticsearchError(
            f"Elasticsearch answered {status} to a question of who we are: {reason(answer)}"
        )


def connect(params: dict[str, Any]) -> Elasticsearch:
    """Return the server that a module's arguments (CONNECTION) name."""
    user = basic(params["username"], params["password"] or "")
    return Elasticsearch(
        params["url"], params["ca_path"], f"ApiKey {params['key']}" if params["key"] else user
    )


def conclude(module: Any, ensure: Callable[[Elasticsearch], dict[str, Any]]) -> None:
    """End a module with what ensure returns, or with Elasticsearch's words where it refuses."""
    try:
        module.exit_json(**ensure(connect(module.params)))
    except ElasticsearchError as error:
        module.fail_json(msg=str(error))


def reason(answer: Any) -> str:
    """Return Elasticsearch's own words for a refusal."""
    try:
        return str(answer["error"]["reason"])
    except (KeyError, TypeError):
        return str(answer)[:500]


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else {}
    except ValueError:
        return body.decode(errors="replace")
