"""The running lab, for the demo, the replay and the tests: its containers, its traffic, its Elasticsearch.

Bytes and packets to compare with are those of the router kernel's conntrack events. Documents are read from
Elasticsearch over TLS with the read-only key.
"""

from __future__ import annotations

import io
import ipaddress
import json
import os
import re
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import requests
import yaml

PROJECT = Path(__file__).resolve().parent.parent
SECRETS = PROJECT / "inventory/lab/secrets"
ELASTICSEARCH = "https://10.77.0.10:9200"
KIBANA = "https://10.77.0.10:5601"

LAPTOP, CAMERA = "10.77.0.20", "10.77.0.21"
LAPTOP6 = "fd77:0:0:1::20"

#: What the demo and the tests of the whole chain send. The last flow stays open, so it must have no document.
TRAFFIC: list[dict[str, Any]] = [
    {"device": LAPTOP, "transport": "tcp", "family": 4, "site": "www.photoprint.example", "port": 443,
     "up": 2_000_000, "down": 2_000},
    {"device": LAPTOP, "transport": "tcp", "family": 6, "site": "www.photoprint.example", "port": 443,
     "up": 500_000, "down": 900},
    {"device": LAPTOP, "transport": "tcp", "family": 4, "site": "news.example", "port": 80, "down": 300_000},
    {"device": LAPTOP, "transport": "tcp", "family": 6, "site": "news.example", "port": 443, "down": 700_000},
    {"device": CAMERA, "transport": "tcp", "family": 4, "site": "telemetry.gadget.example", "port": 8080,
     "up": 20_000},
    {"device": CAMERA, "transport": "udp", "family": 4, "site": "telemetry.gadget.example", "port": 5000,
     "up": 6_000},
    {"device": LAPTOP, "transport": "udp", "family": 4, "site": "ntp.example", "port": 123, "up": 48},
    {"device": LAPTOP, "transport": "tcp", "family": 4, "site": "198.18.5.80", "port": 80, "down": 40_000},
    {"device": LAPTOP, "transport": "icmp", "family": 4, "site": "198.18.3.80", "port": None},
    {"device": LAPTOP, "transport": "icmp", "family": 6, "site": "fd77:0:0:2:3::80", "port": None},
    {"device": LAPTOP, "transport": "tcp", "family": 4, "site": "www.photoprint.example", "port": 8080,
     "hold": 3600},
]  # fmt: skip

#: What tells a flow from the others of one run: transport, source and its port, destination and its port.
Key = tuple[str, str, int | None, str, int | None]

#: The places in the lab's databases.
PLACES = yaml.safe_load((PROJECT / "molecule/images/geolite/places.yml").read_text())["places"]


class LabError(Exception):
    """The lab is not up, or does not work. The message says what to do."""


def place_of(address: str) -> tuple[str | None, str | None, int | None]:
    """Return (country, city, AS number) that the lab's databases hold for an address, None for each unknown part."""
    ip = ipaddress.ip_address(address)
    for place in PLACES:
        if any(ip in ipaddress.ip_network(network) for network in place["networks"]):
            return place["country"]["iso_code"], place.get("city"), place.get("as", {}).get("number")
    return None, None, None


