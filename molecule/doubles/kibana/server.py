"""The stand-in for Kibana's server: settings, TLS, authentication, and the saved objects API, as Kibana answers them.

README.md says what it has in common with Kibana, and what not.
"""

import email.parser
import email.policy
import functools
import json
import os
import re
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import keystore
import yaml

VERSION = "9.2.0"

#: The settings that it knows; Kibana ends with code 64 at any other.
SETTINGS = {
    "elasticsearch.hosts", "elasticsearch.requestTimeout", "elasticsearch.serviceAccountToken",
    "elasticsearch.ssl.certificateAuthorities", "elasticsearch.ssl.verificationMode",
    "i18n.locale", "logging.root.level", "map.includeElasticMapsService", "newsfeed.enabled", "path.data",
    "server.host", "server.name", "server.port", "server.publicBaseUrl",
    "server.ssl.certificate", "server.ssl.enabled", "server.ssl.key",
    "telemetry.allowChangingOptInStatus", "telemetry.enabled", "telemetry.optIn", "uiSettings.overrides",
    "xpack.encryptedSavedObjects.encryptionKey", "xpack.fleet.isAirGapped", "xpack.reporting.encryptionKey",
    "xpack.security.encryptionKey",
}  # fmt: skip

#: The newest stamp (typeMigrationVersion) and all attributes of each type in Kibana 8.12, the oldest we support.
#: An attribute without a kind is text.
CORE_VERSION = "8.8.0"
TYPES = {
    "index-pattern": ("8.0.0", "title type timeFieldName fields fieldFormatMap typeMeta sourceFilters fieldAttrs "
                               "runtimeFieldMap allowNoIndex:boolean name"),
    "visualization": ("8.5.0", "title description version:number kibanaSavedObjectMeta:object uiStateJSON visState "
                               "savedSearchRefName"),
    "search": ("8.0.0", "title description columns:array grid:object hideChart:boolean isTextBasedQuery:boolean "
                        "usesAdHocDataView:boolean hits:number sort:array version:number "
                        "kibanaSavedObjectMeta:object viewMode hideAggregatedPreview:boolean rowHeight:number "
                        "rowsPerPage:number sampleSize:number breakdownField timeRestore:boolean timeRange:object "
                        "refreshInterval:object"),
    "dashboard": ("8.9.0", "title description kibanaSavedObjectMeta:object timeRestore:boolean timeFrom timeTo "
                           "refreshInterval:object controlGroupInput:object panelsJSON optionsJSON hits:number "
                           "version:number"),
    "links": ("8.8.0", "title description layout links:array"),
    "map": ("8.4.0", "title description mapStateJSON layerListJSON uiStateJSON bounds:object"),
}  # fmt: skip
KINDS = {"string": str, "number": int, "boolean": bool, "object": dict, "array": list}
#: Seconds from the first answer of the first start until Kibana has told Elasticsearch what its privileges mean: until
#: then nobody but a superuser has any.
REGISTERING = 2
#: What an import looks for; a panel's missing visualization is noticed by nobody but the reader of the dashboard.
CHECKED_REFERENCES = {"index-pattern", "search"}
WRITERS = {"kibana_admin", "editor"}
READERS = WRITERS | {"viewer"}


class RefusalError(Exception):
    """An answer other than 200: status and message, in Kibana's form."""

    def __init__(self, status: int, error: str, message: str, **more):
        """Take the status, its name, what is wrong, and more fields of the answer's body."""
        super().__init__(message)
        self.status = status
        self.body = {"statusCode": status, "error": error, "message": message, **more}


