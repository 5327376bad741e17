"""Ten minutes of everything: good flows of several routers, forged lines, floods, and what can end a collector.

At the end every good flow is exactly one right document. libfaketime steps the clock that the collector sees.

WRTFLOW_SOAK: seconds that it lasts; WRTFLOW_SOAK_SEED: the seed of a run that is to be repeated.
"""

import base64
import collections
import dataclasses
import datetime
import ipaddress
import itertools
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import CONTAINER
from lab import AHEAD, FAKETIME

SECONDS = int(os.environ.get("WRTFLOW_SOAK", "600"))
STATE = "/var/lib/wrtflow"

# Seconds: NTP's corrections, another time zone, a month of another year.
STEPS = (-30, 30, -7200, 7200, -300 * 86400, 30 * 86400)

# Each has an address of its own. What is forged comes from the last one, and by hosts that are nobody's.
ROUTERS = {"north": "10.77.0.101", "south": "10.77.0.102", "east": "10.77.0.103"}
FORGER = "10.77.0.109"
DEVICES = {"north": (20, 21, 22), "south": (30, 31, 32), "east": (40, 41, 42)}
# Asks for no names.
SILENT = 50
COUNTRIES = {1: "DE", 2: "CN", 3: "US"}

# Seconds that a start may be beside when its NEW was sent and read, as this test sees it.
SLACK = 2

# A good flow is told by its bytes; no forged line has so many.
FIRST = 1_000_000

# In the container: sends what it is told to over connections that it keeps, and answers each order with a line.
SENDER = """
import base64, json, socket, sys
connections = {}
for order in sys.stdin:
    try:
        for address, how, text in json.loads(order):
            if how == "close":
                for connection in connections.values():
                    connection.close()
                connections.clear()
                continue
            if (address, how) not in connections:
                kind = socket.SOCK_DGRAM if how == "udp" else socket.SOCK_STREAM
                connection = connections[address, how] = socket.socket(socket.AF_INET, kind)
                connection.settimeout(100)
                connection.bind((address, 0))
                connection.connect(("10.77.0.10", 5140 if how == "json" else 514))
            connections[address, how].sendall(base64.b64decode(text))
        print("sent", flush=True)
    except OSError as error:
        print(f"{address} by {how}: {error}", flush=True)
"""


