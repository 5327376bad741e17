#!/usr/bin/env python3
"""Stands in for MaxMind's download service, which needs an account and can't be reached from the lab.

It speaks the protocol of dev.maxmind.com, "Updating GeoIP and GeoLite Databases", Direct Downloads:

    GET /geoip/databases/GeoLite2-City/download?suffix=tar.gz          (or .tar.gz.sha256)
        with Basic authentication, account id and licence key: 401 without, 404 for a database it doesn't have,
        429 when the day's downloads are used up, else 302 to a storage host with a signed address
    GET the signed address
        200 with Last-Modified, or 304 to an If-Modified-Since; 403 if the signature is wrong, too old or for another
        method, and 400 if there is an Authorization header, because the storage must not get the licence key
    HEAD instead of GET, for both
        the same without a body, and not counted as a download: MaxMind's way to ask for the latest release's date

Download and storage are two addresses of one process. The releases are the .tar.gz files of a folder, packed as
MaxMind packs them. They are read at each request, so a new file is a new release.

    maxmind.py --folder DIR --download HOST:PORT --storage HOST:PORT [--certificate FILE]     FILE: certificate and key
    maxmind.py --folder DIR --pack GeoLite2-City.mmdb...                                      puts releases there

Its behaviour is a JSON object, PUT to /_double: {"limit": 0} allows so many downloads today; {"cut": 1000} closes the
storage's connection after so many bytes; {"hold": 1000} pauses after so many bytes, until the behaviour changes;
{"checksum": "…"} is the checksum of every file; {"fail": 503} is the storage's only answer; {"unconditional": true}
ignores If-Modified-Since; {} is the default.
GET /_double returns the requests: {"requests": [{"method", "path", "status", "bytes"}…]}.
"""

from __future__ import annotations

import argparse
import base64
import email.utils
import hashlib
import hmac
import http.server
import io
import json
import re
import secrets
import ssl
import tarfile
import threading
import time
import typing
import urllib.parse
from pathlib import Path

ACCOUNT, KEY = "123456", "lab_licence_key"


