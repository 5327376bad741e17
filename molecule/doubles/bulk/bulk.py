#!/usr/bin/env python3
"""Stands in for Elasticsearch's _bulk, for refusals and accidents that the real one can't be made to show.

By default it answers as Elasticsearch 9.2 (201, 409 for an id that exists, 401 for an unknown key), and so do the
bodies of its errors. It keeps documents in memory, has no search, and checks no mapping.

    bulk.py [--port 9200] [--certificate FILE] [--api-key ENCODED]      runs it; FILE: certificate and key, PEM

Its behaviour is a JSON object, PUT to /_double (a list: one for each of the next requests; the last one stays):

    {}                                        the default
    {"status": 503, "type": "...", "match": "REGEX"}  a request is refused when a document's source matches (default:
                                              always); "body": with this text, not with an error as Elasticsearch's
    {"item": 429, "type": "...", "match": "REGEX"}    documents whose source matches are refused (default: all);
                                              "index": "REGEX": of the indices that match; "also": {...}: a further rule
    {"item": "blocked"}                       as an index with a write block refuses them; also "closed", "no pipeline",
                                              "no shard"
    {"limit": 1000}                           413 for a longer body; with "cut" no answer, but a closed connection
    {"drip": 0.1}                             the answer comes byte by byte, each after 0.1 s; "bytes": 500, at least
    {"wait": 5}                               the documents are taken, the answer comes after 5 s
    {"cut": "before"}                         the connection is closed before ("after": after) the documents are taken
    {"close": true}                           the connection is closed after an answer that promises to keep it

GET /_double returns {"requests": n, "documents": {"INDEX": {"ID": {...}}}}.
"""

from __future__ import annotations

import argparse
import http.server
import json
import re
import ssl
import threading
import time
import typing

Behaviour = dict[str, typing.Any]

# Faults of an index: status, type, reason.
INDEX_FAULTS = {
    "blocked": (403, "cluster_block_exception", "index [{}] blocked by: [FORBIDDEN/8/index write (api)];"),
    "closed": (400, "index_closed_exception", "closed"),
    "no pipeline": (400, "illegal_argument_exception", "pipeline with id [left-over] does not exist"),
    "no shard": (
        503,
        "unavailable_shards_exception",
        "[{}][0] primary shard is not active Timeout: [5s], request: [BulkShardRequest [[{}][0]]]",
    ),
}

# Health documents come with this key, at any moment. They are accepted, and are not counted as a test's requests.
HEALTH_KEY = "health"


class Bulk(http.server.ThreadingHTTPServer):
    """The server. Its documents and its behaviour are plain attributes."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], certificate: str, api_key: str) -> None:
        """Certificate: a PEM file with certificate and key."""
        super().__init__(address, Request)
        self.api_key = api_key
        self.documents: dict[str, dict[str, str]] = {}
        self.requests = 0
        self.connections = 0
        self.behaviour: list[Behaviour] = [{}]
        self.lock = threading.Lock()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)

    def next_behaviour(self) -> Behaviour:
        """How the request at hand is treated."""
        with self.lock:
            self.requests += 1
            return self.behaviour.pop(0) if len(self.behaviour) > 1 else self.behaviour[0]

    def finish_request(self, request: typing.Any, client_address: typing.Any) -> None:
        """Do the TLS handshake in the connection's own thread, so that a silent client blocks no other."""
        self.connections += 1
        super().finish_request(self.context.wrap_socket(request, server_side=True), client_address)

    def handle_error(self, request: typing.Any, client_address: typing.Any) -> None:
        """Ignore clients that close their connection."""

    def create(self, body: bytes, behaviour: Behaviour) -> list[dict[str, typing.Any]]:
        """Take the documents of a request in; one answer each."""
        lines = body.split(b"\n")[:-1]
        items = []
        for action, source in zip(lines[::2], lines[1::2], strict=True):
            target = json.loads(action)["create"]
            index, id_ = target["_index"], target["_id"]
            item: dict[str, typing.Any] = {"_index": index, "_id": id_, "status": 201}
            with self.lock:
                if (refusal := _refusal(behaviour, index, source.decode(errors="replace"))) is not None:
                    item |= refusal
                elif id_ in self.documents.setdefault(index, {}):
                    reason = f"[{id_}]: version conflict, document already exists (current version [1])"
                    error = {"type": "version_conflict_engine_exception", "reason": reason}
                    item |= {"status": 409, "error": error}
                else:
                    self.documents[index][id_] = source.decode(errors="replace")
            items.append({"create": item})
        return items


