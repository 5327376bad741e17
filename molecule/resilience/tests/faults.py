"""What breaks in a year, each with how it is brought about, mended, and seen to have happened.

A fault is a generator. It breaks something before or after its `yield`, and has mended it when it ends. Traffic goes on
all the time. Each one checks that it did happen, so that a row of zeros in the table means something.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lab
import pytest

#: Where the table is kept until the end.
TABLE: pytest.StashKey[list] = pytest.StashKey()

#: What answers in Elasticsearch's place.
BULK = Path(__file__).parents[2] / "doubles/bulk/bulk.py"

#: Where the collector's state is.
STATE = "/var/lib/wrtflow"

#: Seconds of a short and of a long outage.
MOMENT, MINUTES = 8, 90


@dataclass(frozen=True)
class Fault:
    """One fault. `why` explains the flows that may be lost, and stays empty where none may be."""

    name: str
    happen: Callable[[], Iterator[None]]
    why: str = ""
    long: bool = False
    #: Whether the test can't listen to the router's kernel while the fault lasts.
    unheard: bool = False
    #: What is made ready before the traffic begins, and undone after it.
    around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext


def server(*command: str, stdin: str | None = None) -> str:
    """Run a command on the log server and return its output."""
    return lab.run("logserver", *command, stdin=stdin)


def router(script: str) -> str:
    """Run a shell script on the router and return its output."""
    return lab.run("router", "sh", "-c", script)


def record() -> dict:
    """Return the collector's health record."""
    # It exits with 1 where something is wrong, as it is now.
    return json.loads(server("sh", "-c", "wrtflow health --json || true"))


def waits() -> None:
    """Wait until documents wait and the health record gives a reason."""
    lab.wait_for("documents that wait", lambda: record()["queue"].get("waiting", 0) > 0, 60)
    lab.wait_for("the reason", lambda: record()["delivery"].get("reason"), 60)


def pid(unit: str) -> str:
    """Return the main process of a unit; 0 where there is none."""
    return server("systemctl", "show", "--property=MainPID", "--value", unit).strip()


def started(unit: str) -> None:
    """Wait until systemd says that a unit runs. It fails for a moment after a boot."""
    lab.wait_for(
        f"{unit} to run",
        lambda: _quiet("docker", "exec", "wrtflow-logserver", "systemctl", "is-active", unit) == "active",
        120,
    )


def connections() -> set[str]:
    """Return the ends of the router's connections to the collector."""
    return set(
        re.findall(r"10\.77\.0\.1:[0-9]+", server("ss", "-Htn", "state", "established", "( sport = :514 )"))
    )


def connected(before: set[str]) -> None:
    """Wait until the router's log has another connection to the collector than before."""
    lab.wait_for("the router's log to connect", lambda: connections() - before, 120)


