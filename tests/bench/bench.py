#!/usr/bin/python3
"""Measures the collector against the article's chain, on a machine of its own where the role has installed it.

`make bench` makes that machine and runs this there. Both chains get the same lines over one TCP connection, in the same
run: the ratios are what counts, the figures are this machine's. CPU is user and system time of syslog-ng, all its
threads. A machine that is busy with other things makes any run dearer and none cheaper: what is compared runs in turn,
several times, and the cheapest run of each counts; where a claim does not hold yet there are more of them.
Usage: bench.py [PART...]; --help lists the parts.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import json
import os
import random
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
CONFIGURATION = Path("/etc/syslog-ng")
FRAGMENTS = ("00-chain", "10-source", "20-parse", "30-correlate", "40-enrich")
PORT = 15140
EVENTS = 200_000
PATIENCE = 120

# Runs of what is compared: as many at least, and at most.
LEAST, MOST = 3, 5

# What is claimed: shares of the article's CPU, bytes of memory of an open flow, share of the CPU with a name server
# that answers at once, and seconds to the sink beyond the article's.
FILE, BULK, MEMORY, NAMES, DELAY = 0.45, 0.48, 2000, 1.15, 1.0

# The collector's memory at the end of the many events, against the memory after three quarters of them.
FLAT = 1.1

HEAD = "<{}>Nov 24 03:13:47 OpenWrt {}: "
SERVERS = [
    f"198.18.{chance.randint(1, 5)}.{chance.randint(1, 254)}"
    for chance in [random.Random(1)]
    for _ in range(1000)
]
CLIENTS = [f"10.77.0.{number}" for number in range(20, 40)]


# The lines.


def line(event: str, number: int, server: str, counters: tuple[int, ...] = (0, 0, 0, 0)) -> str:
    """Write a router's line."""
    client, port = CLIENTS[number % len(CLIENTS)], 1024 + number * 7 % 60000
    packets, octets, packets_back, octets_back = counters
    return (
        f"{HEAD.format(150, 'ulogd[1868]')}[{event}]"
        f" ORIG: SRC={client} DST={server} PROTO=TCP SPT={port} DPT=443 PKTS={packets} BYTES={octets}"
        f" , REPLY: SRC={server} DST=198.18.0.1 PROTO=TCP SPT=443 DPT={port}"
        f" PKTS={packets_back} BYTES={octets_back} \n"
    )


def leases() -> bytes:
    """Write how the devices got their names."""
    texts = (
        f"{HEAD.format(30, 'dnsmasq-dhcp[1]')}DHCPACK(br-lan) {client} 02:77:00:00:00:{number:02x} device-{number}\n"
        for number, client in enumerate(CLIENTS)
    )
    return "".join(texts).encode()