class Request(http.server.BaseHTTPRequestHandler):
    """One connection's requests."""

    server: Bulk
    protocol_version = "HTTP/1.1"
    drip = (0.0, 0)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer GET /_double."""
        self._answer(200, {"requests": self.server.requests, "documents": self.server.documents})

    def do_PUT(self) -> None:
        """Set the behaviour."""
        behaviour = json.loads(self._body())
        self.server.behaviour = behaviour if isinstance(behaviour, list) else [behaviour]
        self._answer(200, {"acknowledged": True})

    def do_POST(self) -> None:
        """Answer _bulk."""
        if self.headers["Authorization"] == f"ApiKey {HEALTH_KEY}":
            self._answer(200, {"took": 1, "errors": False, "items": self.server.create(self._body(), {})})
            return
        behaviour = self.server.next_behaviour()
        size = int(self.headers["Content-Length"])
        if size > behaviour.get("limit", size):
            self._too_large(size, behaviour)
            return
        cut = None if "limit" in behaviour else behaviour.get("cut")
        body = self._body()
        if self.headers["Authorization"] != f"ApiKey {self.server.api_key}":
            behaviour = {
                "status": 401,
                "type": "security_exception",
                "reason": "unable to authenticate with API key",
            }
        if cut == "before":
            self._cut()
        elif "status" in behaviour and re.search(behaviour.get("match", ""), body.decode(errors="replace")):
            whole = {"error": _error(behaviour), "status": behaviour["status"]}
            self._answer(behaviour["status"], behaviour.get("body", whole))
        else:
            items = self.server.create(body, behaviour)
            time.sleep(behaviour.get("wait", 0))
            self.drip = behaviour.get("drip", 0), behaviour.get("bytes", 0)
            if cut:
                self._cut()
            else:
                errors = any("error" in item["create"] for item in items)
                self._answer(200, {"took": 1, "errors": errors, "items": items})
                self.close_connection = bool(behaviour.get("close"))

    def _too_large(self, size: int, behaviour: Behaviour) -> None:
        if "cut" in behaviour:
            self._cut()
        else:
            # As a proxy does: the answer comes before the body is read.
            self._answer(413, "too large", close=True)
            self.rfile.read(size)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _cut(self) -> None:
        self.close_connection = True

    def _answer(self, status: int, content: object, *, close: bool = False) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        body += b" " * (self.drip[1] - len(body))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        pause = self.drip[0]
        if not pause:
            self.wfile.write(body)
            return
        for begin in range(len(body)):
            time.sleep(pause)
            self.wfile.write(body[begin : begin + 1])


def _refusal(behaviour: Behaviour, index: str, source: str) -> dict[str, typing.Any] | None:
    """Return status and error of a document that is to be refused."""
    rule: Behaviour | None = behaviour
    while rule:
        matches = re.search(rule.get("match", ""), source) and re.search(rule.get("index", ""), index)
        if "item" in rule and matches:
            if rule["item"] in INDEX_FAULTS:
                status, kind, reason = INDEX_FAULTS[rule["item"]]
                return {"status": status, "error": {"type": kind, "reason": reason.format(index, index)}}
            return {"status": rule["item"], "error": _error(rule)}
        rule = rule.get("also")
    return None


def _error(behaviour: Behaviour) -> dict[str, str]:
    return {"type": behaviour.get("type", "exception"), "reason": behaviour.get("reason", "as ordered")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=9200)
    parser.add_argument("--certificate", default="/etc/bulk/server.pem")
    parser.add_argument("--api-key", default="")
    chosen = parser.parse_args()
    Bulk(("", chosen.port), chosen.certificate, chosen.api_key).serve_forever()
