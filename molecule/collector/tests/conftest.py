"""Fixtures of the collector's tests: its machine, and the double of Elasticsearch at the end of the chain."""

import datetime
import itertools
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

CONTAINER = os.environ.get("WRTFLOW_COLLECTOR", "wrtflow-logserver")

#: Seconds that a machine may take, however slow it is; nothing waits that long where all is well. Where it was in vain
#: once, something is broken, and the other tests need not find out as slowly.
PATIENCE, IMPATIENCE = 200, 20


class Machine:
    """The log server."""

    def __init__(self) -> None:
        """Know of nothing that was before."""
        self._began = datetime.datetime.now(datetime.UTC).isoformat()
        self._ports = itertools.count(1024)
        self._patience = PATIENCE

    def port(self) -> int:
        """Return a port that no other flow of these tests has."""
        return next(self._ports)

    def run(self, *command: str, check: bool = True, stdin: bytes | None = None) -> str:
        """Run a command there and return what it prints."""
        ended = subprocess.run(
            ["docker", "exec", "-i", CONTAINER, *command], input=stdin, capture_output=True
        )
        if check and ended.returncode:
            raise AssertionError(f"{' '.join(command)}: {ended.stderr.decode()}{self.journal()}")
        return ended.stdout.decode()

    def put(self, path: str, content: bytes) -> None:
        """Write a file there."""
        self.run("sh", "-c", f"mkdir -p $(dirname {path}) && cat >{path}", stdin=content)

    def send(self, transport: str, lines: list[str], address: str = "10.77.0.10") -> None:
        """Send lines to the collector's port, as logread does: a newline after each by TCP, none by UDP."""
        script = (
            "import json,socket,sys\n"
            "transport,address,lines=json.load(sys.stdin)\n"
            "s=socket.socket(socket.AF_INET,socket.SOCK_STREAM if transport=='tcp' else socket.SOCK_DGRAM)\n"
            "s.connect((address,514))\n"
            "for line in lines: s.sendall(line.encode()+(b'\\n' if transport=='tcp' else b''))\n"
        )
        self.run("python3", "-c", script, stdin=json.dumps([transport, address, lines]).encode())

    def documents(self, since: str | None = None) -> dict[str, dict]:
        """Return the documents in the double of Elasticsearch, by id: those of this run, or since a time (ISO 8601)."""
        answer = json.loads(self.run("curl", "-sk", "https://10.77.0.10:9200/_double"))
        return {
            id_: json.loads(source) | {"_index": index}
            for index, sources in answer["documents"].items()
            # Health documents come as well.
            if index.startswith("network-")
            for id_, source in sources.items()
            if json.loads(source)["@timestamp"] >= (self._began if since is None else since)
        }

    def of_ports(self, ports) -> list[dict]:
        """Return the documents of some flows, when each of them has one."""
        wanted = set(ports)
        found = [
            document for document in self.documents().values() if document["source"].get("port") in wanted
        ]
        return found if {document["source"]["port"] for document in found} == wanted else []

    def health(self) -> dict:
        """Return the collector's health record."""
        return json.loads(self.run("wrtflow", "health", "--json", check=False))

    def told(self, part: str, name: str) -> int:
        """Return a number of the health record, 0 if it is missing."""
        return self.health().get(part, {}).get(name, 0)

    def behave(self, behaviour: dict | list) -> None:
        """Have the double of Elasticsearch misbehave, as molecule/doubles/bulk/bulk.py says."""
        url = "https://10.77.0.10:9200/_double"
        self.run(
            "curl", "-skf", "-X", "PUT", url, "--data-binary", "@-", stdin=json.dumps(behaviour).encode()
        )

    def main_pid(self) -> str:
        """Return syslog-ng's process id, 0 if it does not run."""
        return self.run("systemctl", "show", "--property=MainPID", "--value", "syslog-ng").strip()

    def restart(self) -> None:
        """Restart syslog-ng."""
        self.run("systemctl", "restart", "syslog-ng")
        self.wait("it listens", lambda: self.listens(514))

    def listens(self, port: int) -> bool:
        """Tell whether a TCP port is open."""
        return f":{port} " in self.run("ss", "-Hltn")

    def kept(self) -> str:
        """Return the open flows that are on disk."""
        script = (
            "import sqlite3\n"
            "state = sqlite3.connect('file:/var/lib/wrtflow/state.sqlite?mode=ro', uri=True, timeout=20)\n"
            "for row in state.execute('SELECT key, value FROM open'): print(*row)"
        )
        return self.run("python3", "-c", script)

    def journal(self) -> str:
        """Return the end of syslog-ng's journal."""
        return subprocess.run(
            ["docker", "exec", CONTAINER, "journalctl", "-u", "syslog-ng", "-n", "30", "--no-pager", "-o", "cat"],
            capture_output=True, text=True,
        ).stdout  # fmt: skip

    def wait(self, what: str, condition):
        """Return the condition's first true value; show journal and health when patience ends."""
        end = time.monotonic() + self._patience
        while not (value := condition()):
            if time.monotonic() > end:
                self._patience = IMPATIENCE
                raise AssertionError(
                    f"{what}: never\n{json.dumps(self.health(), indent=1)}\n{self.journal()}"
                )
            time.sleep(0.2)
        return value


@pytest.fixture(scope="session")
def machine() -> Machine:
    return Machine()


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).parents[3] / "tests/golden"