@dataclasses.dataclass
class Flow:
    """A good flow, and the document that it must become."""

    serial: int
    router: str
    device: int
    country: int
    protocol: str
    version: int
    name: str | None
    # When its NEW was sent, and was certainly read (s since 1970).
    began: tuple[float, float] = (0, 0)
    # The acts of the run in which its lines were sent.
    acts: list[str] = dataclasses.field(default_factory=list)

    @property
    def source(self) -> str:
        return f"10.77.0.{self.device}" if self.version == 4 else f"fd77:0:0:1::{self.device}"

    @property
    def destination(self) -> str:
        host = self.serial % 200 + 20
        return f"198.18.{self.country}.{host}" if self.version == 4 else f"fd77:0:0:2:{self.country}::{host}"

    @property
    def port(self) -> int:
        return 1024 + self.serial % 60000

    def line(self, event: str) -> str:
        """Write ulogd's line, as a logd sends it: without the space at the end."""
        ports = back = ""
        protocol = self.protocol
        if protocol == "ICMP" and self.version == 6:
            protocol = "58"
        elif protocol == "ICMP":
            ports, back = " TYPE=0 CODE=8", " TYPE=0 CODE=0"
        else:
            ports, back = f" SPT={self.port} DPT=443", f" SPT=443 DPT={self.port}"
        outer = "198.18.0.1" if self.version == 4 else self.source
        sent = f"PKTS=9 BYTES={FIRST + self.serial}" if event == "DESTROY" else "PKTS=0 BYTES=0"
        received = "PKTS=8 BYTES=1301" if event == "DESTROY" else "PKTS=0 BYTES=0"
        text = (
            f"[{event}] ORIG: SRC={self.source} DST={self.destination} PROTO={protocol}{ports} {sent} , "
            f"REPLY: SRC={self.destination} DST={outer} PROTO={protocol}{back} {received}"
        )
        return log(self.router, "ulogd[1868]", text, 150)

    def questions(self) -> list[str]:
        """Write dnsmasq's lines for the name that the device asks for."""
        kind = "A" if self.version == 4 else "AAAA"
        head = f"{self.serial} {self.source}/4000"
        return [
            log(self.router, "dnsmasq[1]", f"{head} query[{kind}] {self.name} from {self.source}"),
            log(self.router, "dnsmasq[1]", f"{head} reply {self.name} is {self.destination}"),
        ]

    def object(self) -> str:
        """Write ulogd's JSON object of the whole flow, with the kernel's times."""
        end = time.time() - 0.01
        number = {"TCP": 6, "UDP": 17}[self.protocol]
        self.began = (end - 5.1, end - 4.9)
        return json.dumps(
            {
                "dvc": self.router, "ct.event": 4, "ct.id": self.serial,
                "orig.ip.protocol": number, "reply.ip.protocol": number,
                "orig.l4.sport": self.port, "orig.l4.dport": 443, "reply.l4.sport": 443, "reply.l4.dport": self.port,
                "orig.raw.pktlen": FIRST + self.serial, "orig.raw.pktcount": 9,
                "reply.raw.pktlen": 1301, "reply.raw.pktcount": 8,
                "flow.start.sec": int(end - 5), "flow.start.usec": int((end - 5) % 1 * 1e6),
                "flow.end.sec": int(end), "flow.end.usec": int(end % 1 * 1e6),
                "src_ip": self.source, "dest_ip": self.destination,
                "reply.ip.saddr.str": self.destination,
                "reply.ip.daddr.str": "198.18.0.1" if self.version == 4 else self.source,
            }
        )  # fmt: skip

    def wrong(self, document: dict) -> str | None:
        """Say what is wrong with the flow's document."""
        source, destination = document["source"], document["destination"]
        transport = {"TCP": "tcp", "UDP": "udp", "ICMP": "icmp" if self.version == 4 else "ipv6-icmp"}
        expected = {
            "router": (document["observer"]["hostname"], self.router),
            "transport": (document["network"]["transport"], transport[self.protocol]),
            "bytes": (document["network"]["bytes"], FIRST + self.serial + 1301),
            "packets": (document["network"]["packets"], 17),
            "direction": (document["network"]["direction"], "outbound"),
            "action": (document["event"]["action"], "flow-end"),
            "source": (source["ip"], str(ipaddress.ip_address(self.source))),
            "destination": (destination["ip"], str(ipaddress.ip_address(self.destination))),
            "port": (source.get("port"), None if self.protocol == "ICMP" else self.port),
            "mac": (source.get("mac"), f"02-77-00-00-00-{self.device}"),
            "device": (source.get("domain"), f"device-{self.device}"),
            "country": (destination.get("geo", {}).get("country_iso_code"), COUNTRIES[self.country]),
            "source of the name": (document["wrtflow"]["domain_source"] == "dns", self.name is not None),
        }
        if self.name is not None:
            expected["name"] = (destination.get("domain"), self.name)
        faults = [
            f"{what}: {found} for {right}" for what, (found, right) in expected.items() if found != right
        ]
        if "start" not in document["event"]:
            faults.append("no start")
        else:
            start = datetime.datetime.fromisoformat(document["event"]["start"]).timestamp()
            began, read = self.began
            if not any(began - SLACK <= start - ahead <= read + SLACK for ahead in (0, *STEPS)):
                faults.append(f"start: {start} is not in {self.began}")
        return "; ".join(faults) or None


