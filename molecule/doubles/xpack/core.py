"""The real Elasticsearch core: a Java process on the loopback, and the way to ask it."""

import ctypes
import http.client
import json
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .answers import Answer, RefusedError
from .settings import Settings, jvm_options

PORT = 9201
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "date", "server"}
PR_SET_PDEATHSIG = 1


class CoreGoneError(Exception):
    """The core's process ended."""


class Core:
    """One core process; each thread keeps its own connection to it."""

    def __init__(self, home: Path) -> None:
        """Nothing runs yet."""
        self._home = home
        self._threads = threading.local()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, settings: Settings, work: Path, quiet: bool) -> None:
        """Write the core's own configuration into a folder and start it."""
        core = {
            **settings.core,
            "http.host": "127.0.0.1",
            "http.port": PORT,
            # A double forms no cluster: nothing of it listens beyond this machine.
            "transport.host": "127.0.0.1",
        }
        (work / "elasticsearch.yml").write_text(json.dumps(core))
        (work / "log4j2.properties").write_text((settings.config / "log4j2.properties").read_text())
        modules = self._home / "lib"
        command = [
            str(self._home / "jdk/bin/java"),
            *jvm_options(settings.config),
            "-Des.distribution.type=deb",
            f"-Des.nativelibs.path={self._home / 'lib/platform'}",
            "--enable-native-access=ALL-UNNAMED,org.elasticsearch.nativeaccess,org.apache.lucene.core",
            "--module-path", str(modules), "--add-modules", "ALL-MODULE-PATH",
            "--class-path", str(self._home / "started/core.jar"),
            "Core", str(self._home), str(work), str(not quiet).lower(),
        ]  # fmt: skip
        libc = ctypes.CDLL(None)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            # If the double is killed, the core must end too: it holds the data folder.
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )

    def wait_until_ready(self) -> None:
        """Return when the core has recovered its state and answers."""
        while True:
            if self.process and self.process.poll() is not None:
                raise CoreGoneError(f"the core ended with status {self.process.returncode}")
            try:
                if self.ask("GET", "/_cluster/health?wait_for_events=normal&timeout=60s").status == 200:
                    return
            except RefusedError:
                time.sleep(0.1)

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request to the core; ``target`` is a path with its query, percent-encoded."""
        for attempt in (1, 2):
            connection = getattr(self._threads, "connection", None)
            if connection is None:
                connection = self._threads.connection = http.client.HTTPConnection("127.0.0.1", PORT)
            try:
                connection.request(method, target, body or None, headers or {})
                response = connection.getresponse()
                data = response.read()
            except (OSError, http.client.HTTPException):
                # A connection kept from before may have been closed meanwhile: once more on a new one.
                connection.close()
                self._threads.connection = None
                if attempt == 1:
                    continue
                break
            kept = [(name, value) for name, value in response.getheaders() if name.lower() not in HOP]
            return Answer(response.status, data, kept)
        raise RefusedError(503, "no_shard_available_action_exception", "the core does not answer")

    def json(self, method: str, path: str, query: str = "", body: Any = None) -> tuple[int, Any]:
        """Ask the core a JSON question of the double's own."""
        data = b"" if body is None else json.dumps(body).encode()
        target = quote(path, safe="/*,-_.") + (f"?{query}" if query else "")
        given = self.ask(method, target, data, {"Content-Type": "application/json"})
        return given.status, json.loads(given.body) if given.body else None