def settings() -> dict:
    """Return kibana.yml and the keystore as one flat dictionary; ends the program at an unknown setting."""

    def flat(tree: dict, prefix: str = "") -> dict:
        found = {}
        for name, value in tree.items():
            dotted = prefix + name
            if isinstance(value, dict) and dotted not in SETTINGS:
                found |= flat(value, dotted + ".")
            else:
                found[dotted] = value
        return found

    folder = Path(os.environ.get("KBN_PATH_CONF", "/etc/kibana"))
    found = flat(yaml.safe_load((folder / "kibana.yml").read_text()) or {})
    if keystore.path().exists():
        found |= keystore.load()
    if unknown := sorted(set(found) - SETTINGS):
        print(
            f"FATAL  Error: Unknown configuration key(s): {unknown}. Check for spelling errors.",
            file=sys.stderr,
        )
        sys.exit(64)
    for name, value in found.items():
        if name.endswith("encryptionKey") and (not isinstance(value, str) or len(value) < 32):
            print(f"FATAL  Error: [config validation of [{name}]]: value has length "
                  f"[{len(str(value))}] but it must have a minimum length of [32].", file=sys.stderr)  # fmt: skip
            sys.exit(78)
    return found


class Elasticsearch:
    """Elasticsearch's security: whose login a request has."""

    def __init__(self, config: dict, first_start: bool):
        """Take address, token and authorities from Kibana's settings."""
        hosts = config.get("elasticsearch.hosts", ["http://localhost:9200"])
        self.url = hosts if isinstance(hosts, str) else hosts[0]
        self.token = config.get("elasticsearch.serviceAccountToken")
        authorities = config.get("elasticsearch.ssl.certificateAuthorities")
        authorities = [authorities] if isinstance(authorities, str) else authorities or []
        self.tls = ssl.create_default_context()
        for file in authorities:
            self.tls.load_verify_locations(file)
        self.registering = REGISTERING if first_start else 0
        self.registered_at = float("inf")

    def authenticate(self, authorization: str) -> dict:
        """Return the user behind an Authorization header; raises HTTPError (401 …) or URLError (not reached)."""
        request = urllib.request.Request(
            f"{self.url}/_security/_authenticate", headers={"Authorization": authorization}
        )
        with urllib.request.urlopen(request, context=self.tls, timeout=10) as answer:
            return json.load(answer)

    def refusal(self) -> str | None:
        """Return why Kibana itself can't use Elasticsearch, None when it can."""
        try:
            self.authenticate(f"Bearer {self.token}")
        except urllib.error.HTTPError as error:
            return f"Unable to retrieve version information from Elasticsearch nodes. {error}"
        except OSError as error:
            return f"Unable to retrieve version information from Elasticsearch nodes. {error}"
        self.registered_at = min(self.registered_at, time.monotonic() + self.registering)
        return None

    def may(self, user: dict, roles: set[str]) -> bool:
        """Tell whether a user has one of the roles, and Elasticsearch knows what that means."""
        held = set(user.get("roles", []))
        return "superuser" in held or (bool(held & roles) and time.monotonic() >= self.registered_at)


class SavedObjects:
    """The objects, on disk in the data folder."""

    def __init__(self, folder: Path):
        """Read what an earlier run has stored."""
        self.file = folder / "saved-objects.json"
        self.lock = threading.Lock()
        stored = json.loads(self.file.read_text()) if self.file.exists() else []
        self.objects = {(o["type"], o["id"]): o for o in stored}

    def import_(self, lines: bytes, overwrite: bool) -> dict:
        """Store objects (NDJSON) all or none, and return Kibana's account of it."""
        objects = [json.loads(line) for line in lines.split(b"\n") if line.strip()]
        objects = [o for o in objects if "exportedCount" not in o]
        errors, results = [], []
        coming = {(o["type"], o["id"]) for o in objects}
        for o in objects:
            key = (o["type"], o["id"])
            meta = {"title": o["attributes"].get("title")}
            about = {"id": o["id"], "type": o["type"], "meta": meta}
            missing = [
                {"type": r["type"], "id": r["id"]}
                for r in o.get("references", [])
                if r["type"] in CHECKED_REFERENCES
                and (r["type"], r["id"]) not in coming | self.objects.keys()
            ]
            if o["type"] not in TYPES:
                errors.append({**about, "error": {"type": "unsupported_type"}})
            elif missing:
                errors.append({**about, "error": {"type": "missing_references", "references": missing}})
            elif key in self.objects and not overwrite:
                errors.append({**about, "error": {"type": "conflict"}})
            else:
                check(o)
                results.append(
                    {**about, "managed": o.get("managed", False), "overwrite": key in self.objects}
                )
        if not errors:
            with self.lock:
                now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
                for o in objects:
                    self.objects[o["type"], o["id"]] = {"references": [], **o, "updated_at": now}
                self.file.write_text(json.dumps(list(self.objects.values())))
        answer = {
            "successCount": len(results),
            "success": not errors,
            "warnings": [],
            "successResults": results,
        }
        return {**answer, "errors": errors} if errors else answer

    def get(self, wanted: list[dict]) -> list[dict]:
        """Return the wanted objects in order, with a 404 of its own for each that is not there."""
        return [
            self.objects.get(
                (w["type"], w["id"]),
                {
                    "id": w["id"],
                    "type": w["type"],
                    "error": {
                        "statusCode": 404,
                        "error": "Not Found",
                        "message": f"Saved object [{w['type']}/{w['id']}] not found",
                    },
                },
            )
            for w in wanted
        ]