def log(host: str, tag: str, text: str, priority: int = 30) -> str:
    """Write a line of a router's log."""
    return f"<{priority}>{time.strftime('%b %e %H:%M:%S')} {host} {tag}: {text}"


def evil(event: str, host: int, protocol: str = "TCP") -> str:
    """Write a line of the forger's, of a flow of 10.77.9.HOST."""
    text = Flow(1 - FIRST, "evil", 99, 1, protocol, 4, None).line(event)
    return text.replace("=10.77.0.99", f"=10.77.9.{host}")


class Soak:
    """The run: open flows, ended flows, and the accidents of the collector."""

    def __init__(self, machine, seed: int) -> None:
        self.machine = machine
        self.chance = random.Random(seed)
        self.open: dict[int, Flow] = {}
        self.ended: dict[int, Flow] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.act = "0"
        self._serial = 0
        self._unread: list[Flow] = []
        self._pid = ""
        # Lines since its start, by TCP.
        self._lines = 0
        self._sender = subprocess.Popen(
            ["docker", "exec", "-i", CONTAINER, "python3", "-u", "-c", SENDER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    # What is sent.

    def send(self, *orders: tuple[str, str, str | bytes]) -> None:
        """Send texts (whole lines, without the last line's end): sender's address, tcp, udp or json, text."""
        encoded = []
        for address, how, text in orders:
            content = text.encode() if isinstance(text, str) else text
            if how != "udp":
                content += b"\n"
                self._lines += content.count(b"\n")
            encoded.append((address, how, base64.b64encode(content).decode()))
        self._ask(encoded)

    def _ask(self, orders: list) -> None:
        print(json.dumps(orders), file=self._sender.stdin, flush=True)
        answer = self._sender.stdout.readline().strip()
        if answer != "sent":
            raise AssertionError(f"{answer}\n{self.machine.journal()}")

    def hello(self) -> None:
        """Have the routers tell of their devices."""
        for router, address in ROUTERS.items():
            for device in (*DEVICES[router], SILENT):
                mac = f"02:77:00:00:00:{device}"
                lease = f"DHCPACK(br-lan) 10.77.0.{device} {mac} device-{device}"
                self.send((address, "tcp", log(router, "dnsmasq-dhcp[1]", lease)))
                self.send((address, "tcp", log(router, "wrtflow-net", f"neigh fd77:0:0:1::{device} {mac}")))
        self.settle()

    def flow(
        self, router: str, protocols: tuple[str, ...] = ("TCP", "UDP", "ICMP"), named: float = 0.7
    ) -> Flow:
        """Invent a flow. Of pings between the same two no second one is open: their lines could not tell them apart."""
        self._serial += 1
        chance = self.chance
        name = f"site-{self._serial}.example" if chance.random() < named else None
        flow = Flow(
            self._serial, router, chance.choice(DEVICES[router]) if name else SILENT, chance.choice(list(COUNTRIES)),
            chance.choices(protocols, [6, 3, 1][: len(protocols)])[0], chance.choices([4, 6], [3, 1])[0], name,
        )  # fmt: skip
        ends = flow.protocol, flow.source, flow.destination
        if flow.protocol == "ICMP" and any(
            ends == (other.protocol, other.source, other.destination) for other in self.open.values()
        ):
            flow.protocol = "TCP"
        return flow

    def good(self) -> None:
        """Begin flows, and end others, over all routers at once; some whole ones as objects."""
        for router, address in ROUTERS.items():
            how = "udp" if self.chance.random() < 0.15 else "tcp"
            begun = [self.flow(router) for _ in range(self.chance.randint(1, 30))]
            mine = [flow for flow in self.open.values() if flow.router == router]
            over = self.chance.sample(mine, self.chance.randint(0, len(mine)))
            texts = []
            moment = time.time()
            for flow in begun:
                flow.began = (moment, 0)
                flow.acts.append(f"NEW by {how}, {self.act}")
                texts += [*(flow.questions() if flow.name else []), flow.line("NEW")]
                self.open[flow.serial] = flow
                # What is asked for later names it not.
                if flow.name and self.chance.random() < 0.3:
                    texts += dataclasses.replace(flow, name="later.example").questions()
            for flow in over:
                texts.append(flow.line("DESTROY"))
                flow.acts.append(f"DESTROY by {how}, {self.act}")
                # The same line twice is one document.
                if self.chance.random() < 0.05:
                    texts.append(texts[-1])
                self.ended[flow.serial] = self.open.pop(flow.serial)
            self._unread += begun
            if how == "udp":
                self.settle()
            self.send(*[(address, how, text) for text in texts])
            if how == "udp":
                # TCP is another queue.
                self.settle()
            if self.chance.random() < 0.3:
                self.whole(router, address)
        self.counts["good rounds"] += 1

    def whole(self, router: str, address: str) -> None:
        """Send flows as ulogd's objects."""
        for _ in range(self.chance.randint(1, 10)):
            flow = self.flow(router, ("TCP", "UDP"), named=0)
            self.send((address, "json", flow.object()))
            flow.acts.append(f"whole, {self.act}")
            self.ended[flow.serial] = flow

    def forged(self) -> None:
        """Send malformed lines, and lines of a false sender."""
        chance = self.chance
        whole = evil("NEW", 99)
        lines: list[bytes] = []
        for _ in range(50):
            content = bytearray(chance.choice([whole, whole.replace("NEW", "DESTROY")]).encode())
            at = chance.randrange(len(content))
            match chance.randrange(6):
                case 0:
                    del content[at:]
                case 1:
                    content[at] = chance.randrange(256)
                case 2:
                    content[at:at] = chance.choice(
                        [b"\0", b"\r", b"\n", b"\t", b"\x1b", b"\xff", "\u2028".encode()]
                    )
                case 3:
                    content[at:at] = chance.randbytes(chance.randint(1, 300))
                case 4:
                    content += content[at:]
                case 5:
                    content[at:at] = b"1" * 20000
            lines.append(bytes(content))
        self.send((FORGER, "tcp", b"\n".join(lines)), *[(FORGER, "udp", text[:9000]) for text in lines])
        # Others' flows, by those who don't know them: nothing begins or ends by these.
        for flow in chance.sample(list(self.open.values()), min(len(self.open), 5)):
            event = flow.line("DESTROY").replace(f"BYTES={FIRST + flow.serial}", "BYTES=1")
            text = event.split("ulogd[1868]: ")[1]
            address = ROUTERS[flow.router]
            self.send(
                (address, "tcp", log(flow.router, "notulogd[1]", text)),
                (address, "tcp", log(flow.router, "luci", f"failed login for {text}")),
                (address, "tcp", log(flow.router, "root", f"ulogd[1868]: {text}")),
                (address, "tcp", log(flow.router, "dnsmasq-dhcp[1]", f"DHCPACK(b) 10.77.9.8 02:66:00:00:00:01 {text}")),
                (address, "udp", f"{log(flow.router, 'luci', 'failed login')}\n{event}"),
                (address, "udp", event.replace("ulogd[", "ulogd\n[")),
                (address, "udp", event.replace(" DST=", "\nDST=")),
            )  # fmt: skip
        told = (
            "networks 198.18.0.0/15", "networks 0.0.0.0/0", "networks ::/0", "networks fd77::/43", "networks x", "",
            "role king", "role ap", "boot", "boot \x1b 99999999999999999999", "neigh", "neigh x y",
            "lease 10.77.9.97 02:66:00:00:00:02 \u202ex",
        )  # fmt: skip
        self.send(*[(FORGER, "tcp", log("evil", "wrtflow-net", text)) for text in told])
        objects = (
            "{", "[" * 5000, "null", "\x00", '{"ct.event": 4}', '{"ct.event": 1e999}', '"\\ud800"',
            json.dumps({"src_ip": "10.77.9.99", "ct.event": 4, "flow.start.sec": 10**30}),
        )  # fmt: skip
        self.send(*[(FORGER, "json", text) for text in chance.sample(objects, 3)])
        self.counts["forged rounds"] += 1

    def flood(self) -> None:
        """Send thousands of lines that cost or remember something."""
        host = self.chance.randint(1, 250)
        match self.chance.randrange(4):
            case 0:
                ended = self.chance.randint(0, 4000)
                texts = [evil("NEW", host, "ICMP")] * 4000 + [evil("DESTROY", host, "ICMP")] * ended
            case 1:
                texts = []
                for number in range(1000):
                    texts += [
                        evil("NEW", host).replace(" evil ", f" evil-{number} "),
                        log(f"evil-{number}", "wrtflow-net", f"boot {number}-{host} 1"),
                        log(f"evil-{number}", "wrtflow-net", f"networks 192.168.{number % 250}.0/24"),
                    ]
            case 2:
                head = f"1 10.77.9.{host}/1"
                texts = []
                for number in range(5000):
                    name, address = f"x-{number}.example", f"198.19.{number // 250}.{number % 250}"
                    texts.append(log("evil", "dnsmasq[1]", f"{head} query[A] {name} from 10.77.9.{host}"))
                    texts.append(log("evil", "dnsmasq[1]", f"{head} reply {name} is {address}"))
            case _:
                lease = f"DHCPACK(br-lan) 10.77.9.{host} 02:66:{host:02x}"
                texts = [
                    log("evil", "dnsmasq-dhcp[1]", f"{lease}:00:{number // 256:02x}:{number % 256:02x} x")
                    for number in range(5000)
                ]
        self.send((FORGER, "tcp", "\n".join(texts)))
        self.counts["floods"] += 1

    # What is done to the collector.

    def settle(self) -> None:
        """Wait until the collector has read all lines that were sent."""
        before = -1

        def read() -> bool:
            nonlocal before
            waiting = self.machine.run(
                "ss", "-Hnatu", "( sport = :514 or sport = :5140 or dport = :514 or dport = :5140 )"
            )
            queues = [line.split()[2:4] for line in waiting.splitlines() if "LISTEN" not in line]
            processed = sum(
                int(line.rpartition(";")[2])
                for line in self.machine.run("syslog-ng-ctl", "stats").splitlines()
                if line.startswith(("source;s_wrtflow_syslog;", "source;s_wrtflow_json;"))
                and ";processed;" in line
            )
            still = processed >= self._lines and processed == before and all(q == ["0", "0"] for q in queues)
            before = processed
            return still

        self.machine.wait("what was sent is read", read)
        moment = time.time()
        for flow in self._unread:
            flow.began = (flow.began[0], moment)
        self._unread = []

    def kept(self) -> None:
        """Wait until all that is open is on disk."""
        self.settle()
        self._serial += 1
        marker = Flow(self._serial, "north", SILENT, 1, "TCP", 4, None, (time.time(), 0))
        self.open[marker.serial] = marker
        self._unread = [marker]
        self.send((ROUTERS["north"], "tcp", marker.line("NEW")))
        self.settle()
        wanted = f"SRC={marker.source} DST={marker.destination} PROTO=TCP SPT={marker.port} "

        def on_disk() -> bool:
            try:
                return wanted in self.machine.kept()
            except AssertionError:
                # Damaged, and not yet set aside.
                return False

        self.machine.wait("what is open is on disk", on_disk)

    def lives(self) -> None:
        """Check that it runs, and that it is the one that was started."""
        pid = self.machine.main_pid()
        assert pid == self._pid, f"syslog-ng ended by itself\n{self.machine.journal()}"

    def started(self) -> None:
        """Wait until it listens, and know it."""
        self.machine.wait("it listens", lambda: self.machine.listens(514) and self.machine.listens(5140))
        self._pid = self.machine.main_pid()
        self._lines = 0

    def reload(self) -> None:
        """Have it read its configuration again."""
        self.settle()
        self.machine.run("syslog-ng-ctl", "reload")
        self.counts["reloads"] += 1

    def restart(self) -> None:
        """Restart the collector with systemctl."""
        self.settle()
        self._ask([("", "close", "")])
        self.machine.run("systemctl", "reset-failed", "syslog-ng", check=False)
        self.machine.run("systemctl", "restart", "syslog-ng")
        self.started()
        self.counts["restarts"] += 1

    def kill(self) -> None:
        """Kill the collector when everything of the last second is on disk."""
        self.kept()
        time.sleep(1)
        self._ask([("", "close", "")])
        before = self.machine.main_pid()
        self.machine.run("systemctl", "reset-failed", "syslog-ng", check=False)
        self.machine.run("kill", "-9", before)
        self.machine.wait("it runs again", lambda: self.machine.main_pid() not in ("0", before))
        self.started()
        self.counts["kills"] += 1

    def fill(self) -> None:
        """Have no room on the state's disk for a while, and flows meanwhile."""
        self.kept()
        begin = self._serial
        fill = f"dd if=/dev/zero of={STATE}/filler bs=64k; dd if=/dev/zero of={STATE}/filler.2 bs=512"
        self.machine.run("sh", "-c", f"{{ {fill}; }} 2>/dev/null", check=False)
        try:
            for _ in range(self.chance.randint(1, 4)):
                self.good()
                time.sleep(1)
            if self.chance.random() < 0.5:
                self.reload()
                self.good()
            # What begins without room does not outlive a stop: it ends before.
            if self.chance.random() < 0.5:
                self.end(after=begin)
                self.restart()
                self.good()
        finally:
            self.machine.run("sh", "-c", f"rm -f {STATE}/filler {STATE}/filler.2")
        self.kept()
        self.counts["full disks"] += 1

    def damage(self) -> None:
        """Overwrite the state with garbage under it."""
        size = self.chance.choice([100, 5000, 1000000])
        script = (
            f"import os; path = '{STATE}/state.sqlite'; size = min({size}, os.path.getsize(path))\n"
            "with open(path, 'r+b') as file: file.write(b'garbage ' * (size // 8))"
        )
        self.settle()
        self.machine.run("python3", "-c", script)
        self.good()
        if self.chance.random() < 0.5:
            self.reload()
        self.kept()
        self.counts["damaged states"] += 1

    def step(self) -> None:
        """Step the wall clock for a while, and back."""
        self.settle()
        for ahead in (self.chance.choice(STEPS), 0):
            self.machine.put(f"{AHEAD}.new", f"{ahead:+}\n".encode())
            self.machine.run("mv", f"{AHEAD}.new", AHEAD)
            self.good()
            if self.chance.random() < 0.3:
                self.reload()
                self.good()
        self.counts["clock steps"] += 1

    def refuse(self) -> None:
        """Have Elasticsearch refuse for a while."""
        self.machine.behave(
            self.chance.choice(
                [
                    {"status": 503},
                    {"item": 429},
                    {"cut": "before"},
                    [{"cut": "after"}, {"status": 429}, {}],
                    {"wait": 2},
                ]
            )
        )
        for _ in range(3):
            self.good()
            time.sleep(0.5)
        self.machine.behave({})
        self.counts["refusals"] += 1

    def end(self, after: int = 0) -> None:
        """End all open flows, or those that have begun after a flow."""
        for router, address in ROUTERS.items():
            mine = [flow for flow in self.open.values() if flow.router == router and flow.serial > after]
            if mine:
                self.send((address, "tcp", "\n".join(flow.line("DESTROY") for flow in mine)))
            for flow in mine:
                flow.acts.append(f"DESTROY by tcp at an end, {self.act}")
                self.ended[flow.serial] = self.open.pop(flow.serial)
        self.settle()

    def close(self) -> None:
        """Stop sending."""
        self._sender.stdin.close()
        self._sender.wait(20)


@pytest.fixture
def disk(machine) -> Iterator[None]:
    """The routers' addresses, a small disk for the state, and a clock for the collector."""
    addresses = [*ROUTERS.values(), FORGER]
    for address in addresses:
        machine.run("ip", "address", "replace", f"{address}/32", "dev", "lo")
    mount = (
        f"cp -a {STATE} /root/soak && mount -t tmpfs -o size=64m,mode=700 tmpfs {STATE} && "
        f"cp -a /root/soak/. {STATE}/"
    )
    drop_in = "/run/systemd/system/syslog-ng.service.d"
    unmount = f"umount {STATE}; rm -rf /root/soak"
    machine.run("sh", "-c", "apt-get update -qq && apt-get install -qq -y libfaketime")
    machine.run("systemctl", "stop", "syslog-ng")
    machine.run("sh", "-c", mount)
    machine.put(AHEAD, b"+0\n")
    machine.put(f"{drop_in}/soak.conf", FAKETIME.encode())
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "syslog-ng")
    yield
    machine.behave({})
    machine.run("systemctl", "stop", "syslog-ng")
    machine.run("sh", "-c", f"{unmount}; rm {drop_in}/soak.conf")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "syslog-ng")
    for address in addresses:
        machine.run("ip", "address", "delete", f"{address}/32", "dev", "lo")