def pack(database: Path, folder: Path) -> Path:
    """Put a database into the folder as a release of its file's date, packed as MaxMind packs it."""
    edition = database.name.removesuffix(".mmdb")
    modified = database.stat().st_mtime
    inside = f"{edition}_{time.strftime('%Y%m%d', time.gmtime(modified))}"
    fresh = folder / f".{edition}.tar.gz"
    with tarfile.open(fresh, "w:gz", compresslevel=1, dereference=True) as tar:
        for name, content in (("COPYRIGHT.txt", b"MaxMind's stand-in\n"), ("LICENSE.txt", b"none\n")):
            entry = tarfile.TarInfo(f"{inside}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        tar.add(database, f"{inside}/{database.name}")
    return fresh.rename(folder / f"{edition}.tar.gz")


class Maxmind:
    """Both servers, in threads of their own. Files, counters and behaviour are plain attributes."""

    def __init__(
        self,
        folder: Path,
        download: tuple[str, int] = ("127.0.0.1", 0),
        storage: tuple[str, int] = ("127.0.0.1", 0),
        certificate: str | None = None,
    ) -> None:
        """Certificate: a PEM file with certificate and key; none: plain HTTP."""
        self.folder = folder
        self.behaviour: dict[str, typing.Any] = {}
        self.requests: list[dict[str, typing.Any]] = []
        self.secret = secrets.token_bytes()
        self.scheme = "https" if certificate else "http"
        self.download = self._server(download, Download, certificate)
        self.storage = self._server(storage, Storage, certificate)

    def _server(
        self, address: tuple[str, int], handler: type[Handler], certificate: str | None
    ) -> http.server.ThreadingHTTPServer:
        server = http.server.ThreadingHTTPServer(
            address, type(handler.__name__, (handler,), {"maxmind": self})
        )
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    @property
    def url(self) -> str:
        """The download address, with {kind} in it, as geolite_maxmind_url takes it."""
        host, port = self.download.server_address[:2]
        return f"{self.scheme}://{host!s}:{port}/geoip/databases/GeoLite2-{{kind}}/download?suffix=tar.gz"

    def signed(self, path: str, expires: int, method: str = "GET") -> str:
        """Return the storage's path with its signature."""
        signature = hmac.new(self.secret, f"{method} {path} {expires}".encode(), "sha256").hexdigest()
        return f"{path}?X-Amz-Expires={expires}&X-Amz-Signature={signature}"

    def close(self) -> None:
        """Stop both servers."""
        for server in (self.download, self.storage):
            server.shutdown()
            server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    """What both servers have in common: every request is written down with its answer."""

    maxmind: Maxmind
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send the whole answer, or the part that the behaviour allows."""
        behaviour = self.maxmind.behaviour if status == 200 and isinstance(self, Storage) else {}
        cut = behaviour.get("cut", behaviour.get("hold"))
        sent = b"" if self.command == "HEAD" or status == 304 else body[:cut]
        self.maxmind.requests.append(
            {"method": self.command, "path": self.path, "status": status, "bytes": len(sent)}
        )
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(sent)
        while "hold" in behaviour and self.maxmind.behaviour is behaviour:
            time.sleep(0.1)
        self.close_connection = cut is not None

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer."""
        raise NotImplementedError


class Download(Handler):
    """download.maxmind.com."""

    def do_GET(self) -> None:
        """Send those who may download to the storage."""
        maxmind = self.maxmind
        if self.path == "/_double":
            body = json.dumps({"requests": maxmind.requests}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        parts = urllib.parse.urlsplit(self.path)
        edition = re.fullmatch(r"/geoip/databases/([\w-]+)/download", parts.path)
        suffix = urllib.parse.parse_qs(parts.query).get("suffix", [""])[0]
        pair = base64.b64encode(f"{ACCOUNT}:{KEY}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {pair}":
            self.answer(401, b"Your account ID or license key could not be authenticated.")
        elif (
            edition is None
            or suffix not in {"tar.gz", "tar.gz.sha256"}
            or not (maxmind.folder / f"{edition[1]}.tar.gz").exists()
        ):
            self.answer(404, b"Database edition not found")
        elif self.used_up(suffix):
            self.answer(429, b"Daily GeoIP database download limit reached")
        else:
            host, port = maxmind.storage.server_address[:2]
            path = maxmind.signed(f"/{edition[1]}.{suffix}", int(time.time()) + 300, self.command)
            self.answer(302, headers={"Location": f"{maxmind.scheme}://{host!s}:{port}{path}"})

    def used_up(self, suffix: str) -> bool:
        """Count a download; asking by HEAD, and checksums, are free."""
        left = self.maxmind.behaviour.get("limit")
        if left is None or self.command == "HEAD" or suffix != "tar.gz":
            return False
        self.maxmind.behaviour["limit"] = left - 1
        return bool(left <= 0)

    def do_PUT(self) -> None:
        """Set the behaviour."""
        self.maxmind.behaviour = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()


class Storage(Handler):
    """The storage's host, an S3 in all that matters here."""

    def do_GET(self) -> None:
        """Give a file to those whose address is signed."""
        parts = urllib.parse.urlsplit(self.path)
        expires = int(urllib.parse.parse_qs(parts.query).get("X-Amz-Expires", ["0"])[0])
        if "Authorization" in self.headers:
            self.answer(400, b"<Error><Code>InvalidArgument</Code></Error>")
            return
        if self.path != self.maxmind.signed(parts.path, expires, self.command) or expires < time.time():
            self.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            return
        if "fail" in self.maxmind.behaviour:
            self.answer(self.maxmind.behaviour["fail"])
            return
        name = parts.path.strip("/")
        file = self.maxmind.folder / name.removesuffix(".sha256")
        content = file.read_bytes()
        modified = email.utils.formatdate(file.stat().st_mtime, usegmt=True)
        if name.endswith(".sha256"):
            digest = self.maxmind.behaviour.get("checksum") or hashlib.sha256(content).hexdigest()
            content = f"{digest}  {file.name}\n".encode()
        headers = {"Last-Modified": modified, "Content-Type": "application/gzip"}
        since = None if self.maxmind.behaviour.get("unconditional") else self.headers["If-Modified-Since"]
        if since and email.utils.parsedate_to_datetime(since).timestamp() >= int(file.stat().st_mtime):
            self.answer(304, headers=headers)
        else:
            self.answer(200, content, headers)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pack", type=Path, nargs="+")
    parser.add_argument("--download", type=_address)
    parser.add_argument("--storage", type=_address)
    parser.add_argument("--certificate")
    chosen = parser.parse_args()
    if chosen.pack:
        for release in chosen.pack:
            pack(release, chosen.folder)
    else:
        Maxmind(chosen.folder, chosen.download, chosen.storage, chosen.certificate)
        threading.Event().wait()
