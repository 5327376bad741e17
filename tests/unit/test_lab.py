"""The lab's tools: if they misread events or places, the test of the whole chain compares with wrong values."""

import json

import lab
import progress
import pytest
import replay

EVENTS = {
    "[DESTROY] ipv4     2 tcp      6 src=10.77.0.20 dst=198.18.1.80 sport=40312 dport=443 packets=9 bytes=3371"
    " src=198.18.1.80 dst=198.18.0.1 sport=443 dport=40312 packets=8 bytes=1301 [ASSURED]": lab.KernelFlow(
        "tcp", "10.77.0.20", "198.18.1.80", 40312, 443, 3371, 9, 1301, 8, 0
    ),
    "[DESTROY] ipv6     10 icmpv6   58 src=fd77:0000:0000:0001:0000:0000:0000:0020"
    " dst=fd77:0000:0000:0002:0003:0000:0000:0080 type=128 code=0 id=7 packets=3 bytes=312"
    " src=fd77:0000:0000:0002:0003:0000:0000:0080"
    " dst=fd77:0000:0000:0001:0000:0000:0000:0020 type=129 code=0 id=7 packets=3 bytes=312": lab.KernelFlow(
        "ipv6-icmp", "fd77:0:0:1::20", "fd77::2:3:0:0:80", None, None, 312, 3, 312, 3, 0
    ),
}


@pytest.mark.parametrize("line", EVENTS, ids=["tcp", "icmpv6"])
def test_conntrack_events(line):
    event = lab.parse_event(line)
    event.seen = 0
    assert event == EVENTS[line]


def test_other_lines_are_no_events():
    assert lab.parse_event("    [NEW] ipv4     2 tcp      6 120 SYN_SENT src=1.2.3.4 dst=5.6.7.8") is None
    assert lab.parse_event("conntrack v1.4.8 (conntrack-tools): 7 flow events have been shown.") is None


def test_places():
    assert lab.place_of("198.18.2.80") == ("CN", "Shenzhen", 64502)
    assert lab.place_of("198.18.5.80") == ("BR", None, None)
    assert lab.place_of("fd77:0:0:2:3::80")[0] == "US"
    assert lab.place_of("198.18.0.53") == (None, None, None)


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        (b"<30>Nov 24 03:13:47 OpenWrt ulogd[1]: [NEW] x ", b"<30>Nov 24 03:13:47 {} ulogd[1]: [NEW] x "),
        (b"Mar 13 15:03:57 openwrt ulogd[1]: [NEW] x", b"<30>Mar 13 15:03:57 {} ulogd[1]: [NEW] x"),
        (
            b"Mon Mar 11 15:42:51 2019 daemon.info ulogd[1]: [NEW] x",
            b"<30>Mar 11 15:42:51 {} ulogd[1]: [NEW] x",
        ),
        (
            b"2026-11-24T03:13:47.123+01:00 openwrt ulogd[1]: [NEW] x",
            b"<30>2026-11-24T03:13:47.123+01:00 {} ulogd[1]: [NEW] x",
        ),
        (b"<30>Nov  4 03:13:47 ulogd[1]: [NEW] x ", b"<30>Nov  4 03:13:47 {} ulogd[1]: [NEW] x "),
        (b"<30>Nov  4 03:13:47 [1.234] a ulogd[1]: [NEW] x ", b"<30>Nov  4 03:13:47 {} ulogd[1]: [NEW] x "),
        (
            b"Mon Mar 11 15:42:51 2019 [1552318971.123] daemon.info ulogd[1]: [NEW] x",
            b"<30>Mar 11 15:42:51 {} ulogd[1]: [NEW] x",
        ),
        (b"<4>Nov  4 03:13:47 kernel: [ 1.2] x", b"<4>Nov  4 03:13:47 {} kernel: [ 1.2] x"),
        (b"\xff\x00 no log line at all", b"\xff\x00 no log line at all"),
    ],
    ids=[
        "wire",
        "log server's file",
        "logread",
        "relay",
        "no host",
        "-t",
        "logread -t",
        "kernel",
        "anything else",
    ],
)
def test_replay_sends_what_a_router_would(line, sent):
    names = replay.Names(None)
    assert replay.on_the_wire(line, names) == sent.replace(b"{}", f"{names.token}-0".encode())


def test_replay_gives_each_router_its_name_back():
    names = replay.Names(None)
    documents = [{"observer": {"hostname": names.give(host)}} for host in ("attic", "cellar", "attic")]
    assert documents[0] == documents[2] != documents[1]
    assert [names.restore(json.loads(json.dumps(d)))["observer"]["hostname"] for d in documents] == [
        "attic",
        "cellar",
        "attic",
    ]


def test_replay_gives_every_router_the_senders_name():
    names = replay.Names("porch")
    document = {"observer": {"hostname": names.give("attic")}}
    assert names.restore(document)["observer"]["hostname"] == "porch"


OUTPUT = """\
image: building debian (registry)
noise
\x1b[0m  │ PLAY [Storage] ****
  │ TASK [elasticsearch : Packages are installed] ***
  │ changed: [logserver]
  │ PLAY [A play without hosts] ***
  │ skipping: no hosts matched
  │ PLAY [Storage that somebody else runs] ***
  │ TASK [elasticsearch : The index template is there] ***
  │ skipping: [localhost]
  │ PLAY [Collector] ***
  │ TASK [syslog_ng : Packages are installed] ***
  │ ok: [logserver]
  │ TASK [syslog_ng : Folders are there] ***
  │ ok: [logserver] => (item=/etc)
"""


def test_progress_names_each_phase_and_keeps_all_output(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("WRTFLOW_CACHE", str(tmp_path))
    (tmp_path / "output").write_text(OUTPUT)
    assert progress.main(["cat", str(tmp_path / "output")]) == 0
    told, wrong = capfd.readouterr()
    phases = [line.split() for line in told.splitlines()[1:]]
    assert phases == [["Image", "debian", "0", "s"], ["Storage", "0", "s"], ["Collector", "0", "s"]]
    assert (tmp_path / "lab.log").read_text() == OUTPUT
    assert not wrong


def test_progress_shows_the_end_of_a_failure(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("WRTFLOW_CACHE", str(tmp_path))
    script = "seq 1000; echo PLAY [Router]; echo 'fatal: [router]: FAILED'; echo it broke; exit 3"
    assert progress.main(["sh", "-c", script]) == 3
    told, wrong = capfd.readouterr()
    assert "Router" in told
    assert wrong.splitlines()[-1] == "it broke"
    assert "\n1\n" not in wrong