def wait_for(what: str, condition: Callable[[], Any], seconds: float, every: float = 0.2) -> Any:
    """Call condition until it returns something true, and return that. After `seconds`, raise LabError with what."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise LabError(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


# --- containers -------------------------------------------------------------------------------------------------


def container(host: str) -> Any:
    """Return the Docker container of a lab host. Raise LabError if it does not run."""
    try:
        found = docker.from_env().containers.get(f"wrtflow-{host}")
    except docker.errors.NotFound:
        raise LabError(f"the lab's {host} does not run: `make demo` starts it") from None
    if found.status != "running":
        raise LabError(f"the lab's {host} is {found.status}: `make down`, then `make demo`")
    return found


def run(host: str, *command: str, stdin: str | None = None) -> str:
    """Run a command on a lab host and return its standard output. Raise LabError with both outputs if it fails."""
    if stdin is not None:
        command = ("sh", "-c", 'printf %s "$1" | { shift; "$@"; }', "sh", stdin, *command)
    code, (out, err) = container(host).exec_run(list(command), demux=True)
    if code != 0:
        raise LabError(
            f"{host}: {' '.join(command[-3:])} ended with {code}:\n{(out or b'').decode()}{(err or b'').decode()}"
        )
    return (out or b"").decode()


def put(host: str, path: str, data: bytes, mode: int = 0o644) -> None:
    """Write a file on a lab host."""
    buffer = io.BytesIO()
    folder, name = path.rsplit("/", 1)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), mode
        tar.addfile(info, io.BytesIO(data))
    container(host).put_archive(folder, buffer.getvalue())


#: A drop-in: libfaketime adds the seconds in AHEAD (+30) to the wall clock that a unit sees. A container has
#: no clock of its own.
AHEAD = "/run/clock-ahead"
FAKETIME = f"""[Service]
Environment=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1
Environment=FAKETIME_TIMESTAMP_FILE={AHEAD} FAKETIME_NO_CACHE=1
Environment=FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_DISABLE_SHM=1
# libfaketime shifts timers of the monotonic clock, too. The event loop must do without them.
Environment=IV_EXCLUDE_POLL_METHOD=epoll-timerfd
"""


# --- deploying ----------------------------------------------------------------------------------------------------


def deploy(playbook: str, variables: dict[str, Any] | None = None, *arguments: str) -> tuple[int, str]:
    """Run a playbook again. Return its exit code and its output, on one line and without colours."""
    done = subprocess.run(
        ["ansible-playbook", "--inventory", "inventory/lab", f"playbooks/{playbook}",
         "--extra-vars", json.dumps(variables or {}), *arguments],
        cwd=PROJECT,
        env={**os.environ, "MOLECULE_PROJECT_DIRECTORY": str(PROJECT), "ANSIBLE_FORCE_COLOR": "0"},
        # Molecule prints failures on standard error.
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.returncode, " ".join(done.stdout.split())


# --- Elasticsearch ----------------------------------------------------------------------------------------------


def secret(name: str) -> str:
    """Return one of the lab's secrets (inventory/lab/secrets). Raise LabError if it is missing."""
    try:
        return (SECRETS / name).read_text().strip()
    except FileNotFoundError:
        raise LabError(f"{SECRETS / name} is missing: `make demo` makes it") from None


def elasticsearch(method: str, path: str, body: Any = None, *, user: str = "reader") -> dict[str, Any]:
    """Send one request to the lab's Elasticsearch, by default with the read-only key, and return its answer.

    user is "reader" or "elastic". A body that is a list is sent as NDJSON. Raise LabError if the answer is not 2xx,
    except for 404 and 503: the month's index, or its shard, is not there yet.
    """
    headers, auth = {}, None
    if user == "elastic":
        auth = ("elastic", secret("elastic.password"))
    else:
        headers["Authorization"] = f"ApiKey {secret(f'{user}.api-key')}"
    if isinstance(body, list):
        headers["Content-Type"] = "application/x-ndjson"
        data: str | None = "".join(json.dumps(line) + "\n" for line in body)
    else:
        headers["Content-Type"] = "application/json"
        data = json.dumps(body) if body is not None else None
    answer = requests.request(
        method, ELASTICSEARCH + path, data=data, headers=headers, auth=auth,
        verify=str(SECRETS / "elasticsearch-ca.crt"), timeout=30,
    )  # fmt: skip
    if not answer.ok and answer.status_code not in (404, 503):
        raise LabError(f"Elasticsearch answered {answer.status_code} to {method} {path}: {answer.text[:500]}")
    content: dict[str, Any] = answer.json()
    return content


