"""The databases: whatever fails, the chain goes on with what it has; and what succeeds, nobody notices in the flows.

The tests build on one another: first the failures, then the rotation, then what comes after it.
"""

import datetime
import itertools
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SHENZHEN, Collector, Double, collector, digest, make_databases, maxmind, rotate

#: In MaxMind's database, and not in the lab's: the RIPE NCC in Amsterdam.
RIPE = "193.0.6.139"
#: What MaxMind's database is checked with, in place of the lab's own.
KNOWN = json.dumps(
    {"geolite_known_addresses": {"City": {RIPE: "NL", "8.8.8.8": "US"}, "ASN": {SHENZHEN: 64502}}}
)

KINDS = {"City": "GeoLite2-City.mmdb", "ASN": "GeoLite2-ASN.mmdb"}

# Beyond those of Traffic.
PORTS = itertools.count(40000)
MINUTES = itertools.count(1)


def flow(event: str, port: int, remote: str) -> str:
    """A router's line; the counters of a DESTROY tell the port."""
    counters = f"PKTS=1 BYTES={port}" if event == "DESTROY" else "PKTS=0 BYTES=0"
    return (
        f"<30>{time.strftime('%b %e %H:%M:%S')} OpenWrt ulogd[1868]: [{event}] ORIG: SRC=10.77.0.120 DST={remote}"
        f" PROTO=TCP SPT={port} DPT=443 {counters} , REPLY: SRC={remote} DST=198.18.0.1 PROTO=TCP SPT=443 DPT={port}"
        f" {counters} "
    )


def place(machine: Collector, remote: str) -> tuple[str | None, int | None]:
    """Send a flow, and return the country and the autonomous system in its document."""
    port = next(PORTS)
    machine.send("tcp", [flow(event, port, remote) for event in ("NEW", "DESTROY")])
    (document,) = machine.wait(f"the document of port {port}", lambda: machine.of_ports({port}))
    there = document["destination"]
    return there.get("geo", {}).get("country_iso_code"), there.get("as", {}).get("number")


def test_the_timer_waits_for_its_time(machine):
    shown = machine.run(
        "systemctl", "show", "wrtflow-geolite.timer",
        "--property=ActiveState,UnitFileState,Persistent,RandomizedDelayUSec,TimersCalendar,NextElapseUSecRealtime",
    )  # fmt: skip
    timer = dict(line.split("=", 1) for line in shown.splitlines())
    assert (timer["ActiveState"], timer["UnitFileState"], timer["Persistent"]) == ("active", "enabled", "yes")
    assert timer["RandomizedDelayUSec"] == "4h"
    assert "OnCalendar=Wed,Sat *-*-* 04:00:00" in timer["TimersCalendar"]
    assert timer["NextElapseUSecRealtime"]


def test_the_settings_hold_the_key_and_are_root_s(machine):
    assert machine.run("stat", "-c", "%a %U", "/etc/wrtflow/geolite.json").split() == ["600", "root"]


# --- failures ---


def in_use(machine: Collector) -> tuple:
    """Return all that a failure must leave as it is: the databases, the collector, and what it makes of an address."""
    databases = machine.databases()
    assert machine.opened() == {
        name: {inode} for name, (_, inode) in databases.items() if name in KINDS.values()
    }
    return databases, machine.pid(), place(machine, SHENZHEN)


@pytest.fixture(scope="module")
def before(machine: Collector) -> tuple:
    """How all was before the first failure."""
    found = in_use(machine)
    assert found[2] == ("CN", 64502)
    return found


@pytest.fixture
def untouched(machine: Collector, double: Double, before: tuple) -> Iterator[None]:
    """After the test the databases and the collector are as before, and nothing lies around."""
    yield
    assert in_use(machine) == before
    assert machine.run("find", "/var/lib/GeoIP", "-name", ".update-*") == ""


def fails(machine: Collector, sentence: str) -> None:
    """The unit fails, and its journal has this sentence and nothing else."""
    result, said = machine.update()
    assert (result, len(said)) == ("exit-code", 1), said
    assert sentence in said[0]
    assert machine.run("systemctl", "is-failed", "wrtflow-geolite", check=False).strip() == "failed"


