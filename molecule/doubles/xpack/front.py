"""The HTTP port: authorizes every request, answers what is X-Pack's and passes the rest to the core."""

import gzip
import json
import socket
import ssl
import time
import traceback
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from . import VERSION, lifecycle
from .actions import Wanted, wanted
from .answers import Answer, RefusedError, answer, bad_request
from .core import Core
from .privileges import Subject
from .security import Security, denied
from .store import Store

BULK_ACTIONS = {
    "create": "indices:data/write/index:op_type/create",
    "index": "indices:data/write/index:op_type/index",
    "update": "indices:data/write/update",
    "delete": "indices:data/write/delete",
}
AUTO_CREATE = "indices:admin/auto_create"
FORWARDED = ("content-type", "accept", "accept-encoding", "x-opaque-id")
OK, MULTIPLE = 200, 300


class Request:
    """A request, read whole."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        """Take it apart."""
        self.method, self.target, self.headers, self.body = method, target, headers, body
        split = urlsplit(target)
        self.path = unquote(split.path)
        self.raw_query = split.query
        self.query = dict(parse_qsl(split.query, keep_blank_values=True))

    def json(self) -> Any:
        """Return the body, None where there is none."""
        if not self.body.strip():
            return None
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise bad_request(
                f"request body is not valid JSON: {error}", "x_content_parse_exception"
            ) from None

    def forward(
        self, core: Core, path: str | None = None, body: bytes | None = None, plain: bool = False
    ) -> Answer:
        """Pass the request on; ``plain`` asks for an answer that can be read here."""
        headers = {
            n: v for n, v in self.headers.items() if n in FORWARDED and not (plain and n == "accept-encoding")
        }
        target = self.target
        if path is not None:
            target = quote(path, safe="/*,-_.:") + (f"?{self.raw_query}" if self.raw_query else "")
        return core.ask(self.method, target, self.body if body is None else body, headers)


class Front:
    """One node's REST API."""

    def __init__(self, core: Core, store: Store, security: Security | None) -> None:
        """Take the parts; without security everybody may everything."""
        self._core, self._store, self._security = core, store, security

    def handle(self, request: Request) -> Answer:
        """Answer a request."""
        try:
            subject = None
            if self._security:
                subject = self._security.authenticate(request.headers.get("authorization"), request.path)
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
                return self._main(request)
            case ["_license"]:
                return answer(
                    {"license": {"status": "active", "uid": "0", "type": "basic", "max_nodes": 1000}}
                )
            case ["_xpack"]:
                features = {"security": bool(self._security), "ilm": True}
                shown = {name: {"available": True, "enabled": on} for name, on in features.items()}
                return answer({"license": {"type": "basic", "status": "active"}, "features": shown})
            case ["_security", *rest] if self._security and subject:
                return self._security.call(subject, request.method, rest, request.query, request.json())
            case ["_ilm", *rest]:
                return self._ilm(request, rest)
            case [_, "_ilm", "explain"]:
                return self._explain(parts[0])
            case ["_bulk"] | [_, "_bulk"]:
                return self._bulk(request, subject, parts[0] if len(parts) > 1 else None)
            case ["_index_template", name] if not name.startswith("_"):
                return self._template(request, name)
            case ["_index_template"] if request.method == "GET":
                return self._template(request, "*")
            case ["_settings"] | [_, "_settings"]:
                return self._settings(request, path, parts[0] if len(parts) > 1 else "*")
            case [index] if request.method == "PUT" and not index.startswith("_"):
                return self._create(request, index)
        return request.forward(self._core, path if path != request.path else None)

    # Authorization

    def _authorize(self, request: Request, subject: Subject, want: Wanted | None) -> str:
        """Refuse what is not granted; return the path, narrowed to the indices that are."""
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
        if action.endswith("msearch"):
            self._authorize_msearch(request, subject, action, want.indices or [])
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
        return (
            f"{request.path}/{expression}"
            if request.path.startswith("/_cat")
            else f"/{expression}{request.path}"
        )

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

    def _authorize_msearch(self, request: Request, subject: Subject, action: str, default: list[str]) -> None:
        for line in request.body.splitlines()[::2]:
            index = json.loads(line or b"{}").get("index") or default or ["*"]
            names = index.split(",") if isinstance(index, str) else index
            if self._granted(subject, action, names) is not None:
                raise denied(subject, action, names)

    def _authorize_auto_create(self, subject: Subject, index: str) -> None:
        if not subject.may_on(AUTO_CREATE, index) and self._core.ask("HEAD", "/" + quote(index)).status != OK:
            raise denied(subject, AUTO_CREATE, [index])

    # What the core does not have

    def _main(self, request: Request) -> Answer:
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
        verdicts: dict[tuple[str, str], RefusedError | None] = {}
        granted: list[bytes] = []
        refused: list[tuple[int, dict[str, Any]]] = []
        count = 0
        lines = iter(request.body.split(b"\n"))
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            operation, about, index = _bulk_action(line, number, default)
            source = [] if operation == "delete" else [next(lines, b"")]
            kind = "create" if about.get("op_type") == "create" else operation
            if (kind, index) not in verdicts:
                verdicts[kind, index] = self._bulk_verdict(subject, kind, index)
            verdict = verdicts[kind, index]
            if verdict is None:
                granted += [line, *source]
            else:
                item = {
                    "_index": index,
                    "_id": about.get("_id"),
                    "status": verdict.status,
                    "error": verdict.error,
                }
                refused.append((count, {operation: item}))
            count += 1
        if not refused:
            return request.forward(self._core)
        result: dict[str, Any] = {"took": 0, "items": []}
        if granted:
            given = request.forward(self._core, body=b"\n".join([*granted, b""]), plain=True)
            if given.status >= MULTIPLE:
                return given
            result = json.loads(given.body)
        for position, item in refused:
            result["items"].insert(position, item)
        return answer({**result, "errors": True})

    def _bulk_verdict(self, subject: Subject, kind: str, index: str) -> RefusedError | None:
        try:
            if not subject.may_on(BULK_ACTIONS[kind], index):
                raise denied(subject, BULK_ACTIONS[kind], [index])
            if kind != "delete":
                self._authorize_auto_create(subject, index)
        except RefusedError as refusal:
            return refusal
        return None

    # Lifecycles: checked here, taken out of what the core gets, put back into what it shows.

    def _ilm(self, request: Request, parts: list[str]) -> Answer:
        policies = self._store["policies"]
        match request.method, parts:
            case "GET", ["status"]:
                return answer({"operation_mode": "RUNNING"})
            case "GET", ["policy"]:
                return answer({name: self._policy(name) for name in policies})
            case "GET", ["policy", name]:
                if name not in policies:
                    raise RefusedError(
                        404, "resource_not_found_exception", f"Lifecycle policy not found: {name}"
                    )
                return answer({name: self._policy(name)})
            case "PUT", ["policy", name]:
                policy = lifecycle.check(request.json())
                known = policies.get(name)
                if not known or known["policy"] != policy:
                    version = (known or {"version": 0})["version"] + 1
                    kept = {"version": version, "modified_date": lifecycle.now(), "policy": policy}
                    self._store.put("policies", name, kept)
                return answer({"acknowledged": True})
            case "DELETE", ["policy", name]:
                users = self._policy(name)["in_use_by"]["indices"] if name in policies else []
                if users:
                    raise bad_request(
                        f"Cannot delete policy [{name}]. It is in use by one or more indices: {users}"
                    )
                if name not in policies:
                    raise RefusedError(
                        404, "resource_not_found_exception", f"Lifecycle policy not found: {name}"
                    )
                self._store.put("policies", name, None)
                return answer({"acknowledged": True})
        raise bad_request(f"no handler found for uri [{request.path}] and method [{request.method}]")

    def _policy(self, name: str) -> dict[str, Any]:
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

    def _explain(self, expression: str) -> Answer:
        status, found = self._core.json("GET", f"/{expression}/_settings")
        if status != OK:
            return answer(found, status)
        indices = {}
        for index, about in found.items():
            settings = self._lifecycle_of(index)
            created = int(about["settings"]["index"]["creation_date"])
            managed = {
                "managed": True,
                "policy": settings.get("name"),
                "index_creation_date_millis": created,
                "time_since_index_creation": f"{(time.time() - created / 1000) / 86400:.2f}d",
                "lifecycle_date_millis": created,
                "age": f"{(time.time() - created / 1000) / 86400:.2f}d",
                "phase": "hot",
                "action": "complete",
                "step": "complete",
            }
            indices[index] = {"index": index, **(managed if settings.get("name") else {"managed": False})}
        return answer({"indices": indices})

    def _template(self, request: Request, name: str) -> Answer:
        if request.method in ("PUT", "POST"):
            body = request.json() or {}
            template = body.get("template") or {}
            kept, taken = lifecycle.take_out(template.get("settings") or {})
            if taken:
                body = {**body, "template": {**template, "settings": kept}}
            given = request.forward(self._core, body=json.dumps(body).encode())
            if given.status < MULTIPLE:
                self._store.put("lifecycles", f"template:{name}", taken or None)
            return given
        given = request.forward(self._core, plain=True)
        if request.method == "DELETE" and given.status < MULTIPLE:
            self._store.put("lifecycles", f"template:{name}", None)
        if request.method != "GET" or given.status != OK:
            return given
        body = json.loads(given.body)
        for entry in body.get("index_templates", []):
            taken = self._store["lifecycles"].get(f"template:{entry['name']}")
            if taken:
                settings = entry["index_template"].setdefault("template", {}).setdefault("settings", {})
                _put_back(settings, taken)
        return answer(body)

    def _settings(self, request: Request, path: str, expression: str) -> Answer:
        if request.method == "GET":
            given = request.forward(self._core, path, plain=True)
            if given.status != OK:
                return given
            body = json.loads(given.body)
            for index, about in body.items():
                _put_back(about["settings"], self._lifecycle_of(index))
            return answer(body)
        kept, taken = lifecycle.take_out(request.json() or {})
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

    def _create(self, request: Request, index: str) -> Answer:
        body = request.json() or {}
        kept, taken = lifecycle.take_out(body.get("settings") or {})
        if not taken:
            return request.forward(self._core)
        given = request.forward(self._core, body=json.dumps({**body, "settings": kept}).encode())
        if given.status < MULTIPLE:
            self._store.put("lifecycles", f"index:{index}", taken)
        return given