def _quiet(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


# --- storage ----------------------------------------------------------------------------------------------------


def elasticsearch_stopped(seconds: float = MOMENT) -> Iterator[None]:
    """Elasticsearch is stopped for some seconds."""
    server("systemctl", "stop", "elasticsearch")
    yield
    waits()
    time.sleep(seconds)
    server("systemctl", "start", "elasticsearch")


def elasticsearch_killed() -> Iterator[None]:
    """Elasticsearch is killed while bulk requests are under way."""
    yield
    server("systemctl", "kill", "--signal=KILL", "elasticsearch")
    lab.wait_for("Elasticsearch to be gone", lambda: pid("elasticsearch") == "0", 30)
    waits()
    server("systemctl", "start", "elasticsearch")


def elasticsearch_stalls() -> Iterator[None]:
    """Elasticsearch takes requests and answers none of them until the collector's request has timed out."""
    yield
    server("systemctl", "kill", "--signal=STOP", "elasticsearch")
    waits()
    server("systemctl", "kill", "--signal=CONT", "elasticsearch")


_INSTEAD = """
cat /etc/elasticsearch/certs/http.crt /etc/elasticsearch/certs/http.key >/run/bulk.pem
systemd-run --quiet --unit=fault-bulk python3 /root/bulk.py --port 9299 --certificate /run/bulk.pem --api-key "$1"
curl --silent --show-error --fail --insecure --retry 20 --retry-delay 1 --retry-connrefused \\
    --request PUT --data '{"status": 503, "type": "unavailable"}' https://127.0.0.1:9299/_double
nft --file - <<'END'
add table ip fault
add chain ip fault divert { type nat hook output priority -100; }
add rule ip fault divert ip daddr 10.77.0.10 tcp dport 9200 redirect to :9299
# Connections from before are not diverted: they end.
add chain ip fault cut { type filter hook output priority 0; }
add rule ip fault cut ip daddr 10.77.0.10 tcp dport 9200 reject with tcp reset
END
"""


def elasticsearch_answers_503() -> Iterator[None]:
    """Another server answers in Elasticsearch's place, and refuses each request with 503."""
    yield
    lab.put("logserver", "/root/bulk.py", BULK.read_bytes())
    server("sh", "-ec", _INSTEAD, "sh", lab.secret("collector.api-key"))
    try:
        waits()
        assert "503" in record()["delivery"]["reason"]
    finally:
        server(
            "sh", "-c", "nft delete table ip fault; systemctl stop fault-bulk; rm /root/bulk.py /run/bulk.pem"
        )


def month_blocked() -> Iterator[None]:
    """The month's index gets a write block."""
    yield
    _month({"index.blocks.write": True})
    waits()
    _month({"index.blocks.write": None})


def _month(settings: dict) -> None:
    lab.elasticsearch(
        "PUT", f"/network-{time.strftime('%Y.%m', time.gmtime())}/_settings", settings, user="elastic"
    )


def disk_at_the_flood_stage() -> Iterator[None]:
    """Elasticsearch's disk counts as full: it blocks every index, and answers 429 for each document."""
    yield
    _watermarks("100pb", "100pb", "100pb")
    waits()
    assert "429" in record()["delivery"]["reason"] or "block" in record()["delivery"]["reason"]
    _watermarks(None, None, None)


def _watermarks(low: str | None, high: str | None, flood: str | None) -> None:
    prefix = "cluster.routing.allocation.disk.watermark"
    names = {f"{prefix}.low": low, f"{prefix}.high": high, f"{prefix}.flood_stage": flood}
    lab.elasticsearch("PUT", "/_cluster/settings", {"persistent": names}, user="elastic")


def key_revoked() -> Iterator[None]:
    """The collector's key is revoked, and a run of the playbooks makes another one."""
    yield
    before = lab.secret("collector.api-key")
    keys = lab.elasticsearch("GET", "/_security/api_key?name=wrtflow-collector", user="elastic")
    ids = [key["id"] for key in keys["api_keys"] if not key["invalidated"]]
    assert ids
    lab.elasticsearch("DELETE", "/_security/api_key", {"ids": ids}, user="elastic")
    waits()
    assert "401" in record()["delivery"]["reason"]
    deploy("storage.yml", "collector.yml")
    assert lab.secret("collector.api-key") != before


def certificate_replaced() -> Iterator[None]:
    """Elasticsearch's certificate is gone, and a run of the playbook makes another one."""
    yield
    path = "/etc/elasticsearch/certs/http.crt"
    before = server("cat", path)
    server("rm", path)
    deploy("storage.yml")
    assert server("cat", path) != before


def deploy(*playbooks: str) -> None:
    """Run playbooks; LabError with what they said where one fails."""
    for playbook in playbooks:
        code, said = lab.deploy(playbook)
        if code:
            raise lab.LabError(said[-2000:])


# --- collector --------------------------------------------------------------------------------------------------


def collector_restarted() -> Iterator[None]:
    """syslog-ng is restarted."""
    yield
    before, ends = pid("syslog-ng"), connections()
    server("systemctl", "restart", "syslog-ng")
    assert pid("syslog-ng") != before
    connected(ends)


def collector_killed() -> Iterator[None]:
    """syslog-ng is killed, and systemd starts it again."""
    yield
    before, ends = pid("syslog-ng"), connections()
    server("kill", "-9", before)
    lab.wait_for("another syslog-ng", lambda: pid("syslog-ng") not in ("0", before), 60)
    connected(ends)


def collector_reloaded() -> Iterator[None]:
    """syslog-ng is reloaded 50 times."""
    yield
    before = pid("syslog-ng")
    for _ in range(50):
        server("systemctl", "reload", "syslog-ng")
    assert pid("syslog-ng") == before


def state_disk_full() -> Iterator[None]:
    """The disk with the collector's state is full."""
    # The unit has mounts of its own. So the tool, which has others, reads the health record from before.
    unit = ("nsenter", "--mount", "--target", pid("syslog-ng"))
    began = f"@{time.time():.3f}"
    server(*unit, "mount", "-t", "tmpfs", "-o", "size=8k,mode=700", "tmpfs", STATE)
    try:
        yield
        lab.wait_for(
            "the fault in the journal", lambda: "state.sqlite can't be written" in _journal(began), 60
        )
    finally:
        server(*unit, "umount", "--lazy", STATE)
    lab.wait_for("the fault's end in the journal", lambda: "is written again" in _journal(began), 60)


def _journal(since: str) -> str:
    return server("journalctl", "--unit", "syslog-ng", "--since", since, "--output", "cat")


@contextlib.contextmanager
def another_clock() -> Iterator[None]:
    """Run syslog-ng with a wall clock that can be stepped."""
    folder = "/run/systemd/system/syslog-ng.service.d"
    server("sh", "-c", "apt-get update -qq && apt-get install -qq -y libfaketime")
    server("mkdir", "-p", folder)
    _step("+0")
    server("tee", f"{folder}/clock.conf", stdin=lab.FAKETIME)
    _restart()
    try:
        yield
    finally:
        server("rm", f"{folder}/clock.conf")
        _restart()


def _restart() -> None:
    ends = connections()
    server("systemctl", "daemon-reload")
    server("systemctl", "restart", "syslog-ng")
    connected(ends)


def clock_stepped() -> Iterator[None]:
    """The collector's wall clock jumps ahead by half a minute, and back."""
    _step("+30")
    yield
    _step("+0")


def _step(seconds: str) -> None:
    server("tee", f"{lab.AHEAD}.new", stdin=f"{seconds}\n")
    server("mv", f"{lab.AHEAD}.new", lab.AHEAD)


def geolite_rotated() -> Iterator[None]:
    """The GeoLite databases are rotated by the playbook."""
    yield
    server("touch", "/tmp/before")
    deploy("rotate-geolite.yml")


def log_server_rebooted() -> Iterator[None]:
    """The log server reboots: collector and storage are away at the same time."""
    yield
    ends = connections()
    subprocess.run(
        ["docker", "restart", "--time", "30", "wrtflow-logserver"], check=True, capture_output=True
    )
    for unit in ("elasticsearch", "syslog-ng"):
        started(unit)
    connected(ends)


_NONSENSE = """
import socket
with socket.create_connection(("10.77.0.10", 514)) as connection:
    for number in range(5000):
        line = f"<150>Nov 24 03:13:47 OpenWrt ulogd[1]: [DESTROY] ORIG: SRC=10.77.0.{number % 256} DST=nonsense\\n"
        connection.sendall(line.encode())
"""


def nonsense_by_a_device() -> Iterator[None]:
    """A device on the LAN sends the collector nonsense and forged lines in a form that nobody may take for a flow."""
    yield
    before = record()["flows"]["unparsed"]
    lab.run("client", "python3", "-c", _NONSENSE)
    lab.wait_for("the lines to be refused", lambda: record()["flows"]["unparsed"] >= before + 5000, 60)


# --- network ----------------------------------------------------------------------------------------------------

_CUT = """
add table inet fault
add chain inet fault cut {{ type filter hook {hook} priority -200; }}
add rule inet fault cut {rule} counter drop
"""


@contextlib.contextmanager
def cut(hook: str, rule: str) -> Iterator[None]:
    """Drop what the rule matches on the log server, and check that it did match something."""
    server("nft", "--file", "-", stdin=_CUT.format(hook=hook, rule=rule))
    try:
        yield
        assert "packets 0 " not in server("nft", "list", "table", "inet", "fault")
    finally:
        server("nft", "delete", "table", "inet", "fault")


def router_cut_off() -> Iterator[None]:
    """Nothing of the router reaches the collector for some seconds."""
    with cut("input", "ip saddr 10.77.0.1 tcp dport 514"):
        yield
        time.sleep(MOMENT)


def storage_cut_off() -> Iterator[None]:
    """Nothing of the collector reaches Elasticsearch until its request has timed out."""
    with cut("input", "tcp dport 9200"):
        yield
        lab.wait_for("the reason", lambda: record()["delivery"].get("reason"), 60)


_UNKNOWN = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for number in range(1, 21):
        sender.sendto(b"?", (f"198.18.200.{number}", 9))
"""


def dns_dead() -> Iterator[None]:
    """The collector's name server does not answer, and a device calls addresses that have no name yet."""
    with cut("output", "udp dport 53"):
        yield
        failed = record()["names"]["ptr_failed"]
        lab.run("client", "python3", "-c", _UNKNOWN)
        lab.wait_for("queries that fail", lambda: record()["names"]["ptr_failed"] > failed, 60)


# --- router -----------------------------------------------------------------------------------------------------


def ulogd_killed() -> Iterator[None]:
    """ulogd is killed, and the router's own watchdog starts it again."""
    yield
    before = router("pidof ulogd")
    router("kill -9 $(pidof ulogd)")
    lab.wait_for(
        "another ulogd", lambda: router("pidof ulogd || true").strip() not in ("", before.strip()), 120
    )
    ended = record()["flows"]["destroy"]
    lab.wait_for("ulogd to report flows", lambda: record()["flows"]["destroy"] > ended, 60)


def log_restarted() -> Iterator[None]:
    """The router's log is restarted."""
    yield
    ends = connections()
    router("/etc/init.d/log restart")
    connected(ends)


def router_rebooted() -> Iterator[None]:
    """The router reboots."""
    yield
    ends = connections()
    subprocess.run(["docker", "restart", "--time", "5", "wrtflow-router"], check=True, capture_output=True)
    lab.wait_for("the router to be up", lambda: _up("router"), 120)
    connected(ends)


def _up(host: str) -> bool:
    return (
        subprocess.run(
            ["docker", "exec", f"wrtflow-{host}", "/lab/ready"], capture_output=True, check=False
        ).returncode
        == 0
    )


AWAY = "the router's log has nobody to send to meanwhile, and keeps nothing"
FAULTS = [
    Fault("none", lambda: iter([None])),
    Fault("Elasticsearch stopped", elasticsearch_stopped),
    Fault("Elasticsearch stopped for long", lambda: elasticsearch_stopped(MINUTES), long=True),
    Fault("Elasticsearch killed", elasticsearch_killed, long=True),
    Fault("Elasticsearch stalls", elasticsearch_stalls, long=True),
    Fault("503 instead of Elasticsearch's answer", elasticsearch_answers_503, long=True),
    Fault("month's index blocked", month_blocked),
    Fault("disk at the flood stage", disk_at_the_flood_stage, long=True),
    Fault("key revoked, made again by a run", key_revoked, long=True),
    Fault("certificate replaced by a run", certificate_replaced, long=True),
    Fault("syslog-ng restarted", collector_restarted, why=AWAY, long=True),
    Fault("syslog-ng killed", collector_killed, why=AWAY),
    Fault("syslog-ng reloaded 50 times", collector_reloaded, long=True),
    Fault("state's disk full", state_disk_full),
    Fault("GeoLite rotated", geolite_rotated, long=True),
    Fault("log server rebooted", log_server_rebooted, why=AWAY, long=True),
    Fault("nonsense by a device", nonsense_by_a_device, long=True),
    Fault("router cut off from the collector", router_cut_off),
    Fault("collector cut off from Elasticsearch", storage_cut_off, long=True),
    Fault("DNS dead", dns_dead, long=True),
    Fault("ulogd killed", ulogd_killed, why="nobody listens to the kernel until ulogd runs again"),
    Fault(
        "router's log restarted",
        log_restarted,
        why="the router's log forgets what it has not sent",
        long=True,
    ),
    Fault(
        "router rebooted",
        router_rebooted,
        why="the kernel forgets its flows without a word",
        long=True,
        unheard=True,
    ),
    # The last one, because the times of its documents reach into what comes after it.
    Fault("collector's clock stepped", clock_stepped, long=True, around=another_clock),
]
