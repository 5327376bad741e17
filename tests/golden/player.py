#!/usr/bin/python3
"""Plays a case of tests/golden to a syslog-ng with the collector's own fragments, and prints its documents.

Runs where the collector is installed, beside it: with a configuration, ports and state of its own, and a file in
place of Elasticsearch. Usage: player.py CASE.log

A case's lines are sent as they are, by TCP. Lines that begin with # are for the reader, and those with #! are orders:

    #! wait SECONDS            before the next step
    #! udp | tcp | json        how the next lines are sent (json: to the port for ulogd's objects)
    #! connection NAME         over another connection
    #! from ADDRESS            as another router (127.0.0.x)
    #! raw TEXT                send this; \\x00 and the like are bytes
    #! times COUNT TEXT        as raw, so often: {7} in it is 7 the first time, 8 the second ...; {7/256} and {7%256}
                               rise every 256 times and begin anew then
    #! huge BYTES              send a line of that size that begins as a flow
    #! restart | reload | kill | stop | start syslog-ng
    #! settings {JSON}         before the start, on top of the collector's settings
    #! dns {JSON}              before the start: a name server that knows these; address -> name, name -> address
    #! damage                  overwrite the state files with garbage (where syslog-ng runs: all but its journals)
    #! rows STATEMENT          SQL in state.sqlite
    #! folder full | freed | readonly | writable | gone
                               the state folder's disk is full and is not; it can't be written to (while syslog-ng is
                               stopped) and can; it is deleted (likewise)
    #! cost NAME               what syslog-ng works from here to the next cost is NAME's
    #! at most FACTOR of NAME: NAME
                               the CPU time of the second, against the first one's; a tenth of a second is forgiven
    #! delivered               of documents with one id the result has the first, as Elasticsearch does
    #! only TEXT               the result has the documents with this in them, and nothing of unparsed.log
    #! together                documents that are alike stand in the result once, with their number and their ids'
    #! until COUNT             wait until there are so many documents
    #! kept TEXT               wait until an open flow with this in its line is on disk

In the lines T-5 is that time as seconds since 1970, T being the start. In the documents times before T are written so
too; later ones as the step they fell into: step 0 begins with the first line, another one after each wait and each
order to syslog-ng. Hour and weekday follow from the start: they are checked here, and left out.
"""

from __future__ import annotations

import bisect
import contextlib
import datetime
import json
import math
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zoneinfo
from pathlib import Path

CONFIGURATION = Path("/etc/syslog-ng")
# The house's: three quarters of an hour from other zones.
ZONE = "Asia/Kathmandu"
FRAGMENTS = ("00-chain", "10-source", "20-parse", "30-correlate", "40-enrich")
# Seconds that a machine may take, however slow it is; nothing waits that long where all is well.
PATIENCE = 120


def main() -> None:
    """Play the case that is named."""
    case = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        orders = {line.removeprefix("#! ").partition(" ")[0] for line in case if line.startswith("#! ")}
        collector = Collector(Path(folder), settings_of(case), disk="folder" in orders)
        try:
            Player(collector).play(case)
        finally:
            # What is under way is written then.
            collector.end()
        documents = collector.documents()
        if only := [line.removeprefix("#! only ") for line in case if line.startswith("#! only ")]:
            documents = [found for found in documents if only[0] in json.dumps(found)]
        if "delivered" in orders:
            documents = list({found["_id"]: found for found in reversed(documents)}.values())[::-1]
        numbers: dict[str, int] = {}
        for found in documents:
            found["_id"] = f"id {numbers.setdefault(found['_id'], len(numbers) + 1)}"
        if "together" in orders:
            documents = together(documents)
        result = {"documents": documents}
        if (unparsed := collector.unparsed()) and not only:
            result["unparsed"] = unparsed
    print(json.dumps(result, indent=2, ensure_ascii=False))


def settings_of(case: list[str]) -> dict:
    """Return the settings in the case."""
    found: dict = {}
    for line in case:
        if line.startswith("#! settings "):
            found.update(json.loads(line.removeprefix("#! settings ")))
        elif line.startswith("#! dns "):
            server = NameServer(json.loads(line.removeprefix("#! dns ")))
            found["names"] = {"resolvers": [f"127.0.0.1#{server.port}"]}
    return found


def together(documents: list[dict]) -> list[dict]:
    """Return each kind of document once, with how many there are and how many ids they have."""
    ids: dict[str, list[str]] = {}
    for found in documents:
        ids.setdefault(json.dumps(found | {"_id": ""}), []).append(found["_id"])
    return [
        {"_documents": len(of_kind), "_ids": len(set(of_kind))}
        | {name: value for name, value in json.loads(text).items() if name != "_id"}
        for text, of_kind in ids.items()
    ]