def lines(events: int, together: int = 2000) -> bytes:
    """Write NEW and DESTROY of events/2 flows, so many of them open at a time; the same in every run."""
    chance = random.Random(1)
    flows = [
        (number, chance.choice(SERVERS), tuple(chance.randint(1, 10**size) for size in (2, 5, 2, 6)))
        for number in range(events // 2)
    ]
    written = []
    for number, (_, server, _) in enumerate(flows):
        written.append(line("NEW", number, server))
        if number >= together:
            written.append(line("DESTROY", *flows[number - together]))
    written += [line("DESTROY", *flow) for flow in flows[-together:]]
    return "".join(written).encode()


def questions() -> bytes:
    """Write how each device asked for the name of each server."""
    texts = []
    for client in CLIENTS:
        for number, server in enumerate(SERVERS):
            head = f"{HEAD.format(30, 'dnsmasq[1]')}{number} {client}/40000"
            texts.append(
                f"{head} query[A] host-{number}.example from {client}\n{head} reply host-{number}.example is {server}\n"
            )
    return "".join(texts).encode()


def opened(count: int) -> bytes:
    """Write the NEWs of so many flows."""
    chance = random.Random(1)
    return "".join(line("NEW", number, chance.choice(SERVERS)) for number in range(count)).encode()


# The chains.


def article(folder: Path, sink: str, names: str) -> str:
    """Return the article's configuration. Sink: file or bulk. Names: warm, or those of the resolver."""
    text = (HERE / "article.conf").read_text()
    values = {
        "PORT": PORT,
        "FOLDER": folder,
        "SINK": f"d_{sink}",
        "NAMES": "warm" if names == "warm" else "ask",
    }
    return re.sub("PORT|FOLDER|SINK|NAMES", lambda found: str(values[found[0]]), text)


def ours(folder: Path, sink: str, names: str) -> str:
    """Return the installed fragments, with a file in place of Elasticsearch if the sink is one.

    Names: warm, from a run before (warm()), or those of the resolver.
    """
    settings = json.loads((CONFIGURATION / "wrtflow/settings.json").read_text())
    settings |= {"state_directory": str(folder), "log_directory": str(folder)}
    (folder / "settings.json").write_text(json.dumps(settings))
    if names == "warm":
        shutil.copy(warm(), folder)
    names_of = FRAGMENTS if sink == "file" else (*FRAGMENTS, "90-store")
    fragments = "\n".join((CONFIGURATION / f"conf.d/{name}.conf").read_text() for name in names_of)
    ports = dict.fromkeys(re.findall(r"^\s+port\((\d+)\)", fragments, re.MULTILINE))
    for offset, old in enumerate(ports):
        fragments = fragments.replace(f"port({old})", f"port({PORT + offset})")
    fragments = re.sub(
        r'^    netmask6?\("[^"]+"\)', '    netmask("127.0.0.0/8")', fragments, flags=re.MULTILINE
    )
    fragments = fragments.replace("disk-buffer(", f'disk-buffer(dir("{folder}") ')
    store = (
        f'destination d_wrtflow_store {{ file("{folder}/out" template("${{wrtflow.documents}}\\n")); }};\n'
    )
    return f'@version: 4.8\n@include "scl.conf"\n{fragments}\n{store if sink == "file" else ""}'


CHAINS = {"article": article, "wrtflow": ours}


@functools.cache
def warm() -> Path:
    """Return a state file that has all servers' names: those of a chain that had time to ask for them."""
    state = Path(tempfile.mkdtemp(prefix="bench-")) / "state.sqlite"
    events = ((event, flow) for flow in enumerate(SERVERS) for event in ("NEW", "DESTROY"))
    data = "".join(line(event, *flow) for event, flow in events).encode()
    with helper("resolver.py", "0"), Chain("wrtflow", names="resolver") as chain:
        # Each address is asked for by the flows that go there; the second document of each has the name.
        for _ in range(PATIENCE // 5):
            before = chain.named()
            chain.router.sendall(data)
            chain.idle()
            if chain.named() - before == len(SERVERS):
                break
        else:
            raise RuntimeError("the names of the servers don't become known")
        chain.stop()
        shutil.copy(chain.folder / state.name, state)
    return state


class Chain:
    """A running syslog-ng with one of the chains."""

    def __init__(self, name: str, sink: str = "file", names: str = "warm") -> None:
        """Start it; sink and names as the chain's function takes them."""
        # As the file has it: the article's chain writes objects, ours what goes to _bulk.
        self._document = b'{"create":' if name == "wrtflow" else b"\n"
        self._temporary = tempfile.TemporaryDirectory(prefix="bench-")
        self.folder = Path(self._temporary.name)
        (self.folder / "syslog-ng.conf").write_text(CHAINS[name](self.folder, sink, names))
        self._process = subprocess.Popen(
            [
                "syslog-ng", "--foreground", "--no-caps", f"--cfgfile={self.folder}/syslog-ng.conf",
                f"--persist-file={self.folder}/persist", f"--control={self.folder}/control",
                f"--pidfile={self.folder}/pid",
            ],
            env=os.environ | {"WRTFLOW_SETTINGS": f"{self.folder}/settings.json"},
        )  # fmt: skip
        await_(self._listens, "syslog-ng does not listen", 20)
        self.router = socket.create_connection(("127.0.0.1", PORT))

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", PORT)) == 0

    def __enter__(self) -> Chain:
        """Run it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and forget what it has written."""
        self.router.close()
        # The article's chain does not listen while it waits for a name.
        self._process.kill()
        self._process.wait()
        self._temporary.cleanup()

    def cpu(self) -> float:
        """Return the seconds it has worked."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, what: str = "VmRSS") -> int:
        """Return the bytes of memory it has now; VmHWM: had at most."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(rf"^{what}:\s+(\d+)", status, re.MULTILINE)[1]) * 1024

    def written(self) -> int:
        """Count the documents in the file."""
        out = self.folder / "out"
        return out.read_bytes().count(self._document) if out.exists() else 0

    def named(self) -> int:
        """Count the documents in the file that have a site's confirmed name."""
        out = self.folder / "out"
        return out.read_bytes().count(b'"domain_source":"ptr"') if out.exists() else 0

    def datagrams(self) -> tuple[int, int]:
        """Return the bytes of the UDP socket's buffer, and how many datagrams found no room in it."""
        (told,) = re.findall(
            rf":{PORT} .*\n?.*skmem:\(\S*?rb(\d+)\S*?d(\d+)\)",
            subprocess.run(["ss", "-Hlunm"], capture_output=True, text=True, check=True).stdout,
        )
        return int(told[0]), int(told[1])

    def stop(self) -> None:
        """End it properly: it writes its state."""
        self._process.terminate()
        self._process.wait(PATIENCE)

    def idle(self) -> float:
        """Wait until it has no more to do; return when that began (monotonic seconds)."""
        last, end = self.cpu(), time.monotonic()
        # Once a second it looks whether there is something to save: that is no work.
        while time.monotonic() - end < 2:
            time.sleep(0.5)
            if (now := self.cpu()) - last > 0.02:
                end = time.monotonic()
            last = now
        return end


class Figures:
    """What a run of many lines took."""

    def __init__(
        self, name: str, data: bytes, sink: str = "file", names: str = "warm", asked: bytes = b""
    ) -> None:
        """Send the lines, wait until the documents are through; RuntimeError where some are missing.

        Asked: what our chain is told before.
        """
        events = data.count(b"\n")
        with (
            bulk_sink() if sink == "bulk" else contextlib.nullcontext() as bulk,
            Chain(name, sink, names) as chain,
        ):
            if name == "wrtflow":
                chain.router.sendall(leases() + asked)
                chain.idle()
            before, begun, begin = chain.memory(), chain.cpu(), time.monotonic()
            chain.router.sendall(data)
            destroys = data.count(b"[DESTROY]")
            if destroys:
                await_(
                    lambda: (bulk.documents() if bulk else chain.written()) >= destroys,
                    f"{name}: flows are missing",
                )
            end = time.monotonic() if destroys else chain.idle()
            self.cpu = (chain.cpu() - begun) / events * 1e6
            self.rate = events / (end - begin)
            self.peak = chain.memory("VmHWM") / 2**20
            self.each = (chain.memory() - before) / events


class Bulk:
    """The sink's side of the benchmark."""

    def __init__(self) -> None:
        """Ask nothing yet."""
        self._context = ssl.create_default_context(cafile=str(CONFIGURATION / "wrtflow/elasticsearch-ca.crt"))

    def count(self, what: str) -> int:
        """Return how many documents, or ids, there are."""
        connection = http.client.HTTPSConnection("127.0.0.1", 9200, context=self._context, timeout=10)
        connection.request("GET", "/")
        found = json.loads(connection.getresponse().read())[what]
        connection.close()
        return found

    def documents(self) -> int:
        """Return how many documents have come."""
        return self.count("documents")


@contextlib.contextmanager
def helper(*command: str) -> Iterator[None]:
    """Run another of this folder's programs meanwhile."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / command[0]), *command[1:]], stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def bulk_sink() -> Iterator[Bulk]:
    """Run an empty sink."""
    with helper("sink.py", "9200", str(HERE / "server.pem")):
        bulk = Bulk()
        await_(lambda: answers(bulk), "the sink does not come up", 20)
        yield bulk


def answers(bulk: Bulk) -> bool:
    """Whether the sink is up."""
    try:
        return bulk.documents() == 0
    except OSError:
        return False


def await_(condition: Callable[[], object], otherwise: str, patience: float = PATIENCE) -> None:
    """Wait for the condition; RuntimeError when patience ends."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(otherwise)
        time.sleep(0.1)


# The parts. Each prints its lines of the table, and returns the claims that it found untrue.


def row(what: str, chain: str, *values: str) -> None:
    """Print a line of the table."""
    print(f"{what:<34}{chain:<9}{''.join(f'{value:>13}' for value in values)}", flush=True)


def check(claims: list[tuple[bool, str]]) -> list[str]:
    """Return the texts of what is not so."""
    return [text for true, text in claims if not true]


Runs = dict[str, Callable[[], Figures]]


def cheapest(runs: Runs, holds: Callable[[dict[str, Figures]], bool]) -> dict[str, Figures]:
    """Run these in turn, until the claim holds with the cheapest of each, LEAST to MOST times."""
    best: dict[str, Figures] = {}
    for number in range(MOST):
        for name, run in runs.items():
            best[name] = min((run(), *filter(None, [best.get(name)])), key=lambda done: done.cpu)
        if number + 1 >= LEAST and holds(best):
            break
    return best


def speed(sink: str, claim: float) -> list[str]:
    """Compare CPU, events a second and peak memory; claim: our share of the article's CPU at most."""
    row(f"{EVENTS:,} lines into a {sink}", "", "us/event", "events/s", "peak MB", "CPU ratio")
    data = lines(EVENTS)

    def share(best: dict[str, Figures], name: str = "wrtflow") -> float:
        return best[name].cpu / best["article"].cpu

    runs: Runs = {name: functools.partial(Figures, name, data, sink) for name in CHAINS}
    best = cheapest(runs, lambda best: share(best) <= claim)
    for name, run in best.items():
        row("", name, f"{run.cpu:.1f}", f"{run.rate:,.0f}", f"{run.peak:.0f}", f"{share(best, name):.2f}")
    text = f"into a {sink}: {share(best):.3f} of the article's CPU, more than {claim}"
    return check([(share(best) <= claim, text)])


def file() -> list[str]:
    """200,000 lines into a file."""
    return speed("file", FILE)


def bulk() -> list[str]:
    """200,000 lines into a sink for _bulk, over TLS, through a disk buffer."""
    return speed("bulk", BULK)


def names() -> list[str]:
    """Reverse DNS of 1,000 new addresses: answered at once, after 50 ms, never."""
    row("reverse DNS, all addresses new", "", "us/event", "events/s", "of itself")
    data = lines(EVENTS // 2)

    def run(delay: str) -> Figures:
        with helper("resolver.py", delay):
            return Figures("wrtflow", data, names="resolver")

    def share(best: dict[str, Figures], delay: str) -> float:
        return best[delay].cpu / best["0"].cpu

    runs: Runs = {delay: functools.partial(run, delay) for delay in WHEN}
    best = cheapest(runs, lambda best: max(share(best, delay) for delay in WHEN) <= NAMES)
    untrue = []
    for delay, done in best.items():
        text = f"{share(best, delay):.2f}"
        row(f"  answers {WHEN[delay]}", "wrtflow", f"{done.cpu:.1f}", f"{done.rate:,.0f}", text)
        claim = f"with DNS that answers {WHEN[delay]}: {text} of its CPU with one that answers at once"
        untrue += check([(share(best, delay) <= NAMES, claim)])
    for delay in WHEN:
        with helper("resolver.py", delay), Chain("article", names="resolver") as chain:
            # Lines for longer than it is watched, as far as it takes them.
            chain.router.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                chain.router.send(lines(100_000, together=1))
            time.sleep(5)
            row(f"  answers {WHEN[delay]}", "article", "", f"{2 * chain.written() / 5:,.1f}")
    return untrue


WHEN = {"0": "at once", "0.05": "after 50 ms", "never": "never"}


def memory() -> list[str]:
    """50,000 and 200,000 open flows; ours carry their sites' names."""
    row("open flows", "", "bytes each", "peak MB", "ratio")
    untrue = []
    for count in (50_000, 200_000):
        data = opened(count)
        runs = {name: Figures(name, data, asked=questions()) for name in CHAINS}
        for name, run in runs.items():
            share = run.each / runs["article"].each
            row(f"  {count:,}", name, f"{run.each:,.0f}", f"{run.peak:,.0f}", f"{share:.2f}")
        each = runs["wrtflow"].each
        text = f"{each:.0f} bytes of memory for each of {count:,} open flows, more than {MEMORY}"
        untrue += check([(each <= MEMORY, text)])
    return untrue


def burst() -> list[str]:
    """20,000 events/s for 60 s over TCP, to the sink."""
    rate, seconds = 20_000, 60
    row("burst of 20,000 events/s, 60 s", "", "lost", "peak MB", "last after", "router waits")
    data = lines(rate * seconds).splitlines(keepends=True)
    flows = rate * seconds // 2
    with bulk_sink() as sink, Chain("wrtflow", "bulk") as chain:
        chain.router.sendall(leases())
        begin, late = time.monotonic(), 0.0
        for tenth in range(seconds * 10):
            chain.router.sendall(b"".join(data[tenth * rate // 10 : (tenth + 1) * rate // 10]))
            # How far the collector holds the router back, which it must not.
            late = max(late, time.monotonic() - begin - (tenth + 1) / 10)
            time.sleep(max(0.0, begin + (tenth + 1) / 10 - time.monotonic()))
        sent = time.monotonic()
        # As long as documents come; what never comes is lost.
        before = -1
        while (now := sink.count("ids")) < flows and now != before:
            before = now
            time.sleep(3)
        lost = flows - sink.count("ids")
        after = time.monotonic() - sent
        row(
            "",
            "wrtflow",
            f"{lost:,}",
            f"{chain.memory('VmHWM') / 2**20:.0f}",
            f"{after:.1f} s",
            f"{late:.1f} s",
        )
    return check([(lost == 0, f"{lost} of {flows} flows of the burst are lost")])


def many() -> list[str]:
    """2,000,000 events as fast as they go, to the sink: the memory stays flat."""
    row("2,000,000 events", "", "lost", "events/s", *(f"MB at {part}/4" for part in range(1, 5)))
    data = lines(500_000)
    flows = data.count(b"[DESTROY]")
    sizes = []
    with bulk_sink() as sink, Chain("wrtflow", "bulk") as chain:
        chain.router.sendall(leases())
        begin = time.monotonic()
        for part in range(1, 5):
            chain.router.sendall(data)
            await_(lambda sent=part * flows: sink.count("ids") >= sent, "flows are missing")
            sizes.append(chain.memory() / 2**20)
        rate = 4 * data.count(b"\n") / (time.monotonic() - begin)
        lost = 4 * flows - sink.count("ids")
    row("", "wrtflow", f"{lost:,}", f"{rate:,.0f}", *(f"{size:.0f}" for size in sizes))
    text = f"in the last quarter the memory grows from {sizes[-2]:.0f} to {sizes[-1]:.0f} MB"
    return check([(lost == 0, f"{lost} flows are lost"), (sizes[-1] <= sizes[-2] * FLAT, text)])


def datagrams() -> list[str]:
    """5,000 lines/s for 60 s over UDP, to the sink."""
    rate, seconds = 5_000, 60
    row("5,000 datagrams/s, 60 s", "", "lost", "flows lost", "buffer KB")
    data = lines(rate * seconds).splitlines()
    with bulk_sink() as sink, Chain("wrtflow", "bulk") as chain, socket.socket(type=socket.SOCK_DGRAM) as udp:
        chain.router.sendall(leases())
        udp.connect(("127.0.0.1", PORT))
        begin = time.monotonic()
        for number, text in enumerate(data):
            udp.send(text)
            time.sleep(max(0.0, begin + number / rate - time.monotonic()) if number % 50 == 0 else 0)
        chain.idle()
        buffer, lost = chain.datagrams()
        flows = len(data) // 2 - sink.count("ids")
    row("", "wrtflow", f"{lost:,}", f"{flows:,}", f"{buffer / 1024:.0f}")
    return check([(lost == 0, f"{lost} of {len(data):,} datagrams are lost")])


def delay() -> list[str]:
    """From the DESTROY to the sink."""
    row("DESTROY to the bulk sink", "", "median s", "most s")
    usual = {}
    for name in CHAINS:
        took = []
        with bulk_sink() as sink, Chain(name, "bulk") as chain:
            for number in range(12):
                chain.router.sendall(
                    (line("NEW", number, SERVERS[0]) + line("DESTROY", number, SERVERS[0])).encode()
                )
                begin = time.monotonic()
                await_(lambda expected=number + 1: sink.documents() >= expected, "a flow is missing")
                took.append(time.monotonic() - begin)
        usual[name] = statistics.median(took)
        row("", name, f"{usual[name]:.2f}", f"{max(took):.2f}")
    # Elasticsearch makes it searchable within its refresh interval, a second.
    text = f"a flow takes {usual['wrtflow']:.1f} s to the sink, the article's {usual['article']:.1f} s"
    return check([(usual["wrtflow"] <= usual["article"] + DELAY, text)])


PARTS = {part.__name__: part for part in (file, bulk, names, memory, burst, many, datagrams, delay)}


def main() -> None:
    """Print the table; exit 1 when a claim is untrue."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    texts = "; ".join(f"{name}: {part.__doc__.rstrip('.')}" for name, part in PARTS.items())
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{texts}. Default: all.")
    chosen = parser.parse_args().parts or list(PARTS)
    untrue = [text for name in chosen for text in PARTS[name]()]
    if untrue:
        sys.exit("Not as claimed:\n  " + "\n  ".join(untrue))


if __name__ == "__main__":
    main()