@pytest.mark.long
@pytest.mark.usefixtures("disk")
def test_every_good_flow_is_exactly_one_right_document(machine, capsys):
    seed = int(os.environ.get("WRTFLOW_SOAK_SEED") or random.randrange(10**6))
    soak = Soak(machine, seed)
    acts: dict[Callable[[], None], int] = {
        soak.good: 30, soak.forged: 8, soak.flood: 5, soak.reload: 3, soak.restart: 2, soak.kill: 2, soak.fill: 2,
        soak.damage: 2, soak.refuse: 2, soak.step: 4,
    }  # fmt: skip
    with capsys.disabled():
        print(f"\nsoak of {SECONDS} s, WRTFLOW_SOAK_SEED={seed}", flush=True)
        earlier = machine.documents(since="").keys()
        soak.started()
        soak.hello()
        end = time.monotonic() + SECONDS
        for number in itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(1)):
            act = soak.chance.choices(list(acts), list(acts.values()))[0]
            soak.act = f"{number} {act.__name__}"
            act()
            soak.lives()
            soak.settle()
        soak.end()
        soak.close()
        good = len(soak.ended)
        found: dict[int, list[dict]] = {}

        def arrived() -> bool:
            found.clear()
            # Not by time: the clock was months behind, too.
            for id_, document in machine.documents(since="").items():
                serial = document["source"].get("bytes", 0) - FIRST
                if serial in soak.ended and id_ not in earlier:
                    found.setdefault(serial, []).append(document)
            return len(found) == good

        try:
            machine.wait("all good flows", arrived)
        except AssertionError as error:
            missing = [soak.ended[serial] for serial in sorted(soak.ended.keys() - found.keys())]
            raise AssertionError(f"{len(missing)} of {good} flows are missing: {missing[:10]}") from error
        memory = machine.run("sh", "-c", f"grep VmHWM /proc/{machine.main_pid()}/status").split()[1]
        print(
            f"soak: {good} good flows, {dict(soak.counts)}, {int(memory) // 1024} MB at most since the last start"
        )
    twice = {serial: documents for serial, documents in found.items() if len(documents) > 1}
    assert not twice, list(twice.items())[:3]
    wrong = {
        serial: fault
        for serial, (document,) in found.items()
        if (fault := soak.ended[serial].wrong(document))
    }
    assert not wrong, f"{len(wrong)} of {good}: {list(wrong.items())[:10]}"
