"""wrtflow.collector, enrich and parsers: the whole chain, from any line to the outbox."""

import dataclasses
import json
import random
import sys
import threading
import time
from pathlib import Path

import fakes
import house
import pytest
import yaml
from fakes import DAY, LAPTOP, OUTER, SECOND, SITE, START, TABLET, Message, json_line, line, told
from wrtflow import collector, health, parsers
from wrtflow.parse import LINE

MAC = "02-00-00-00-00-20"


def on_disk(chain):
    chain.keep()
    # The ledger counts every line.
    tables = [table for table in chain.collector.state._tables if table != "ledger"]
    return [row for table in tables for row in chain.collector.state.rows(table)]


# Both transports


@pytest.mark.parametrize("opened", [True, False])
def test_both_transports_make_the_same_document(chain, opened):
    """But for the precision of the times."""
    chain.names.macs[LAPTOP], chain.names.called[LAPTOP] = MAC, "laptop"
    chain.names.sites[LAPTOP, SITE] = "site.example"
    if opened:
        chain.send(line("NEW"))
        chain.send(json_line(ct__event=1))
    chain.clock.passes(9 * SECOND)
    times = {"flow__start__sec": START // 1000, "flow__start__usec": 0}
    times |= {"flow__end__sec": START // 1000 + 9, "flow__end__usec": 0}
    alike = chain.send(line("DESTROY")) + chain.send(json_line(**(times if opened else {})))
    assert alike[0] == alike[1]
    assert ("start" in alike[0]["event"]) == opened


# What a line is


@pytest.mark.parametrize(
    "text",
    [
        line("UPDATE"),
        told("- init complete -", "procd"),
        told("DHCPACK(br-lan) 10.77.0.20 02:77:00:00:00:20 laptop", "dnsmasq-dhcp[1]"),
        told(""),
        told("registering plugin `NFCT'", "ulogd[1]"),
        json_line(ct__event=2),
    ],
)
def test_nothing_but_flows_passes(chain, text):
    assert chain.send(text) == []
    assert chain.unparsed == ""
    assert chain.counts["unparsed"] == chain.counts["open"] == 0


BAD = [
    "", "hello", line("NEW")[:90], line("NEW").replace("443", "65536"), told("networks x"), told("role king"),
    line("NEW", "10.77.0.300"), line("NEW", "fd77::1"), line("NEW", "fe80::1%eth0"), json_line(src_ip="x"),
    json_line(src_ip="\ud800"), "{", line("NEW").replace("ulogd", "notulogd"), line("NEW").replace("ORIG", "\nORIG"),
    line("NEW").replace("ulogd", "a\nulogd"), line("NEW").replace("ulogd", "a\0ulogd"),
    line("NEW").replace("TCP", "7TCP"),
    line("NEW").replace("[1868]", "\u2028[1868]"), f"x\n{line('NEW')}",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_can_t_be_trusted_is_counted_and_kept_and_leaves_nothing(chain, text):
    before = on_disk(chain)
    assert chain.send(text) == []
    assert (chain.counts["unparsed"], chain.counts["open"]) == (1, 0)
    (kept,) = chain.unparsed.splitlines()
    assert f" {fakes.SENDER} " in kept
    assert on_disk(chain) == before
    # And a start afterwards is as any other.
    chain.restart()
    assert chain.send(line("NEW")) == []
    assert "start" in chain.send(line("DESTROY"))[0]["event"]


def test_lines_are_learned_from(chain):
    chain.send(told("query[A] site.example from 10.77.0.20", "dnsmasq[1]"))
    chain.send(told("x", "odhcpd"))
    for program in ("", "dnsmasq-tftp", "dnsmasqd", "[1]"):
        chain.send(told("query[A] site.example from 10.77.0.20", program))
    chain.send(told("neigh 10.77.0.20 02:00:00:00:00:20"))
    chain.send(told("lease 10.77.0.20 02:00:00:00:00:20 laptop"))
    assert [what[-2:] for what in chain.names.observed] == [
        ("dnsmasq", "query[A] site.example from 10.77.0.20"),
        ("odhcpd", "x"),
        ("wrtflow-net", "neigh 10.77.0.20 02:00:00:00:00:20"),
        ("wrtflow-net", "lease 10.77.0.20 02:00:00:00:00:20 laptop"),
    ]


def mutated(chance, text):
    """A good line, made a little or very wrong."""
    letters = list(text)
    for _ in range(chance.choice([1, 1, 2, 5, 30])):
        at = chance.randrange(len(letters) + 1)
        odd = chance.choice(
            [
                "\0",
                "\n",
                "",
                " ",
                "0",
                "9" * 30,
                "-1",
                ":",
                "[",
                "]",
                "{",
                "}",
                '"',
                "\\",
                "\ud800",
                "é",
                "::",
                "%eth0",
                "@",
                "٣",
                "\u2028",
                chr(chance.randrange(1, 0x11000)),
                "[NEW]",
                "null",
                "1e999",
            ]
        )
        match chance.randrange(4):
            case 0:
                letters[at:at] = odd
            case 1:
                letters[at : at + chance.randrange(1, 4)] = odd
            case 2:
                del letters[at : at + chance.randrange(1, 60)]
            case 3:
                other = chance.randrange(len(letters) + 1)
                letters[at:at] = letters[other : other + 40]
    return "".join(letters)


def one(chance):
    """Any line, good or not."""
    port, source = chance.randrange(1, 9), f"10.77.0.{chance.randrange(20, 25)}"
    kind = chance.randrange(12)
    event, number = chance.choice(["NEW", "UPDATE", "DESTROY"]), chance.choice([1, 2, 4])
    host = chance.choice(["OpenWrt", "OpenWrt", "attic", f"r{chance.randrange(400)}"])
    if kind < 4:
        made = line(event, source, port=port, ping=chance.random() < 0.3, host=host)
    elif kind < 7:
        made = json_line(
            ct__event=number, ct__id=port, dvc=host, src_ip=source, flow__end__usec=0,
            flow__end__sec=chance.choice([0, 5, START // 1000, 2**37]),
            flow__start__sec=chance.choice([0, 5, START // 1000, "x"]), flow__start__usec=0,
        )  # fmt: skip
    elif kind < 10:
        made = told(
            chance.choice(
                ["role ap", "role edge", "role", "boot a 5", f"boot {port} 0", "boot", "boot a x",
                 "networks 10.77.0.0/24 ::1", "networks", f"networks 2001:db8:{port}::/56", "neigh x", "",
                 "networks 0.0.0.0/0"]
            ), host=host,
        )  # fmt: skip
    elif kind == 10:
        made = told(f"[    0.000000] Linux version {port}", "kernel", host=host)
    else:
        made = chance.randbytes(chance.randrange(300)).decode("utf-8", "replace")
    return mutated(chance, made) if chance.random() < 0.6 else made


def attack(chain, seed, rounds):
    chance = random.Random(seed)
    for _ in range(rounds):
        text = one(chance)
        sender = chance.choice([fakes.SENDER, OUTER, f"192.0.2.{chance.randrange(40)}", "fd77::1"])
        before = chain.counts["lines"]
        if chance.random() < 0.1:
            (chain.collector.object if chance.random() < 0.5 else chain.collector.line)(text, sender)
        else:
            chain.send(text, sender)
        assert chain.counts["lines"] >= before
        chain.clock.passes(chance.choice([0, 0, 10, 1000, 61_000]))
        if chance.random() < 0.02:
            chain.clock.steps(chance.choice([-(10**11), -(10**7), 10**7, 10**11]))
            chain.clock.by_wall = max(chain.clock.by_wall, 1)
        if chance.random() < 0.01:
            chain.keep()


@pytest.mark.parametrize("left_out", [(), ("10.77.0.21", "02-00-00-00-00-22")])
def test_no_line_stops_the_chain(chains, left_out):
    """2,000 lines with every kind of mistake, at any time; and what they left behind is read back."""
    chain = chains(left_out=left_out)
    chain.names.macs["10.77.0.22"] = "02-00-00-00-00-22"
    attack(chain, 12, 1500)
    chain.restart()
    assert chain.collector.state.report()["rows_skipped"] == 0
    attack(chain, 13, 500)
    chain.clock.passes(10 * DAY)
    chain.keep()
    assert chain.counts["open"] == 0
    for _, _, document in chain.outbox.put_:
        text = json.dumps(document)
        assert not left_out or "10.77.0.21" not in text
        assert document["@timestamp"][:1] in "12"


def test_a_fault_of_ours_is_counted_and_stops_nobody(chain, monkeypatch, capfd):
    def fails(*_):
        raise RuntimeError("x" * 1_000_000)

    with monkeypatch.context() as broken:
        broken.setattr(chain.names, "observe", fails)
        broken.setattr(chain.collector.enrich, "ends", fails)
        for text in (told("neigh 10.77.0.20 02-00-00-00-00-20"), line("NEW"), line("NEW")):
            assert chain.send(text) == []
    assert chain.counts["faults"] == 3
    said = [each for each in capfd.readouterr().err.splitlines() if "fault of wrtflow's own" in each]
    assert [len(each) < 500 for each in said] == [True]
    assert len(chain.send(line("DESTROY"))) == 1


# Left out


FORWARDED = {"source": SITE, "destination": OUTER, "reply": (TABLET, SITE)}
HAIRPIN = {"source": LAPTOP, "destination": OUTER, "reply": (TABLET, "10.77.0.1")}


@pytest.mark.parametrize("by", ["10.77.0.21", "10.77.0.16/29", "02-00-00-00-00-21"])
@pytest.mark.parametrize(
    "ends",
    [
        {"source": TABLET},
        {"source": LAPTOP, "destination": TABLET, "reply": (TABLET, LAPTOP)},
        FORWARDED,
        HAIRPIN,
        {"source": LAPTOP, "reply": (SITE, TABLET)},
    ],
    ids=["source", "destination", "forwarded", "hairpin", "translated"],
)
@pytest.mark.parametrize("ping", [False, True])
def test_a_device_left_out_leaves_nothing_at_any_end(chains, by, ends, ping):
    chain = chains(left_out=(by,))
    chain.names.macs[TABLET] = "02-00-00-00-00-21"
    for event in ("NEW", "DESTROY"):
        assert chain.send(line(event, **ends, ping=ping)) == []
        # What was cut or refused of it is not kept either.
        text = line(event, **ends, ping=ping)
        for bad in (
            text[:-4],
            text[: text.rindex(TABLET) + 8],
            f"{text}x",
            text.replace("ulogd", "x"),
            f"x\n{text}",
        ):
            chain.send(bad)
    assert not [row for row in on_disk(chain) if TABLET in str(row)]
    assert chain.unparsed == ""
    assert chain.outbox.put_ == []


def test_a_device_left_out_by_its_mac_leaves_nothing_before_its_network_is_home(chains):
    chain = chains(left_out=("02-00-00-00-00-21",))
    inside, outside = "2001:db8:9::21", "2606::1"
    chain.names.macs[inside] = "02-00-00-00-00-21"
    for event in ("NEW", "DESTROY"):
        assert chain.send(line(event, inside, outside, reply=(outside, inside))) == []
    assert chain.outbox.put_ == []


def test_a_flow_that_began_left_out_ends_so_whoever_has_the_address_by_then(chains):
    chain = chains(left_out=("02-00-00-00-00-21",))
    chain.names.macs[TABLET] = "02-00-00-00-00-21"
    chain.send(line("NEW", TABLET))
    chain.send(line("NEW", TABLET, port=1))
    chain.names.macs[TABLET] = "02-00-00-00-00-99"
    assert chain.send(line("DESTROY", TABLET)) == []
    # The other one: its ports are used again, or its end never comes.
    chain.clock.passes(60 * SECOND)
    assert chain.send(line("NEW", TABLET, port=1, at="Nov 24 03:14:47")) == []
    chain.clock.passes(8 * DAY)
    assert len(chain.keep()) == 1
    assert not [row for row in on_disk(chain) if TABLET in str(row)]


@pytest.mark.parametrize("by", [TABLET, "02-00-00-00-00-21"])
def test_pieces_of_refused_lines_of_a_device_left_out_are_not_kept(chains, by):
    chain = chains(left_out=(by,))
    chain.names.macs[TABLET] = "02-00-00-00-00-21"
    text = line("DESTROY", TABLET)
    for begin in range(1, len(text)):
        chain.send(text[begin:])
    glued = "10.77.0.21DST", "A10.77.0.21 DST", "10.77.0.21.1 DST", "010.077.000.021 DST"
    for each in glued:
        chain.send(text.replace("10.77.0.21 DST", each))
    chain.send("DHCPACK(br-lan) 10.77.0.9 02:00:00:00:00:2")
    assert chain.unparsed == ""


def test_a_device_that_is_left_out_later_leaves_no_more(chain):
    chain.send(line("NEW", TABLET))
    chain.send(line("NEW", LAPTOP))
    chain.reload(left_out=(TABLET,))
    assert chain.send(line("DESTROY", TABLET)) == []
    assert len(chain.send(line("DESTROY"))) == 1
    assert chain.counts["open"] == 0
    # Its MAC becomes known when the flow is open.
    chain.reload(left_out=("02-00-00-00-00-21",))
    chain.send(line("NEW", TABLET))
    chain.names.macs[TABLET] = "02-00-00-00-00-21"
    chain.clock.passes(8 * DAY)
    assert chain.keep() == []
    assert chain.counts["open"] == 0


def test_refused_lines_of_others_are_kept(chains):
    chain = chains(left_out=(TABLET,))
    chain.send(f"{line('NEW')} x|")
    assert LAPTOP in chain.unparsed


# Names


def test_the_name_is_what_was_asked_before_the_flow(chain):
    chain.names.sites[LAPTOP, SITE] = "bank.example"
    chain.send(line("NEW"))
    chain.names.sites[LAPTOP, SITE] = "ads.example"
    (found,) = chain.send(line("DESTROY"))
    assert found["destination"]["domain"] == "bank.example"
    assert found["wrtflow"]["domain_source"] == "dns"
    assert chain.names.asked_at == [(LAPTOP, SITE, START)]


def test_an_answer_that_came_after_the_flow_is_not_asked_for(chain):
    chain.send(line("NEW"))
    chain.clock.passes(60 * SECOND)
    chain.clock.steps(DAY)
    chain.send(line("DESTROY"))
    # Without a NEW nobody knows when it began.
    chain.send(line("DESTROY", TABLET))
    assert chain.names.asked_at == [(LAPTOP, SITE, START), (TABLET, SITE, None)]


@pytest.mark.parametrize("via", ["ptr", "ptr_unconfirmed"])
def test_a_reverse_name_is_told_apart(chain, via):
    chain.send(line("NEW"))
    assert chain.names.wanted == [SITE]
    chain.names.reversed[SITE] = "update.example", via
    (found,) = chain.send(line("DESTROY"))
    assert found["destination"]["domain"] == "update.example"
    assert found["wrtflow"]["domain_source"] == via
    assert chain.counts[f"sites_{via}"] == 1


def test_without_a_name_there_is_none(chain):
    (found,) = chain.send(line("DESTROY"))
    assert "domain" not in found["destination"]
    assert found["wrtflow"]["domain_source"] == "none"


def test_who_comes_in_is_called_by_its_reverse_name(chain):
    chain.names.reversed[SITE] = "scanner.example", "ptr"
    chain.names.called[TABLET] = "server"
    (found,) = chain.send(line("DESTROY", **FORWARDED))
    assert found["network"]["direction"] == "inbound"
    assert (found["source"]["domain"], found["destination"]["domain"]) == ("scanner.example", "server")
    (found,) = chain.send(line("DESTROY", **HAIRPIN))
    assert (found["network"]["direction"], found["destination"]["domain"]) == ("internal", "server")


# First contact


@pytest.fixture
def world(chains, tmp_path):
    from test_places import write

    write(tmp_path, network="198.18.0.0/16")
    chain = chains()
    chain.names.macs[LAPTOP] = MAC
    return chain


def first(documents):
    return [document["wrtflow"].get("first_seen", False) for document in documents]


def test_a_first_contact_is_one_over_restart_and_reload(world):
    assert first(world.send(line("DESTROY"))) == [True]
    assert first(world.send(line("DESTROY", port=2))) == [False]
    world.restart()
    assert first(world.send(line("DESTROY", port=3))) == [False]
    world.reload(index_prefix="house")
    assert first(world.send(line("DESTROY", port=4))) == [False]
    assert world.counts["first_contacts"] == 2


def test_a_new_camera_on_an_old_tablet_s_address_is_first(world):
    world.names.macs[TABLET] = "02-00-00-00-00-21"
    assert first(world.send(line("DESTROY", TABLET))) == [True]
    world.names.macs[TABLET] = "02-00-00-00-00-99"
    assert first(world.send(line("DESTROY", TABLET, port=2))) == [True]
    # And the tablet is none at its new address.
    world.names.macs["10.77.0.50"] = "02-00-00-00-00-21"
    assert first(world.send(line("DESTROY", "10.77.0.50"))) == [False]


def test_who_comes_in_is_no_first_contact(world):
    assert first(world.send(line("DESTROY", **FORWARDED))) == [False]
    assert first(world.send(line("DESTROY", TABLET))) == [True]


def test_new_databases_are_used_with_a_reload(world, tmp_path):
    from test_places import write

    assert world.send(line("DESTROY"))[0]["destination"]["geo"]["country_iso_code"] == "CN"
    write(tmp_path, {"country": {"iso_code": "BR"}}, network="198.18.0.0/16")
    world.collector.stop()
    world.collector.start()
    assert world.send(line("DESTROY"))[0]["destination"]["geo"]["country_iso_code"] == "BR"


# Threads


def test_the_keeper_and_the_parsers_lose_and_double_nothing(chain):
    """Timeouts of one thread while the other one takes ends of the same flows."""
    going, faults, pause = threading.Event(), [], sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def keep():
        while not going.is_set():
            try:
                chain.keep()
            except Exception as error:
                faults.append(error)

    keeper = threading.Thread(target=keep)
    keeper.start()
    sent = 0
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            at = f"Nov {sent // 1440 % 30 + 1:2} {sent // 60 % 24:02}:{sent % 60:02}:00"
            for port in range(50):
                chain.send(line("NEW", port=port + 1, at=at))
            chain.clock.passes(8 * DAY)
            for port in range(0, 50, 2):
                chain.send(line("DESTROY", port=port + 1, at=at))
            chain.send(told(f"networks 2001:db8:{sent % 50}::/56"))
            chain.send(told(f"role {'ap' if sent % 2 else 'edge'}"))
            sent += 1
    finally:
        going.set()
        keeper.join()
        sys.setswitchinterval(pause)
    chain.keep()
    assert faults == []
    assert chain.counts["open"] == 0
    ends = [document for _, _, document in chain.outbox.put_ if document["event"]["action"] == "flow-end"]
    lost = [document for _, _, document in chain.outbox.put_ if document["event"]["action"] == "flow-timeout"]
    begun = [document for document in ends if "start" in document["event"]]
    assert len(ends) == 25 * sent
    # Each NEW is one document with a start.
    assert len(begun) + len(lost) == 50 * sent
    assert len(set(chain.identities)) == len(chain.outbox.put_)


def test_a_fault_does_not_end_the_keeper(chain, monkeypatch, capfd):
    monkeypatch.undo()
    monkeypatch.setattr(collector, "_SAVE", 0.001)
    done = threading.Event()

    def broken():
        if "fault of wrtflow's own" in capfd.readouterr().err:
            done.set()
        raise KeyError("x")

    chain.collector.names.refresh = broken
    chain.collector.stop()
    chain.collector.start()
    assert done.wait(30)


# Start, stop, reload


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The settings of this process."""
    path = tmp_path / "settings.json"
    monkeypatch.setenv("WRTFLOW_SETTINGS", str(path))
    monkeypatch.setattr(collector, "Names", fakes.Names)
    monkeypatch.setattr(collector, "Outbox", fakes.Outbox)
    monkeypatch.setattr(collector, "_collector", None)
    monkeypatch.setattr(collector, "_users", 0)
    write(path)
    yield path
    while collector._users:
        collector.stop()


def write(path, **changes):
    content = dataclasses.asdict(house.settings(path.parent)) | {"home_networks": ["10.77.0.0/24"]}
    path.write_text(json.dumps(content | changes))


def started():
    parts = [part() for part in fakes.PARTS]
    assert all(part.init({}) for part in parts)
    return parts


def stopped(parts):
    for part in parts:
        part.deinit()


def test_the_classes_of_the_configuration_are_one_chain(file):
    parse, parse_json, correlate, enrich, documents = parts = started()
    assert parse.parse(Message(line("NEW")))
    assert not correlate.parse(Message())
    assert parse.parse(Message(line("DESTROY")))
    assert correlate.parse(Message())
    assert not enrich.parse(Message())
    assert parse_json.parse(Message(json_line()))
    assert correlate.parse(Message())
    assert not enrich.parse(Message())
    assert not parse.parse(Message(b"\x00\xff\xfe"))
    assert not parse_json.parse(Message(b"\xff{"))
    found = [document for _, _, document in documents.collector.outbox.put_]
    assert ["start" in document["event"] for document in found] == [True, False]
    stopped(parts)
    # Twice does no harm.
    stopped(parts)
    assert "ufffd" in (file.parent / "unparsed.log").read_text()
    assert collector._users == 0


@pytest.mark.parametrize("changed", [False, True])
def test_a_reload_keeps_the_collector_unless_settings_have_changed(file, changed):
    parts = started()
    before = parts[0].collector
    assert parts[0].parse(Message(line("NEW")))
    parts[2].parse(Message())
    stopped(parts)
    write(file, **({"left_out": [TABLET]} if changed else {}))
    parts = started()
    after = parts[0].collector
    assert (after is not before) == changed
    assert after.report()["lines"] == after.report()["open"] == 1
    event = after.line(line("NEW", TABLET), fakes.SENDER)
    assert event is not None
    assert event.left_out == changed
    # The process ends and begins again.
    stopped(parts)
    collector._collector = None
    assert started()[0].collector.report()["open"] == 1


def test_what_follows_in_a_line_that_is_too_long_is_no_line_of_its_own(file):
    parse = started()[0]
    head = b"<13>Nov 24 03:13:47 OpenWrt luci: "
    for piece in (head + b"z" * (LINE - len(head)), b"z" * LINE, line("NEW").encode()):
        assert not parse.parse(Message(piece))
        # Another router's line is another line.
        assert parse.parse(Message(line("NEW"), "192.168.1.2"))
    assert parse.collector.counts["unparsed"] == 3
    assert parse.parse(Message(line("NEW")))


def test_the_role_has_syslog_ng_cut_lines_at_this_size():
    variables = Path(__file__).parents[2] / "roles/syslog_ng/vars/main.yml"
    assert yaml.safe_load(variables.read_text())["__syslog_ng_line_size"] == LINE


BROKEN = [{"flow_timeuot": 1}, {"left_out": ["laptop"]}, {"home_networks": ["x"]}, {"left_out": 5}]


@pytest.mark.parametrize("broken", [*BROKEN, None], ids=str)
def test_broken_settings_at_a_reload_keep_the_former_ones(file, capfd, broken):
    parts = started()
    before = parts[0].collector
    parts[0].parse(Message(line("NEW")))
    stopped(parts)
    if broken is None:
        file.write_text("{")
    else:
        write(file, **broken)
    parts = started()
    assert parts[0].collector is before
    assert parts[0].parse(Message(line("DESTROY")))
    assert "those of before stay" in capfd.readouterr().err
    stopped(parts)
    write(file, index_prefix="house")
    assert started()[0].collector.settings.index_prefix == "house"


def test_settings_that_only_a_part_finds_wrong_keep_the_former_ones_too(file, monkeypatch):
    parts = started()
    before = parts[0].collector
    stopped(parts)
    write(file, index_prefix="house")

    def refuse(_):
        raise ValueError("no")

    monkeypatch.setattr(collector, "LeftOut", refuse)
    assert started()[0].collector is before


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_broken_settings_at_the_start_are_said(file, capfd, broken):
    write(file, **broken)
    assert not parsers.Parse().init({})
    assert "settings can't be used" in capfd.readouterr().err
    assert collector._users == 0


def test_a_start_without_a_state_folder_goes_on_from_memory(chains, tmp_path, capfd):
    (tmp_path / "in the way").write_text("")
    chain = chains(state_directory=str(tmp_path / "in the way" / "state"))
    chain.send(line("NEW"))
    chain.keep()
    assert "start" in chain.send(line("DESTROY"))[0]["event"]
    assert "can't be written" in capfd.readouterr().err
    chain.collector.stop()


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_start_with_a_damaged_state_file_begins_anew(chain, content):
    chain.send(line("NEW"))
    chain.collector.stop()
    for rest in ("-wal", "-shm"):
        (chain.folder / f"state.sqlite{rest}").unlink(missing_ok=True)
    (chain.folder / "state.sqlite").write_bytes(content)
    chain.restart(kill=True)
    assert "start" not in chain.send(line("DESTROY"))[0]["event"]
    chain.send(line("NEW"))
    chain.restart()
    assert "start" in chain.send(line("DESTROY", port=57534, octets=(5, 5)))[0]["event"]


def test_strangers_are_what_syslog_ng_has_and_we_do_not(chain, monkeypatch):
    received = 3
    monkeypatch.setattr(health, "received", lambda: received)
    chain.send(line("NEW"))
    assert chain.collector._senders() == {"strangers": 2}
    # A line that is being read is no stranger's.
    received = 0
    assert chain.collector._senders() == {"strangers": 0}
    received = None
    assert chain.collector._senders() == {}