class NameServer:
    """Answers from a small zone: an address has a name, a name addresses; what is not there does not exist."""

    def __init__(self, zone: dict[str, str]) -> None:
        """Answer from a thread of its own, as long as the player runs."""
        self._zone = zone
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        import dns.message
        import dns.rcode
        import dns.reversename
        import dns.rrset

        zone: dict[tuple[str, str], str] = {}
        for name, value in self._zone.items():
            if re.fullmatch("[0-9.]+|[0-9a-f:.]+", name):
                zone[dns.reversename.from_address(name).to_text(), "PTR"] = f"{value}."
            else:
                zone[f"{name}.", "AAAA" if ":" in value else "A"] = value
        while True:
            question, client = self._socket.recvfrom(4096)
            answer = dns.message.make_response(dns.message.from_wire(question), recursion_available=True)
            asked = answer.question[0]
            kind = dns.rdatatype.to_text(asked.rdtype)
            name = asked.name.to_text().lower()
            if (name, kind) in zone:
                answer.answer.append(dns.rrset.from_text(asked.name, 300, "IN", kind, zone[name, kind]))
            elif not any(name == known for known, _ in zone):
                answer.set_rcode(dns.rcode.NXDOMAIN)
            self._socket.sendto(answer.to_wire(), client)


class Collector:
    """A syslog-ng of its own with the installed fragments."""

    def __init__(self, folder: Path, changes: dict, disk: bool = False) -> None:
        """Write the configuration and start; disk: the state folder is on a small disk of its own."""
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        self._disk = disk
        if disk:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", self.state], check=True
            )
        self.steps: list[float] = []
        # Nobody else's: several players may run at a time, and no connection out begins at a port below 32768.
        self.port = 20000 + os.getpid() % 5000 * 2
        self.json_port = self.port + 1
        settings = json.loads((CONFIGURATION / "wrtflow/settings.json").read_text())
        settings |= {"state_directory": str(self.state), "log_directory": str(folder), "timezone": ZONE}
        # A golden document knows no name that is not in its own lines.
        settings["names"] |= {"resolvers": ["127.0.0.1#9"]}
        settings["names"] |= changes.pop("names", {})
        settings |= changes
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "syslog-ng.conf").write_text(self._configuration(settings))
        self.start()

    def _configuration(self, settings: dict) -> str:
        fragments = "\n".join((CONFIGURATION / f"conf.d/{name}.conf").read_text() for name in FRAGMENTS)
        ports = re.findall(r"^\s+port\((\d+)\)", fragments, re.MULTILINE)
        for old, new in zip(dict.fromkeys(ports), (self.port, self.json_port), strict=True):
            fragments = fragments.replace(f"port({old})", f"port({new})")
        fragments = re.sub(r"timeout\(\d+\)", f"timeout({settings['flow_timeout'] + 86400})", fragments)
        # The player's routers are on this machine.
        fragments = re.sub(
            r'^    netmask6?\("[^"]+"\)', '    netmask("127.0.0.0/8")', fragments, flags=re.MULTILINE
        )
        template = "${wrtflow.documents}\\n"
        return (
            f'@version: 4.8\n@include "scl.conf"\n{fragments}\n'
            f'destination d_wrtflow_store {{ file("{self.folder}/documents" template("{template}")); }};\n'
        )

    def start(self) -> None:
        """Start and wait until it listens."""
        self._process = subprocess.Popen(
            [
                "syslog-ng", "--foreground", "--no-caps", f"--cfgfile={self.folder}/syslog-ng.conf",
                f"--persist-file={self.folder}/persist", f"--control={self.folder}/control",
                f"--pidfile={self.folder}/pid",
            ],
            env=os.environ | {"WRTFLOW_SETTINGS": f"{self.folder}/settings.json"},
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        await_(lambda: connects(self.port) and self._answers(), "syslog-ng does not come up")

    def _answers(self) -> bool:
        command = ["syslog-ng-ctl", "stats", f"--control={self.folder}/control"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        self._process.send_signal(how)
        self._process.wait(PATIENCE)

    def end(self) -> None:
        """End it for good."""
        if self._process.poll() is None:
            self.stop()
        if self._disk:
            subprocess.run(["umount", "--lazy", self.state], check=True)

    def damage(self) -> None:
        """Overwrite the files in the state folder."""
        for file in self.state.iterdir():
            if file.name.endswith((".sqlite", ".json", "-wal", "-shm", "-journal")):
                with file.open("r+b") as content:
                    content.write(b"garbage " * (file.stat().st_size // 8 + 1))

    def rows(self, statement: str) -> None:
        """Change the state's rows behind the collector's back."""
        with contextlib.closing(sqlite3.connect(self.state / "state.sqlite", timeout=PATIENCE)) as file, file:
            file.execute(statement)

    def make_folder(self, how: str) -> None:
        """Have the state folder as ordered."""
        filler = self.state / "filler"
        match how:
            case "full":
                with contextlib.suppress(OSError), filler.open("wb", buffering=0) as content:
                    for size in (65536, 512):
                        with contextlib.suppress(OSError):
                            while content.write(b"\0" * size):
                                pass
            case "freed":
                filler.unlink()
            case "readonly" | "writable":
                option = "remount,ro" if how == "readonly" else "remount,rw"
                subprocess.run(["mount", "-o", option, self.state], check=True)
            case "gone":
                subprocess.run(["umount", self.state], check=True)
                self._disk = False
                self.state.rmdir()
            case _:
                raise ValueError(f"no such folder: {how}")

    def cpu(self) -> float:
        """Return the seconds that it has worked."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def reload(self) -> None:
        """Have it read its configuration again."""
        subprocess.run(
            ["syslog-ng-ctl", "reload", f"--control={self.folder}/control"],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def count(self) -> int:
        """Count the documents so far."""
        file = self.folder / "documents"
        return file.read_text().count("\n") // 2 if file.exists() else 0

    def kept(self, text: str) -> bool:
        """Whether an open flow with this in its line is on disk."""
        state = f"file:{self.state}/state.sqlite?mode=ro"
        # The file may not be there yet, or damaged on purpose.
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(state, uri=True, timeout=PATIENCE)) as file,
        ):
            return any(text in str(row) for row in file.execute("SELECT key, value FROM open"))
        return False

    def took(self, lines: int) -> bool:
        """Whether the sources have taken so many lines, and all that came of them is written."""
        answer = subprocess.run(
            ["syslog-ng-ctl", "stats", f"--control={self.folder}/control"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        received = waiting = 0
        for line in answer.splitlines():
            name, _, number = line.rpartition(";")
            if re.match("source;s_wrtflow_(syslog|json);.*;processed$", name):
                received += int(number)
            elif name.startswith("dst.file;d_wrtflow_store") and name.endswith(";queued"):
                waiting += int(number)
        return received >= lines and not waiting

    def documents(self) -> list[dict]:
        """Return the documents in the order they were written, with their ids and indices."""
        file = self.folder / "documents"
        found = []
        lines = file.read_text().splitlines() if file.exists() else []
        for action, text in zip(lines[0::2], lines[1::2], strict=True):
            index, ident = json.loads(action)["create"].values()
            document = json.loads(text)
            assert re.fullmatch(r"[A-Za-z0-9_-]{8}|[A-Za-z0-9_-]{12}", ident), ident
            assert index == f"network-{document['@timestamp'][:7].replace('-', '.')}", index
            found.append({"_id": ident} | self._relative(document))
        return found

    def unparsed(self) -> list[str]:
        """Return the content of unparsed.log, without the times."""
        file = self.folder / "unparsed.log"
        return [line.partition(" ")[2] for line in file.read_text().splitlines()] if file.exists() else []

    def _relative(self, document: dict) -> dict:
        event, start = document["event"], None
        if "start" in event:
            start, end = map(datetime.datetime.fromisoformat, (event["start"], document["@timestamp"]))
            assert event["duration"] == round((end - start).total_seconds() * 1000) * 1_000_000
            event["start"], event["duration"] = self._named(event["start"]), "end - start"
            if start.timestamp() < self.steps[0] <= end.timestamp():
                event["start"] = f"end - {round((end - start).total_seconds())} s"
        document["@timestamp"] = self._named(document["@timestamp"])
        if start is not None:
            moment = start.astimezone(zoneinfo.ZoneInfo(ZONE))
            assert document["wrtflow"].pop("hour") == moment.hour
            assert document["wrtflow"].pop("weekday") == moment.isoweekday()
        return document

    def _named(self, text: str) -> str:
        """Name a time by the step it fell into."""
        seconds = datetime.datetime.fromisoformat(text).timestamp()
        step = bisect.bisect_right(self.steps, seconds) - 1
        return f"step {step}" if step >= 0 else f"T{math.floor(seconds) - int(self.steps[0])}"


class Player:
    """Sends a case's lines."""

    def __init__(self, collector: Collector) -> None:
        """Begin with one TCP connection from 127.0.0.1."""
        self._collector = collector
        self._how, self._name, self._from = "tcp", "1", "127.0.0.1"
        self._sockets: dict[tuple[str, str, str], socket.socket] = {}
        self._sent = 0
        self._costs: dict[str, float] = {}
        self._cost: tuple[str, float] | None = None

    def play(self, case: list[str]) -> None:
        """Send all and wait until all is through."""
        self._step()
        for line in case:
            if line.startswith("#!"):
                self._order(*line.removeprefix("#! ").partition(" ")[::2])
            elif line and not line.startswith("#"):
                self._send(re.sub(r"\bT(-\d+)\b", self._seconds, line).encode())
        self._settle()

    def _step(self) -> None:
        # Documents know milliseconds.
        # A document's time may be some ms early: it is the steady clock's, moved to the wall clock.
        self._collector.steps.append(int(time.time() * 1000 - 5) / 1000)

    def _seconds(self, moment: re.Match[str]) -> str:
        return str(int(self._collector.steps[0]) + int(moment[1]))

    def _order(self, order: str, argument: str) -> None:
        match order:
            case "wait":
                self._settle()
                time.sleep(float(argument))
                self._step()
            case "udp" | "tcp" | "json":
                self._how = order
            case "connection":
                self._name = argument
            case "from":
                self._from = argument
            case "raw":
                self._send(unescaped(argument))
            case "huge":
                self._send(
                    b"<150>Nov 24 03:13:49 OpenWrt ulogd[1868]: [DESTROY] ORIG: SRC=".ljust(
                        int(argument), b"1"
                    )
                )
            case "times":
                count, _, line = argument.partition(" ")
                self._send(*(unescaped(numbered(line, nth)) for nth in range(int(count))))
            case "cost":
                self._count_cost()
                self._cost = argument, self._collector.cpu()
            case "at":
                self._count_cost()
                factor, one, other = re.fullmatch("most ([0-9.]+) of (.*): (.*)", argument).groups()
                if self._costs[other] > float(factor) * self._costs[one] + 0.1:
                    raise RuntimeError(f"it costs {self._costs} s of CPU")
            case "damage":
                self._collector.damage()
            case "rows":
                self._collector.rows(argument)
            case "folder":
                self._collector.make_folder(argument)
            case "kept":
                self._settle()
                await_(lambda: self._collector.kept(argument), f"{argument} is not on disk")
            case "until":
                await_(lambda: self._collector.count() >= int(argument), f"fewer than {argument} documents")
            case "reload":
                self._settle()
                self._collector.reload()
                self._step()
            case "restart" | "kill" | "stop" | "start":
                if order != "start":
                    self._settle()
                    for connection in self._sockets.values():
                        connection.close()
                    self._sockets = {}
                    self._sent = 0
                    self._collector.stop(signal.SIGKILL if order == "kill" else signal.SIGTERM)
                if order != "stop":
                    self._collector.start()
                    self._step()
            case "settings" | "dns" | "only" | "delivered" | "together":
                pass
            case _:
                raise ValueError(f"no such order: {order}")

    def _count_cost(self) -> None:
        if self._cost is not None:
            self._settle()
            name, before = self._cost
            self._costs[name] = self._costs.get(name, 0) + self._collector.cpu() - before
            self._cost = None

    def _send(self, *lines: bytes) -> None:
        key = (self._how, self._name, self._from)
        if key not in self._sockets:
            kind = socket.SOCK_DGRAM if self._how == "udp" else socket.SOCK_STREAM
            connection = socket.socket(socket.AF_INET, kind)
            connection.bind((self._from, 0))
            port = self._collector.json_port if self._how == "json" else self._collector.port
            connection.connect(("127.0.0.1", port))
            self._sockets[key] = connection
        if self._how == "udp":
            for line in lines:
                self._sockets[key].sendall(line)
            self._sent += len(lines)
        else:
            text = b"\n".join([*lines, b""])
            self._sockets[key].sendall(text)
            self._sent += text.count(b"\n")
        # Between two connections nothing but our patience keeps the order.
        if len(self._sockets) > 1:
            self._settle()

    def _settle(self) -> None:
        """Wait until syslog-ng has read all lines that were sent, and written the documents."""
        await_(lambda: self._collector.took(self._sent), "lines are missing")


def unescaped(text: str) -> bytes:
    """Return the bytes that a text with escapes means."""
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def numbered(line: str, nth: int) -> str:
    """Fill in the numbers of a line's nth copy."""

    def fill(found: re.Match[str]) -> str:
        first, slower, around = (int(part or 0) for part in found.groups())
        count = nth // (slower or 1)
        return str(first + (count % around if around else count))

    return re.sub(r"\{(\d+)(?:/(\d+))?(?:%(\d+))?\}", fill, line)


def await_(condition, otherwise: str) -> None:
    """Wait for the condition; RuntimeError when patience ends."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(otherwise)
        time.sleep(0.05)


def connects(port: int) -> bool:
    """Tell whether a port is open."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
