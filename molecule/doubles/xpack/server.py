"""The HTTP port: reads requests off the wire, with or without TLS, and writes the answers."""

import gzip
import socket
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .front import Front
from .request import Request


class Handler(BaseHTTPRequestHandler):
    """Reads a request off the wire and writes the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    front: Front
    context: ssl.SSLContext | None = None

    def setup(self) -> None:
        """Do the TLS handshake in this connection's own thread, so that a slow client holds up no other."""
        if self.context:
            self.request.settimeout(30)
            self.request = self.context.wrap_socket(self.request, server_side=True)
            self.request.settimeout(None)
        super().setup()

    def finish(self) -> None:
        """Close the connection; ignore a client that is gone."""
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
