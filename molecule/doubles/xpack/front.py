"""The REST API: authorizes every request, answers those for X-Pack, and passes the rest to the core."""

import json
import traceback
from typing import Any
from urllib.parse import quote

from . import VERSION
from .actions import Wanted, wanted
from .answers import Answer, RefusedError, answer, bad_request, filtered
from .authentication import Authentication
from .core import Core
from .lifecycle import Lifecycle
from .privileges import Subject, denied
from .request import Request
from .security import Security
from .snapshots import Snapshots
from .store import Store

BULK_ACTIONS = {
    "create": "indices:data/write/index:op_type/create",
    "index": "indices:data/write/index:op_type/index",
    "update": "indices:data/write/update",
    "delete": "indices:data/write/delete",
}
AUTO_CREATE = "indices:admin/auto_create"
OK = 200


class Front:
    """One node's REST API."""

    def __init__(self, core: Core, store: Store, authentication: Authentication | None) -> None:
        """Take the parts; without security everybody may everything."""
        self._core, self._store, self._authentication = core, store, authentication
        self._security = Security(store, authentication)
        self._lifecycle = Lifecycle(core, store)
        self._snapshots = Snapshots(core, store)

    def handle(self, request: Request) -> Answer:
        """Answer a request."""
        try:
            subject = None
            if self._authentication:
                subject = self._authentication.authenticate(
                    request.headers.get("authorization"), request.path
                )
            return self._dispatch(request, subject)
        except RefusedError as refusal:
            return refusal.answer()
        except Exception:
            traceback.print_exc()
            return RefusedError(500, "exception", "the double failed: see the journal").answer()

    def _dispatch(self, request: Request, subject: Subject | None) -> Answer:
        want = wanted(request.method, request.path)
        path = self._authorize(request, subject, want) if subject else request.path
        parts = [part for part in path.split("/") if part]
        match parts:
            case []:
                return self._main()
            case ["_migration", "deprecations"]:
                return answer(self._store.deprecations())
            case ["_security", *rest] if subject:
                return self._security.call(subject, request.method, rest, request.query, request.json())
            case ["_ilm", *rest]:
                return self._lifecycle.policy_api(request, rest)
            case ["_slm", *rest]:
                return self._snapshots.call(request, rest)
            case [_, "_ilm", "explain"]:
                return self._lifecycle.explain(parts[0])
            case ["_bulk"] | [_, "_bulk"]:
                return self._bulk(request, subject, parts[0] if len(parts) > 1 else None)
            case ["_index_template", name] if not name.startswith("_"):
                return self._lifecycle.template(request, name)
            case ["_index_template"] if request.method == "GET":
                return self._lifecycle.template(request, "*")
            case [index, "_settings"]:
                return self._lifecycle.settings(request, path, index)
            case [index] if request.method == "PUT" and not index.startswith("_"):
                return self._lifecycle.create(request, index)
            case [index] if request.method == "DELETE" and not index.startswith("_"):
                return self._lifecycle.delete(request, path)
        return request.forward(self._core, path)

    # Authorization

    def _authorize(self, request: Request, subject: Subject, want: Wanted | None) -> str:
        """Refuse a request without the privilege; return the path, narrowed to the granted indices."""
        if want is None:
            if not subject.may("cluster:admin/unknown") or not subject.may_on("indices:admin/unknown", "*"):
                raise denied(subject, f"cluster:admin/unknown[{request.method} {request.path}]", None)
            return request.path
        action = want.action
        if action.endswith("op_type/index") and request.query.get("op_type") == "create":
            action = BULK_ACTIONS["create"]
        if (
            action.endswith("user/change_password")
            and f"/{subject.name}/" in request.path
            and not subject.api_key
        ):
            return request.path
        if not want.about_indices:
            if action and not subject.may(action):
                raise denied(subject, action, None)
            return request.path
        if not subject.may_somewhere(action):
            raise denied(subject, action, want.indices)
        if action == "indices:data/write/bulk":
            return request.path
        if action.startswith("indices:data/write/index") and want.indices:
            self._authorize_auto_create(subject, want.indices[0])
        return self._narrow(request, subject, action, want)

    def _narrow(self, request: Request, subject: Subject, action: str, want: Wanted) -> str:
        kept = self._granted(subject, action, want.indices or ["*"])
        if kept is None:
            return request.path
        expression = ",".join(kept) or "*,-*"
        if want.span:
            return request.path[: want.span[0]] + expression + request.path[want.span[1] :]
        return f"/{expression}{request.path}"

    def _granted(self, subject: Subject, action: str, expressions: list[str]) -> list[str] | None:
        """Return the granted part of index expressions; None when that is all of them. A refused name is a 403."""
        refused = [e for e in expressions if "*" not in e and not subject.may_on(action, e)]
        if refused:
            raise denied(subject, action, refused)
        if all(e.startswith("-") or subject.may_on(action, e) for e in expressions):
            return None
        kept = []
        for expression in expressions:
            if expression.startswith("-") or subject.may_on(action, expression):
                kept.append(expression)
            else:
                _, found = self._core.json("GET", f"/_resolve/index/{expression}")
                names = [entry["name"] for entry in found.get("indices", [])]
                kept += [name for name in names if subject.may_on(action, name)]
        return kept

    def _authorize_auto_create(self, subject: Subject, index: str) -> None:
        if not subject.may_on(AUTO_CREATE, index) and self._core.ask("HEAD", "/" + quote(index)).status != OK:
            raise denied(subject, AUTO_CREATE, [index])

    # What the core does not have

    def _main(self) -> Answer:
        _, state = self._core.json("GET", "/_cluster/state/nodes")
        node = next(iter(state["nodes"].values()), {"name": ""})
        return answer(
            {
                "name": node["name"],
                "cluster_name": state["cluster_name"],
                "cluster_uuid": state["cluster_uuid"],
                "version": {
                    "number": VERSION,
                    "build_flavor": "default",
                    "build_type": "deb",
                    "build_hash": "unknown",
                    "build_date": "2025-10-21T00:00:00.000000000Z",
                    "build_snapshot": False,
                    "lucene_version": "10.3.1",
                    "minimum_wire_compatibility_version": "8.19.0",
                    "minimum_index_compatibility_version": "8.0.0",
                },
                "tagline": "You Know, for Search",
            }
        )

    def _bulk(self, request: Request, subject: Subject | None, default: str | None) -> Answer:
        """Pass on the actions that are granted; the others get a 403 each, inside the answer's 200."""
        if subject is None or subject.may_on("indices:anything", "*"):
            return request.forward(self._core)
        if not request.body.endswith(b"\n"):
            raise bad_request("The bulk request must be terminated by a newline [\\n]")
        verdicts: dict[tuple[str, str], RefusedError | None] = {}
        granted: list[bytes] = []
        refused: list[tuple[int, dict[str, Any]]] = []
        count = 0
        lines = iter(request.body.split(b"\n"))
        for line in lines:
            if not line.strip():
                continue
            operation, about, index = _bulk_action(line, default)
            source = [] if operation == "delete" else [next(lines, b"")]
            kind = "create" if about.get("op_type") == "create" else operation
            if (kind, index) not in verdicts:
                verdicts[kind, index] = self._bulk_verdict(subject, kind, index)
            if refusal := verdicts[kind, index]:
                about = {"_index": index, "_id": about.get("_id"), "status": 403, "error": refusal.error}
                refused.append((count, {operation: about}))
            else:
                granted += [line, *source]
            count += 1
        if not refused:
            return request.forward(self._core)
        result: dict[str, Any] = {"took": 0, "items": []}
        if granted:
            given = request.forward_readably(self._core, body=b"\n".join([*granted, b""]))
            if given.status != OK:
                return given
            result = json.loads(given.body)
        for position, item in refused:
            result["items"].insert(position, item)
        return answer(filtered({**result, "errors": True}, request.query.get("filter_path")))

    def _bulk_verdict(self, subject: Subject, kind: str, index: str) -> RefusedError | None:
        try:
            if not subject.may_on(BULK_ACTIONS[kind], index):
                raise denied(subject, BULK_ACTIONS[kind], [index])
            if kind != "delete":
                self._authorize_auto_create(subject, index)
        except RefusedError as refusal:
            return refusal
        return None


def _bulk_action(line: bytes, default: str | None) -> tuple[str, dict[str, Any], str]:
    """Return operation, metadata and index of a bulk action line."""
    try:
        ((operation, about),) = json.loads(line).items()
        index = about.get("_index") or default
        if operation in BULK_ACTIONS and index:
            return operation, about, index
    except (ValueError, AttributeError):
        pass
    raise bad_request(f"Malformed action/metadata line: {line[:200]!r}")