def search(query: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Search all indices of flows. Keyword arguments become part of the request's body (size, aggs, sort …)."""
    return elasticsearch("POST", "/network-*/_search?ignore_unavailable=true", {"query": query, **more})


def documents(query: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the flow documents that a query finds, at most 10,000."""
    hits = search(query, size=10_000).get("hits", {}).get("hits", [])
    return [hit["_source"] for hit in hits]


def health() -> str:
    """Return the output of `wrtflow health` on the collector, for the message of a failure."""
    try:
        return run("logserver", "/usr/local/sbin/wrtflow", "health")
    except LabError as error:
        return str(error)


def kibana_is_real() -> bool:
    """Tell whether the log server's Kibana is Elastic's, and not the stand-in."""
    return "stand-in" not in run("logserver", "dpkg-query", "--show", "--showformat=${Description}", "kibana")


# --- conntrack: what documents are compared with ---------------------------------------------------------------


@dataclass
class KernelFlow:
    """One DESTROY event of the router's kernel."""

    transport: str
    source: str
    destination: str
    source_port: int | None
    destination_port: int | None
    source_bytes: int
    source_packets: int
    destination_bytes: int
    destination_packets: int
    seen: float = field(default_factory=time.time)

    @property
    def key(self) -> Key:
        """Return what tells this flow from the others of one run."""
        return self.transport, self.source, self.source_port, self.destination, self.destination_port


_EVENT = re.compile(r"\[DESTROY\]\s+(?:ipv[46]\s+\d+\s+)?(?P<transport>\S+)\s+\d+\s+(?P<rest>.*)")


def parse_event(line: str) -> KernelFlow | None:
    """Return the flow of one line of `conntrack -E -e DESTROY` (conntrack-tools 1.4), None if it is another line."""
    match = _EVENT.search(line)
    if not match:
        return None
    both: dict[str, list[str]] = {}
    for name, value in re.findall(r"(\w+)=(\S+)", match["rest"]):
        both.setdefault(name, []).append(value)
    ports = [int(both[name][0]) if name in both else None for name in ("sport", "dport")]
    address = [str(ipaddress.ip_address(both[name][0])) for name in ("src", "dst")]
    (sent, received), (packets_sent, packets_received) = (
        map(int, both[name]) for name in ("bytes", "packets")
    )
    return KernelFlow(
        transport={"icmpv6": "ipv6-icmp"}.get(match["transport"], match["transport"]),
        source=address[0],
        destination=address[1],
        source_port=ports[0],
        destination_port=ports[1],
        source_bytes=sent,
        source_packets=packets_sent,
        destination_bytes=received,
        destination_packets=packets_received,
    )


class KernelEvents:
    """Collect the DESTROY events of the router's kernel while the context is open."""

    def __init__(self) -> None:
        """Hold no flows yet. Listening begins when the context is entered."""
        self.flows: list[KernelFlow] = []
        self._thread: threading.Thread | None = None

    def __enter__(self) -> KernelEvents:
        """Start to listen, and return when the kernel's socket is open."""
        self.listen()
        return self

    def listen(self) -> None:
        """Listen to the kernel's events; after a restart of the router's container, listen again."""
        self._leave()
        router = container("router")
        # In a container that shares the router's network: a stock OpenWrt has no conntrack program.
        self._listener = router.client.containers.run(
            "wrtflow-lab/peer",
            ["conntrack", "-E", "-e", "DESTROY", "-o", "extended", "-b", "4194304"],
            detach=True,
            network_mode=f"container:{router.id}",
            cap_add=["NET_ADMIN"],
            labels={"wrtflow": "lab"},
        )
        # Standard output only: conntrack prints notices on standard error at any time.
        stream = self._listener.attach(stream=True, stdout=True, stderr=False, logs=True)
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()
        wait_for(
            "conntrack -E beside the router",
            lambda: b"socket" in self._listener.exec_run(["ls", "-l", "/proc/1/fd"]).output,
            10,
        )

    def _read(self, stream: Iterator[bytes]) -> None:
        rest = ""
        for chunk in stream:
            *lines, rest = (rest + chunk.decode(errors="replace")).split("\n")
            self.flows.extend(flow for flow in map(parse_event, lines) if flow)

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._leave()

    def _leave(self) -> None:
        if self._thread:
            self._listener.remove(force=True)
            self._thread.join(5)


def made_key(made: dict[str, Any]) -> Key:
    """Return the key of a flow that send_traffic() reported."""
    transport = "ipv6-icmp" if (made["transport"], made["family"]) == ("icmp", 6) else made["transport"]
    address = [str(ipaddress.ip_address(made[name])) for name in ("source", "destination")]
    return transport, address[0], made["source_port"], address[1], made["port"]


def send_traffic(flows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let the client make these flows. Return them with source, source_port and destination added."""
    made: list[dict[str, Any]] = json.loads(
        run("client", "python3", "/lab/traffic.py", stdin=json.dumps(flows))
    )
    return made


def document_key(document: dict[str, Any]) -> Key:
    """Return the key of a flow document, in the form of KernelFlow.key."""
    source, destination = document["source"], document["destination"]
    return (
        document["network"]["transport"], source["ip"], source.get("port"), destination["ip"], destination.get("port"),
    )  # fmt: skip
