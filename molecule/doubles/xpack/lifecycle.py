"""The lifecycle API, and the settings that tie indices to policies. Nothing executes a policy here.

The core knows no lifecycles: their settings are taken out of what it gets, kept here and put back into what it shows.
"""

import json
import time
from fnmatch import fnmatchcase
from typing import Any

from . import policies
from .answers import Answer, RefusedError, answer, bad_request
from .core import Core
from .request import Request
from .store import Store

OK, MULTIPLE = 200, 300


class Lifecycle:
    """Policies, and who follows which: ``template:NAME`` and ``index:NAME`` in the store's lifecycles."""

    def __init__(self, core: Core, store: Store) -> None:
        """Take the parts."""
        self._core, self._store = core, store

    def policy_api(self, request: Request, parts: list[str]) -> Answer:
        """Answer ``/_ilm/…``."""
        kept = self._store["policies"]
        match request.method, parts:
            case "GET", ["policy"]:
                return answer({name: self._shown(name) for name in kept})
            case "PUT", ["policy", name]:
                policy = policies.check(request.json())
                self._check_snapshots(policy)
                self._keep(name, policy)
                return answer({"acknowledged": True})
            case _, ["policy", name] if name not in kept:
                raise RefusedError(404, "resource_not_found_exception", f"Lifecycle policy not found: {name}")
            case "GET", ["policy", name]:
                return answer({name: self._shown(name)})
            case "DELETE", ["policy", name]:
                if users := self._shown(name)["in_use_by"]["indices"]:
                    raise bad_request(
                        f"Cannot delete policy [{name}]. It is in use by one or more indices: {users}"
                    )
                self._store.put("policies", name, None)
                return answer({"acknowledged": True})
        raise bad_request(f"no handler found for uri [{request.path}] and method [{request.method}]")

    def _check_snapshots(self, policy: dict[str, Any]) -> None:
        waiting = policy["phases"].get("delete", {}).get("actions", {}).get("wait_for_snapshot")
        if waiting and waiting["policy"] not in self._store["snapshot_policies"]:
            raise bad_request(f"no such snapshot lifecycle policy [{waiting['policy']}]")

    def _keep(self, name: str, policy: dict[str, Any]) -> None:
        known = self._store["policies"].get(name, {"version": 0, "policy": None})
        if known["policy"] != policy:
            date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
            kept = {"version": known["version"] + 1, "modified_date": date, "policy": policy}
            self._store.put("policies", name, kept)

    def _shown(self, name: str) -> dict[str, Any]:
        owners = self._store["lifecycles"]
        templates = [
            o.removeprefix("template:")
            for o, s in owners.items()
            if s.get("name") == name and o.startswith("template:")
        ]
        _, indices = self._core.json("GET", "/*/_settings", "filter_path=*.settings.index.creation_date")
        used = [index for index in indices if self._lifecycle_of(index).get("name") == name]
        in_use_by = {"indices": used, "data_streams": [], "composable_templates": templates}
        return {**self._store["policies"][name], "in_use_by": in_use_by}

    def _lifecycle_of(self, index: str) -> dict[str, str]:
        """Return the lifecycle settings of an index: its own, else those of the template that fits it now."""
        own = self._store["lifecycles"].get(f"index:{index}")
        if own is not None:
            return dict(own)
        _, found = self._core.json("GET", "/_index_template")
        fitting = [
            (entry["index_template"].get("priority", 0), entry["name"])
            for entry in found["index_templates"]
            if any(fnmatchcase(index, pattern) for pattern in entry["index_template"]["index_patterns"])
        ]
        return dict(self._store["lifecycles"].get(f"template:{max(fitting)[1]}", {})) if fitting else {}

    def explain(self, expression: str) -> Answer:
        """Answer ``/INDEX/_ilm/explain``."""
        status, found = self._core.json("GET", f"/{expression}/_settings")
        if status != OK:
            return answer(found, status)
        indices = {}
        for index, about in found.items():
            settings = self._lifecycle_of(index)
            created = int(about["settings"]["index"]["creation_date"])
            begin = int(settings.get("origination_date", created))
            managed = {
                "managed": True,
                "policy": settings.get("name"),
                "index_creation_date_millis": created,
                "time_since_index_creation": f"{(time.time() - created / 1000) / 86400:.2f}d",
                "lifecycle_date_millis": begin,
                "age": f"{(time.time() - begin / 1000) / 86400:.2f}d",
                "phase": "hot",
                "action": "complete",
                "step": "complete",
            }
            indices[index] = {"index": index, **(managed if settings.get("name") else {"managed": False})}
        return answer({"indices": indices})

    def template(self, request: Request, name: str) -> Answer:
        """Answer ``/_index_template/NAME``."""
        if request.method in ("PUT", "POST"):
            body = request.json() or {}
            template = body.get("template") or {}
            kept, taken = policies.take_out(template.get("settings") or {})
            if taken:
                body = {**body, "template": {**template, "settings": kept}}
            given = request.forward(self._core, body=json.dumps(body).encode())
            if given.status < MULTIPLE:
                self._store.put("lifecycles", f"template:{name}", taken or None)
            return given
        given = request.forward_readably(self._core)
        if request.method == "DELETE" and given.status < MULTIPLE:
            self._store.put("lifecycles", f"template:{name}", None)
        if request.method != "GET" or given.status != OK:
            return given
        body = json.loads(given.body)
        for entry in body.get("index_templates", []):
            if followed := self._store["lifecycles"].get(f"template:{entry['name']}"):
                template = entry["index_template"].setdefault("template", {})
                _put_back(template.setdefault("settings", {}), followed)
        return answer(body)

    def settings(self, request: Request, path: str, expression: str) -> Answer:
        """Answer ``/INDEX/_settings``."""
        if request.method == "GET":
            given = request.forward_readably(self._core, path)
            if given.status != OK:
                return given
            body = json.loads(given.body)
            for index, about in body.items():
                _put_back(about["settings"], self._lifecycle_of(index))
            return answer(body)
        kept, taken = policies.take_out(request.json() or {})
        if not taken:
            return request.forward(self._core, path)
        _, found = self._core.json("GET", f"/{expression}/_settings")
        for index in found:
            self._store.put("lifecycles", f"index:{index}", {**self._lifecycle_of(index), **taken})
        if not any(
            (isinstance(value, dict) and value) or not isinstance(value, dict) for value in kept.values()
        ):
            return answer({"acknowledged": True})
        return request.forward(self._core, path, body=json.dumps(kept).encode())

    def delete(self, request: Request, path: str) -> Answer:
        """Delete indices, and their lifecycle settings."""
        given = request.forward(self._core, path)
        if given.status < MULTIPLE:
            for name in list(self._store["lifecycles"]):
                if any(fnmatchcase(name, f"index:{part}") for part in path.strip("/").split(",")):
                    self._store.put("lifecycles", name, None)
        return given

    def create(self, request: Request, index: str) -> Answer:
        """Create an index."""
        body = request.json() or {}
        kept, taken = policies.take_out(body.get("settings") or {})
        if not taken:
            return request.forward(self._core)
        given = request.forward(self._core, body=json.dumps({**body, "settings": kept}).encode())
        if given.status < MULTIPLE:
            self._store.put("lifecycles", f"index:{index}", taken)
        return given


def _put_back(settings: dict[str, Any], taken: dict[str, str]) -> None:
    """Show lifecycle settings among an index's others, in the form (nested or flat) that those have."""
    if not taken:
        return
    if any(key.startswith("index.") for key in settings):
        settings.update({f"index.lifecycle.{name}": value for name, value in taken.items()})
    else:
        settings.setdefault("index", {})["lifecycle"] = dict(taken)
