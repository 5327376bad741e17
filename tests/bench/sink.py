#!/usr/bin/python3
"""Takes _bulk requests as fast as Python can, and counts: a benchmark of the collector needs no Elasticsearch.

GET / tells {"documents": n, "ids": n}: documents taken, and how many of them have ids of their own.
Usage: sink.py PORT CERTIFICATE-AND-KEY.pem
"""

from __future__ import annotations

import http.server
import json
import re
import ssl
import sys

_id = re.compile(rb'^\{"create":\{"_index":"[^"]*","_id":"([^"]*)"', re.MULTILINE)


class Sink(http.server.BaseHTTPRequestHandler):
    """One connection's requests."""

    protocol_version = "HTTP/1.1"
    documents = 0
    ids: set[bytes] = set()  # noqa: RUF012 (one for all connections)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Take documents."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        count = body.count(b"\n") // 2
        Sink.documents += count
        Sink.ids.update(_id.findall(body))
        self._answer(b'{"errors":false,"items":[' + b",".join([b'{"create":{"status":201}}'] * count) + b"]}")

    def do_GET(self) -> None:
        """Tell the counts."""
        self._answer(json.dumps({"documents": Sink.documents, "ids": len(Sink.ids)}).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Sink)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