def test_the_playbook_fails_with_the_sentence(machine, double, made, untouched):
    """From here on MaxMind is the source."""
    for kind in KINDS:
        double.release(kind, made / KINDS[kind])
    code, said = rotate("--extra-vars", "geolite_license_key=wr0ng")
    sentence = (
        "198.18.1.80 refuses the account id or licence key (401):"
        " check geolite_account_id and geolite_license_key."
    )
    assert code == 2
    assert sentence in said
    assert "wr0ng" not in said
    fails(machine, sentence)
    assert "wr0ng" not in machine.run("journalctl", "--quiet", "--output=cat")
    machine.settings(license_key=maxmind.KEY, timeout=2)


def no_network(machine: Collector) -> None:
    machine.settings(maxmind_url="https://198.18.5.99/{kind}")


def refused_connection(machine: Collector) -> None:
    machine.settings(maxmind_url="https://198.18.1.80:9/{kind}")


def another_certificate(machine: Collector) -> None:
    machine.settings(
        maxmind_url="https://198.18.5.80:8443/geoip/databases/GeoLite2-{kind}/download?suffix=tar.gz"
    )


def other_expectations(machine: Collector) -> None:
    machine.settings(known={"City": {SHENZHEN: "US"}})


def full_disk(machine: Collector) -> None:
    free = int(machine.run("stat", "--file-system", "--format=%a*%S", "/var/lib/GeoIP").split("*")[0]) * 4096
    machine.run("fallocate", "--length", str(free - (10 << 20)), "/var/lib/GeoIP/filler")


def broken_configuration(machine: Collector) -> None:
    machine.put("/etc/syslog-ng/conf.d/99-broken.conf", b"nonsense {")


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (no_network, "GeoLite2 City can't be fetched from 198.18.5.99 ("),
        (refused_connection, "GeoLite2 City can't be fetched from 198.18.1.80 (Connection refused)."),
        (another_certificate, "from 198.18.5.80 (its certificate is not trusted: IP address mismatch"),
        (other_expectations, f"The new GeoLite2 City says CN of {SHENZHEN}, not US."),
        (full_disk, "There is no room for new databases in /var/lib/GeoIP: "),
        (broken_configuration, "The collector could not reload (Syntax error parsing configuration file, previous"
         " config remained intact): the former databases are back."),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)  # fmt: skip
def test_trouble_at_home(machine, untouched, trouble: Callable, sentence: str):
    settings = machine.run("cat", "/etc/wrtflow/geolite.json").encode()
    trouble(machine)
    try:
        fails(machine, sentence)
    finally:
        machine.put("/etc/wrtflow/geolite.json", settings)
        machine.run("rm", "-f", "/var/lib/GeoIP/filler", "/etc/syslog-ng/conf.d/99-broken.conf")


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        ({"limit": 0}, "198.18.1.80 has had enough downloads for today (429)"),
        ({"cut": 500}, "The download of GeoLite2 City broke off after 500 of "),
        ({"hold": 500}, "GeoLite2 City can't be fetched from 198.18.3.80 (The read operation timed out)."),
        ({"checksum": "0" * 64}, "The download of GeoLite2 City does not have MaxMind's checksum."),
        ({"fail": 503}, "198.18.3.80 answered 503 for GeoLite2 City."),
    ],
    ids=["limit", "cut", "hold", "checksum", "fail"],
)
def test_trouble_at_maxmind(machine, double, untouched, behaviour, sentence):
    double.behave(**behaviour)
    fails(machine, sentence)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda made, _: city(made)[:-100], "The new GeoLite2 City is damaged ("),
        (
            lambda made, _: city(made).replace(b"iso_code", b"iso_c\xff\xff\xff"),
            "The new GeoLite2 City is damaged (",
        ),
        (lambda _, real: real.read_bytes()[: 40 << 20], "The new GeoLite2 City is damaged ("),
        (lambda made, _: (made / KINDS["ASN"]).read_bytes(), "is a database of type GeoLite2-ASN."),
        (lambda made, _: older(made), "is older than the present one (2026-07-01, 2026-08-01)"),
    ],
    ids=["truncated", "corrupt", "truncated at full size", "another type", "older"],
)
def test_a_release_that_is_none(machine, double, made, full_size, untouched, tmp_path, make, sentence):
    (tmp_path / "database").write_bytes(make(made, full_size))
    double.release("City", tmp_path / "database")
    try:
        fails(machine, sentence)
    finally:
        double.release("City", made / "GeoLite2-City.mmdb")


def city(made: Path) -> bytes:
    """The lab's City database, built just now."""
    return (made / "GeoLite2-City.mmdb").read_bytes()


