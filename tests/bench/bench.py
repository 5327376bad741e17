#!/usr/bin/python3
"""Measures the collector against the article's chain, on the machine where the collector is installed.

Each chain gets the same lines over one TCP connection and writes what it makes of them to a file. Printed are CPU
microseconds an event (user and system, all threads), events a second, peak memory, and the ratio to the article's;
then the memory of an open flow. Usage: bench.py [--events 200000] [--open 50000 200000]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
CONFIGURATION = Path("/etc/syslog-ng")
FRAGMENTS = ("00-chain", "10-source", "20-parse", "30-correlate", "40-enrich")
PORT = 15140


def line(event: str, number: int, server: str, counters: tuple[int, int, int, int]) -> str:
    """Write a router's line."""
    client, port = f"10.77.0.{20 + number % 20}", 1024 + number * 7 % 60000
    packets, octets, packets_back, octets_back = counters
    return (
        f"<150>Nov 24 03:13:47 OpenWrt ulogd[1868]: [{event}]"
        f" ORIG: SRC={client} DST={server} PROTO=TCP SPT={port} DPT=443 PKTS={packets} BYTES={octets}"
        f" , REPLY: SRC={server} DST=198.18.0.1 PROTO=TCP SPT=443 DPT={port}"
        f" PKTS={packets_back} BYTES={octets_back} \n"
    )


def lines(events: int, together: int = 2000) -> bytes:
    """Write NEW and DESTROY of events/2 flows, so many of them open at a time; the same in every run."""
    chance = random.Random(1)
    servers = [f"198.18.{chance.randint(1, 5)}.{chance.randint(1, 254)}" for _ in range(2000)]
    flows = [
        (number, chance.choice(servers), tuple(chance.randint(1, 10**size) for size in (2, 5, 2, 6)))
        for number in range(events // 2)
    ]
    written = []
    for number, flow in enumerate(flows):
        written.append(line("NEW", flow[0], flow[1], (0, 0, 0, 0)))
        if number >= together:
            written.append(line("DESTROY", *flows[number - together]))
    written += [line("DESTROY", *flow) for flow in flows[-together:]]
    return "".join(written).encode()


def opened(count: int) -> bytes:
    """Write the NEWs of so many flows."""
    return b"".join(text + b"\n" for text in lines(2 * count, count).split(b"\n") if b"[NEW]" in text)


def article(folder: Path) -> str:
    """Return the article's configuration."""
    return (HERE / "article.conf").read_text().replace("PORT", str(PORT)).replace("OUT", str(folder / "out"))


def ours(folder: Path) -> str:
    """Return the installed fragments, with a file in place of Elasticsearch."""
    settings = json.loads((CONFIGURATION / "wrtflow/settings.json").read_text())
    settings |= {"state_directory": str(folder), "log_directory": str(folder)}
    settings["home_networks"] = ["10.77.0.0/24"]
    settings["names"] |= {"resolvers": ["127.0.0.1#9"]}
    (folder / "settings.json").write_text(json.dumps(settings))
    fragments = "\n".join((CONFIGURATION / f"conf.d/{name}.conf").read_text() for name in FRAGMENTS)
    ports = dict.fromkeys(re.findall(r"^\s+port\((\d+)\)", fragments, re.MULTILINE))
    for offset, old in enumerate(ports):
        fragments = fragments.replace(f"port({old})", f"port({PORT + offset})")
    fragments = re.sub(
        r'^    netmask6?\("[^"]+"\)', '    netmask("127.0.0.0/8")', fragments, flags=re.MULTILINE
    )
    return (
        f'@version: 4.8\n@include "scl.conf"\n{fragments}\n'
        f'destination d_wrtflow_store {{ file("{folder}/out" template("${{wrtflow.document}}\\n")); }};\n'
    )


class Result:
    """What a run took."""

    def __init__(self, events: int, cpu: float, wall: float, before: int, peak: int, documents: int) -> None:
        """Take seconds, and kilobytes."""
        self.cpu, self.rate = cpu / events * 1e6, events / wall
        self.peak, self.flow = peak, (peak - before) * 1024 / events
        self.documents = documents


def run(configure: Callable[[Path], str], data: bytes) -> Result:
    """Start syslog-ng, send the lines, wait until it is idle."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "syslog-ng.conf").write_text(configure(folder))
        process = subprocess.Popen(
            [
                "syslog-ng", "--foreground", "--no-caps", f"--cfgfile={folder}/syslog-ng.conf",
                f"--persist-file={folder}/persist", f"--control={folder}/control", f"--pidfile={folder}/pid",
            ],
            env=os.environ | {"WRTFLOW_SETTINGS": f"{folder}/settings.json"},
        )  # fmt: skip
        try:
            connection = connect()
            before, begun, begin = memory(process.pid, "VmRSS"), cpu(process.pid), time.monotonic()
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            last, end = cpu(process.pid), time.monotonic()
            # Idle is what does less than a fiftieth of a second's work in half a second (once a second it saves).
            while time.monotonic() - end < 2:
                time.sleep(0.5)
                if (now := cpu(process.pid)) - last > 0.02:
                    end = time.monotonic()
                last = now
            out = folder / "out"
            documents = out.read_bytes().count(b"\n") if out.exists() else 0
            return Result(
                data.count(b"\n"), last - begun, end - begin, before, memory(process.pid, "VmHWM"), documents
            )
        finally:
            process.terminate()
            process.wait()


def connect() -> socket.socket:
    """Connect as soon as somebody listens."""
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", PORT))
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise RuntimeError("syslog-ng does not listen")


def cpu(pid: int) -> float:
    """Return the seconds a process has worked."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, what: str) -> int:
    """Return kilobytes of a process's memory."""
    return int(re.search(rf"^{what}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--open", type=int, nargs="*", default=[50_000, 200_000])
    chosen = parser.parse_args()
    data = lines(chosen.events)
    results = {name: run(chain, data) for name, chain in (("article", article), ("wrtflow", ours))}
    base = results["article"]
    print(f"{'chain':<10}{'events/s':>10}{'us/event':>10}{'ratio':>8}{'peak MB':>9}{'documents':>11}")
    for name, result in results.items():
        print(
            f"{name:<10}{result.rate:>10.0f}{result.cpu:>10.1f}{result.cpu / base.cpu:>8.2f}"
            f"{result.peak / 1024:>9.0f}{result.documents:>11}"
        )
    for count in chosen.open:
        data = opened(count)
        for name, chain in (("article", article), ("wrtflow", ours)):
            print(f"{count} open flows, {name}: {run(chain, data).flow:.0f} bytes each")
    if any(result.documents != chosen.events // 2 for result in results.values()):
        sys.exit("documents are missing")


if __name__ == "__main__":
    main()
