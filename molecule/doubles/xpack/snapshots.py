"""Snapshot lifecycle policies (SLM): kept and shown here, executed at once when asked; nothing follows their schedule.

Repositories, snapshots and restoring are the core's own.
"""

import secrets
import time
from typing import Any

from .answers import Answer, RefusedError, answer, bad_request
from .core import Core
from .request import Request
from .store import Store

FIELDS = {"name", "schedule", "repository"}
OK = 200


class Snapshots:
    """The snapshot policies over the store."""

    def __init__(self, core: Core, store: Store) -> None:
        """Take the parts."""
        self._core, self._store = core, store

    def call(self, request: Request, parts: list[str]) -> Answer:
        """Answer ``/_slm/…``."""
        kept = self._store["snapshot_policies"]
        match request.method, parts:
            case "GET", ["policy"]:
                return answer(kept)
            case "PUT", ["policy", name]:
                self._keep(name, request.json())
                return answer({"acknowledged": True})
            case _, ["policy", name, *_] if name not in kept:
                raise RefusedError(
                    404, "resource_not_found_exception", f"no such snapshot lifecycle policies: [{name}]"
                )
            case "GET", ["policy", name]:
                return answer({name: kept[name]})
            case "DELETE", ["policy", name]:
                self._store.put("snapshot_policies", name, None)
                return answer({"acknowledged": True})
            case "POST" | "PUT", ["policy", name, "_execute"]:
                return self._execute(kept[name]["policy"])
        raise bad_request(f"no handler found for uri [{request.path}] and method [{request.method}]")

    def _keep(self, name: str, policy: Any) -> None:
        """Keep a policy, or refuse one that lacks something or whose repository is not there."""
        missing = sorted(FIELDS - set(policy or {}))
        if missing:
            raise bad_request(f"Required [{missing[0]}]", "x_content_parse_exception")
        if self._core.json("GET", f"/_snapshot/{policy['repository']}")[0] != OK:
            raise bad_request(f"no such repository [{policy['repository']}]")
        known = self._store["snapshot_policies"].get(name, {"version": 0})
        self._store.put(
            "snapshot_policies",
            name,
            {
                "version": known["version"] + 1,
                "modified_date_millis": int(time.time() * 1000),
                "policy": policy,
                "next_execution_millis": int(time.time() * 1000) + 86_400_000,
                "stats": {"policy": name, "snapshots_taken": 0, "snapshots_failed": 0},
            },
        )

    def _execute(self, policy: dict[str, Any]) -> Answer:
        """Take a snapshot under a name of its own; return before it is ready, as Elasticsearch does."""
        date = time.strftime("%Y.%m.%d", time.gmtime())
        name = f"{policy['name'].strip('<>').replace('{now/d}', date)}-{secrets.token_hex(11)}"
        status, given = self._core.json(
            "PUT", f"/_snapshot/{policy['repository']}/{name}", "", policy.get("config", {})
        )
        return answer({"snapshot_name": name}) if status == OK else answer(given, status)