def older(made: Path) -> bytes:
    """The lab's City database, built in July."""
    head, name, tail = city(made).rpartition(b"build_epoch")
    # A byte says type and length, another the extended type; then come four bytes.
    july = int(datetime.datetime(2026, 7, 1, tzinfo=datetime.UTC).timestamp())
    return head + name + tail[:2] + july.to_bytes(4) + tail[6:]


def test_killed_in_the_middle_and_mended_by_the_next_run(machine, double, untouched):
    double.behave(hold=500)
    machine.settings(timeout=60)
    asked = len(double.requests())
    machine.run("systemctl", "start", "--no-block", "wrtflow-geolite")
    machine.wait("the download", lambda: len(double.requests()) == asked + 2)
    machine.run("systemctl", "kill", "--signal=KILL", "wrtflow-geolite")
    machine.wait("the end", lambda: machine.ended()[0] == "signal")
    assert machine.run("find", "/var/lib/GeoIP", "-name", "City.download")
    # What is left is cleared up even by a run that fails.
    double.behave(limit=0)
    fails(machine, "(429)")


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (lambda machine, double: double.behave(limit=0), "198.18.1.80 has had enough downloads for today (429): try"),
        (lambda machine, double: full_disk(machine), "There is no room for new databases in /var/lib/GeoIP: "),
    ],
    ids=["limit", "full disk"],
)  # fmt: skip
def test_the_playbook_fails_with_whatever_it_is(machine, double, untouched, trouble, sentence):
    trouble(machine, double)
    try:
        code, said = rotate()
    finally:
        machine.run("rm", "-f", "/var/lib/GeoIP/filler")
    assert code == 2
    assert sentence in said


def test_a_dry_run_says_what_would_be_done(machine, double, made, full_size, untouched):
    double.release("City", full_size)
    code, said = rotate("--check", "--extra-vars", KNOWN)
    assert code == 0, said
    assert (
        "GeoLite2 City: 2026-08-01T00:00:00+00:00 -> 2026-09-18T04:49:38+00:00 (not yet: this is a dry run)"
        in said
    )
    assert "GeoLite2 ASN: 2026-08-01T00:00:00+00:00 -> " in said


#: The program as it is installed, for what no command of it does.
LOAD = """
import importlib.machinery, importlib.util, os, pathlib, signal, sys
loader = importlib.machinery.SourceFileLoader("geolite", "/usr/local/sbin/wrtflow-geolite")
geolite = importlib.util.module_from_spec(importlib.util.spec_from_loader("geolite", loader))
sys.modules["geolite"] = geolite
loader.exec_module(geolite)
"""

#: syslog-ng-ctl to a collector that aborts at its first reload.
DIES = b"""#!/bin/sh
if [ "$1" = reload ] && [ ! -e "$0.died" ]; then
    touch "$0.died"
    exec kill -ABRT "$(systemctl show --property=MainPID --value syslog-ng)"
fi
exec /usr/sbin/syslog-ng-ctl "$@"
"""


def test_a_collector_that_dies_of_the_reload_has_the_former_databases_back(machine, double, made):
    double.release("City", made / "GeoLite2-City.mmdb")
    before = in_use(machine)
    tools, drop_in = "/usr/local/lib/dies", "/run/systemd/system/wrtflow-geolite.service.d/dies.conf"
    machine.put(f"{tools}/syslog-ng-ctl", DIES)
    machine.run("chmod", "+x", f"{tools}/syslog-ng-ctl")
    machine.put(
        drop_in, f"[Service]\nEnvironment=PATH={tools}:/usr/sbin:/usr/bin\nReadWritePaths={tools}\n".encode()
    )
    machine.run("systemctl", "daemon-reload")
    try:
        fails(machine, "The collector did not go on with the new databases: the former databases are back.")
    finally:
        machine.run("rm", "-r", tools, drop_in)
        machine.run("systemctl", "daemon-reload")
    after = in_use(machine)
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] != before[1]


# --- the rotation ---

NOW = b"""[Timer]
OnCalendar=
OnActiveSec=1s
RandomizedDelaySec=0
AccuracySec=1ms
"""