def _bulk_action(line: bytes, number: int, default: str | None) -> tuple[str, dict[str, Any], str]:
    """Return a bulk action line's operation, what it says, and its index."""
    try:
        ((operation, about),) = json.loads(line).items()
        index = about.get("_index") or default
        if operation in BULK_ACTIONS and index:
            return operation, about, index
    except (ValueError, AttributeError):
        pass
    raise bad_request(f"Malformed action/metadata line [{number}]")


def _put_back(settings: dict[str, Any], taken: dict[str, str]) -> None:
    """Show lifecycle settings among an index's others, in the form (nested or flat) that those have."""
    if not taken:
        return
    if any(key.startswith("index.") for key in settings):
        settings.update({f"index.lifecycle.{name}": value for name, value in taken.items()})
    else:
        settings.setdefault("index", {})["lifecycle"] = dict(taken)


class Handler(BaseHTTPRequestHandler):
    """Reads a request off the wire and writes the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    front: Front
    context: ssl.SSLContext | None = None

    def setup(self) -> None:
        """Shake hands in this connection's own thread, so that a slow client holds up nobody else."""
        if self.context:
            self.request.settimeout(30)
            self.request = self.context.wrap_socket(self.request, server_side=True)
            self.request.settimeout(None)
        super().setup()

    def finish(self) -> None:
        """Close without complaint where the client is gone."""
        try:
            super().finish()
            if self.context:
                self.request.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            self.request.close()

    def _serve(self) -> None:
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.pop("content-encoding", "") == "gzip":
            body = gzip.decompress(body)
        given = self.server.front.handle(Request(self.command, self.path, headers, body))  # type: ignore[attr-defined]
        self.send_response(given.status)
        for name, value in given.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(given.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(given.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def log_message(self, format: str, *args: Any) -> None:
        """Elasticsearch logs no requests."""


class Server(ThreadingHTTPServer):
    """One listening address."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str, port: int, front: Front, context: ssl.SSLContext | None) -> None:
        """Bind."""
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.front = front
        super().__init__((address, port), type("Bound", (Handler,), {"context": context}))

    def server_bind(self) -> None:
        """Bind without asking the DNS for this machine's name; IPv6 beside IPv4."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up or speak no TLS; Elasticsearch warns, in its own log."""