def check(o: dict) -> None:
    """Raise Kibana's refusal of an object that is stamped too new, or has attributes that its type has not."""

    def number(version: str) -> list[int]:
        return [int(part) for part in version.split(".")]

    last, attributes = TYPES[o["type"]]
    for stamp, known in (
        (o.get("typeMigrationVersion"), last),
        (o.get("coreMigrationVersion"), CORE_VERSION),
    ):
        if stamp and number(stamp) > number(known):
            raise RefusalError(
                422,
                "Unprocessable Entity",
                f'Document "{o["id"]}" belongs to a more recent version of Kibana [{stamp}] '
                f"when the last known version is [{known}].",
            )
    kinds = dict((*name.split(":"), "string")[:2] for name in attributes.split())
    for name, value in o["attributes"].items():
        if name not in kinds:
            raise RefusalError(400, "Bad Request", f"[attributes.{name}]: definition for this key is missing")
        if type(value) is not KINDS[kinds[name]]:
            raise RefusalError(
                400, "Bad Request",
                f"[attributes.{name}]: expected value of type [{kinds[name]}] but got [{type(value).__name__}]",
            )  # fmt: skip
    if "title" not in o["attributes"]:
        raise RefusalError(
            400, "Bad Request", "[attributes.title]: expected value of type [string] but got [undefined]"
        )


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server_version = "kibana"

    def __init__(self, elasticsearch: Elasticsearch, objects: SavedObjects, *args):
        """Take what all requests share."""
        self.elasticsearch, self.objects = elasticsearch, objects
        super().__init__(*args)

    def do_GET(self):
        """Answer a reading request."""
        self.answer(b"")

    def do_POST(self):
        """Answer a writing request."""
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def answer(self, body: bytes) -> None:
        """Send what route() says, or its refusal."""
        try:
            status, content = 200, self.route(body)
        except RefusalError as refusal:
            status, content = refusal.status, refusal.body
        kind = "application/json; charset=utf-8"
        if isinstance(content, str):
            kind = "application/ndjson"
        else:
            content = json.dumps(content)
        data = content.encode()
        self.send_response(status)
        self.send_header("kbn-name", "kibana")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def route(self, body: bytes) -> dict | str:
        """Return the answer to a request; text is NDJSON."""
        url = urlsplit(self.path)
        if why := self.elasticsearch.refusal():
            print(f"[ERROR][elasticsearch-service] {why}", file=sys.stderr, flush=True)
            raise RefusalError(503, "Service Unavailable", "Kibana server is not ready yet.")
        if self.command == "POST" and "kbn-xsrf" not in self.headers:
            raise RefusalError(400, "Bad Request", "Request must contain a kbn-xsrf header.")
        routes = {
            ("GET", "/api/status"): self.status,
            ("GET", "/api/spaces/space/default"): self.space,
            ("POST", "/api/saved_objects/_import"): self.import_,
            ("POST", "/api/saved_objects/_export"): self.export,
            ("POST", "/api/saved_objects/_bulk_get"): self.bulk_get,
        }
        try:
            handle = routes[self.command, url.path]
        except KeyError:
            raise RefusalError(404, "Not Found", "Not Found") from None
        user = self.user()
        if user is None and handle != self.status:
            raise RefusalError(401, "Unauthorized", "[security_exception]: unable to authenticate")
        return handle(user, parse_qs(url.query), body)

    def user(self) -> dict | None:
        """Return who asks, None where Elasticsearch does not know them."""
        try:
            return self.elasticsearch.authenticate(self.headers.get("Authorization", ""))
        except urllib.error.HTTPError:
            return None

    def status(self, user, query, body) -> dict:
        """Return that all is well, which anybody may know, and to those who are known a little more."""
        if user is None:
            return {"status": {"overall": {"level": "available"}}}
        level = {"level": "available", "summary": "All services and plugins are available"}
        return {"name": "kibana", "version": {"number": VERSION}, "status": {"overall": level}}

    def space(self, user, query, body) -> dict:
        """Return the one space."""
        return {"id": "default", "name": "Default", "disabledFeatures": [], "_reserved": True}

    def import_(self, user, query, body) -> dict:
        """Store the objects of an uploaded file."""
        kind = self.headers.get("Content-Type", "")
        if not kind.startswith("multipart/form-data"):
            raise RefusalError(415, "Unsupported Media Type", "Unsupported Media Type")
        parser = email.parser.BytesParser(policy=email.policy.HTTP)
        form = parser.parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        part = next(
            (p for p in form.iter_parts() if p.get_param("name", header="content-disposition") == "file"),
            None,
        )
        if part is None:
            raise RefusalError(400, "Bad Request", "[request body.file]: expected value of type [Stream]")
        suffix = Path(part.get_filename() or "").suffix
        if suffix != ".ndjson":
            raise RefusalError(400, "Bad Request", f"Invalid file extension {suffix}")
        if not self.elasticsearch.may(user, WRITERS):
            types = sorted(
                set(re.findall(r'"type": ?"([a-z-]+)"', body.decode(errors="replace"))) & TYPES.keys()
            )
            raise RefusalError(403, "Forbidden", f"Unable to bulk_create {','.join(types)}")
        return self.objects.import_(part.get_payload(decode=True), query.get("overwrite") == ["true"])

    def export(self, user, query, body) -> str:
        """Return objects as NDJSON, all or none."""
        wanted = json.loads(body)
        if not self.elasticsearch.may(user, READERS):
            types = ",".join(sorted({one["type"] for one in wanted["objects"]}))
            raise RefusalError(403, "Forbidden", f"Unable to bulk_get {types}")
        found = self.objects.get(wanted["objects"])
        if missing := [o for o in found if "error" in o]:
            raise RefusalError(
                400, "Bad Request", "Error fetching objects to export", attributes={"objects": missing}
            )
        if not wanted.get("excludeExportDetails"):
            found = [*found, {"exportedCount": len(found), "missingRefCount": 0, "missingReferences": []}]
        return "\n".join(json.dumps(o, sort_keys=True) for o in found)

    def bulk_get(self, user, query, body) -> dict:
        """Return objects one by one."""
        return {"saved_objects": self.objects.get(json.loads(body))}


class Server(ThreadingHTTPServer):
    """Does the TLS handshake in the connection's own thread, so that a silent client holds up no other."""

    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def finish_request(self, request, client_address):
        """Answer one connection."""
        request.settimeout(60)
        if self.tls:
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)
        request.close()

    def handle_error(self, request, client_address):
        """Say in one line what went wrong with a connection."""
        print(f"[WARN ][http] {client_address[0]}: {sys.exception()}", file=sys.stderr, flush=True)


def main() -> None:
    """Run until stopped."""
    config = settings()
    objects = SavedObjects(Path(config.get("path.data", "/var/lib/kibana")))
    first_start = not objects.file.exists()
    handler = functools.partial(Handler, Elasticsearch(config, first_start), objects)
    server = Server((config.get("server.host", "localhost"), config.get("server.port", 5601)), handler)
    if config.get("server.ssl.enabled"):
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(config["server.ssl.certificate"], config["server.ssl.key"])
    print(
        f"[INFO ][server.Kibana.http] http server running at {config.get('server.publicBaseUrl')}", flush=True
    )
    server.serve_forever()


if __name__ == "__main__":
    main()