def test_the_timer_rotates(machine, double, tmp_path):
    """By the unit as it is, with all that it may not do."""
    make_databases(tmp_path, "2026-09-01")
    for kind, file in KINDS.items():
        double.release(kind, tmp_path / file)
    pid, drop_in = machine.pid(), "/run/systemd/system/wrtflow-geolite.timer.d/now.conf"
    triggered = machine.unit("wrtflow-geolite.timer", "LastTriggerUSec")
    former = machine.unit("wrtflow-geolite", "InvocationID")
    # Stopped while it is changed: else it would run at the reload, and once more after its start.
    machine.run("systemctl", "stop", "wrtflow-geolite.timer")
    machine.put(drop_in, NOW)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "wrtflow-geolite.timer")
    try:
        machine.wait("the timer's run", lambda: (
            machine.unit("wrtflow-geolite", "InvocationID") != former
            and machine.unit("wrtflow-geolite", "ActiveState") in {"inactive", "failed"}
        ))  # fmt: skip
    finally:
        machine.run("systemctl", "stop", "wrtflow-geolite.timer")
        machine.run("rm", drop_in)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", "wrtflow-geolite.timer")
    result, said = machine.ended()
    assert result == "success", said
    assert machine.unit("wrtflow-geolite.timer", "LastTriggerUSec") != triggered
    dates = {"old": "2026-08-01T00:00:00+00:00", "new": "2026-09-01T00:00:00+00:00"}
    assert [json.loads(line) for line in said] == [
        {"database": kind, "changed": True, **dates} for kind in KINDS
    ]
    databases, same, there = in_use(machine)
    assert {file: databases[file][0] for file in KINDS.values()} == {
        file: digest(tmp_path / file) for file in KINDS.values()
    }
    assert (same, there) == (pid, ("CN", 64502))


SENDER = """
import socket, sys, threading, time
base, remote, line = int(sys.argv[1]), sys.argv[2], sys.argv[3]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
tcp = socket.create_connection(("10.77.0.10", 514))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect(("10.77.0.10", 514))

def send(event, number):
    counters = f"PKTS=1 BYTES={base + number}" if event == "DESTROY" else "PKTS=0 BYTES=0"
    text = line.replace("EVENT", event).replace("PORT", str(base + number)).replace("COUNTERS", counters)
    udp.send(text.encode()) if number % 10 == 0 else tcp.sendall(text.encode() + b"\\n")

number = 0
while not ended.is_set():
    send("NEW", number)
    if number >= 100:
        send("DESTROY", number - 100)
    number += 1
    time.sleep(0.005)
for number in range(max(0, number - 100), number):
    send("DESTROY", number)
print(number + 1)
"""


class Traffic:
    """Flows that begin and end all the time, each open for half a second; every tenth by UDP."""

    def __init__(self) -> None:
        """Begin."""
        self.base = 1024
        line = flow("EVENT", 0, RIPE).replace("SPT=0", "SPT=PORT").replace("DPT=0", "DPT=PORT")
        self.process = subprocess.Popen(
            ["docker", "exec", "-i", collector.CONTAINER, "python3", "-c", SENDER, str(self.base), RIPE,
             line.replace("PKTS=0 BYTES=0", "COUNTERS")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self) -> set[int]:
        """End, and return the ports of all flows."""
        sent, _ = self.process.communicate("")
        assert self.process.returncode == 0, "the session was broken"
        return set(range(self.base, self.base + int(sent)))


def test_a_rotation_loses_no_flow(machine, double, made, full_size):
    assert place(machine, RIPE) == (None, None)
    double.release("City", full_size)
    double.release("ASN", made / "GeoLite2-ASN.mmdb")
    pid, open_port = machine.pid(), next(PORTS)
    machine.send("tcp", [flow("NEW", open_port, RIPE)])
    former = machine.databases()
    before = datetime.datetime.now(datetime.UTC).isoformat()
    traffic = Traffic()

    code, said = rotate("--extra-vars", KNOWN)

    assert code == 0, said
    assert "GeoLite2 City: 2026-09-01T00:00:00+00:00 -> 2026-09-18T" in said
    machine.send("tcp", [flow("DESTROY", open_port, RIPE)])
    ports = traffic.end()
    assert len(ports) > 300
    documents = machine.wait("every flow", lambda: machine.of_ports(ports))
    # Each once, with its start, its bytes, and the databases of before or of after.
    assert sorted(found["source"]["port"] for found in documents) == sorted(ports)
    assert all(found["source"]["bytes"] == found["source"]["port"] for found in documents)
    assert all(found["event"]["start"] < found["@timestamp"] for found in documents)
    places = [found["destination"].get("geo", {}).get("country_iso_code") for found in documents]
    assert {None, "NL"} == set(places)
    (document,) = machine.of_ports({open_port})
    assert document["event"]["start"] <= before
    assert (document["source"]["bytes"], document["destination"]["geo"]["country_iso_code"]) == (
        open_port,
        "NL",
    )

    databases, same, there = in_use(machine)
    assert same == pid
    assert there == (None, 64502)
    assert databases["GeoLite2-City.mmdb"][0] == digest(full_size)
    assert databases["GeoLite2-ASN.mmdb"][0] == digest(made / "GeoLite2-ASN.mmdb")
    previous = machine.run("sha256sum", "/var/lib/GeoIP/GeoLite2-City.mmdb.previous").split()[0]
    assert previous == former["GeoLite2-City.mmdb"][0]


def test_a_second_run_downloads_nothing_and_changes_nothing(machine, double):
    asked, before = len(double.requests()), in_use(machine)
    code, said = rotate("--extra-vars", KNOWN)
    assert code == 0, said
    assert " changed=0 " in said
    assert "GeoLite2 City: 2026-09-18T04:49:38+00:00 is what the source has" in said
    assert machine.update()[0] == "success"
    assert in_use(machine) == before
    fresh = [
        (request["method"], request["status"], request["bytes"]) for request in double.requests()[asked:]
    ]
    assert fresh == [("HEAD", 302, 0), ("HEAD", 304, 0)] * 4


def test_the_doctor_tells_of_an_old_database_and_of_a_failed_update(machine, double):
    """The one of full size is of September 2026."""
    age = (datetime.datetime.now(datetime.UTC) - datetime.datetime(2026, 9, 18, tzinfo=datetime.UTC)).days
    record = machine.health()["databases"]
    assert record["GeoLite2-City"] == pytest.approx(age, abs=1.5)
    assert record["GeoLite2-ASN"] < 1
    code, said = rotate("--tags", "geolite", playbook="verify")
    assert code == 0, said
    assert "good: the last run of wrtflow-geolite.timer went well" in said
    assert f"GeoLite2-City is {round(record['GeoLite2-City'])} days old" in said
    assert "GeoLite2-ASN is" not in said
    assert "the last run of wrtflow-geolite.timer failed" not in said
    double.behave(fail=503)
    fails(machine, "198.18.3.80 answered 503")
    _, said = rotate("--tags", "geolite", playbook="verify")
    assert (
        "the last run of wrtflow-geolite.timer failed: see journalctl -u wrtflow-geolite on logserver" in said
    )


# --- a power cut ---

#: Is killed before it calls a function for the so-manieth time.
KILLED = """
step, left, *arguments = sys.argv[1:]
function, left = getattr(geolite, step), int(left)

def counted(*given, **named):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*given, **named)

setattr(geolite, step, counted)
sys.exit(geolite.main(arguments))
"""


@pytest.mark.parametrize(
    ("step", "call"),
    [
        ("validate", 2),
        ("put_in_place", 1),
        ("put_in_place", 2),
        ("reload_collector", 1),
        ("_remember", 1),
    ],
)
def test_killed_and_mended_by_the_next_run(machine, tmp_path, step, call):
    built = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=next(MINUTES))
    make_databases(tmp_path, built.replace(tzinfo=None).isoformat())
    offer = "/var/tmp/offer"
    for file in KINDS.values():
        machine.put(f"{offer}/{file}", (tmp_path / file).read_bytes())
    settings = {
        "directory": "/var/lib/GeoIP",
        "sources": {kind: f"{offer}/{file}" for kind, file in KINDS.items()},
        # After one of full size.
        "minimum_share": 0,
    }
    machine.put(f"{offer}/settings.json", json.dumps(settings).encode())
    whole = {file: {machine.databases()[file][0], digest(tmp_path / file)} for file in KINDS.values()}
    pid, program = machine.pid(), ("python3", "-B", "-c", LOAD + KILLED)

    machine.run(*program, step, str(call), "--settings", f"{offer}/settings.json", check=False)

    assert machine.run("find", "/var/lib/GeoIP", "-name", ".update-*"), "it was not killed"
    databases = machine.databases()
    assert all(databases[file][0] in whole[file] for file in whole)
    assert (machine.pid(), place(machine, SHENZHEN)[1]) == (pid, 64502)

    machine.run("wrtflow-geolite", "--settings", f"{offer}/settings.json")

    databases, same, there = in_use(machine)
    assert {file: databases[file][0] for file in whole} == {file: digest(tmp_path / file) for file in whole}
    assert (same, there) == (pid, ("CN", 64502))
    assert machine.run("find", "/var/lib/GeoIP", "-name", ".update-*") == ""
