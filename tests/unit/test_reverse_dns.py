"""wrtflow.reverse_dns, against servers that answer, are slow, lie, talk nonsense or are dead."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest
from naming import NOW, SetClock, state, until
from wrtflow import reverse_dns
from wrtflow.reverse_dns import PTR_TTL, SHORTEST, STALE, ReverseDns

Reply = Callable[[dns.message.Message], list[bytes]]


class Server:
    """A DNS server on loopback; `reply` makes the datagrams that a query is answered with."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[str] = []
        self.times: list[float] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1#{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                data, peer = self._socket.recvfrom(4096)
            except OSError:
                return
            if not data:
                return
            query = dns.message.from_wire(data)
            self.asked.append(str(query.question[0].name))
            self.times.append(time.monotonic())
            for answer in self.reply(query):
                self._socket.sendto(answer, peer)

    def close(self) -> None:
        host, port = self._socket.getsockname()
        self._socket.sendto(b"", (host, port))
        self._thread.join(5)
        self._socket.close()


def answer(query: dns.message.Message, *records: str, ttl: int = 3600) -> dns.message.Message:
    made = dns.message.make_response(query)
    made.flags |= dns.flags.RA
    if records:
        made.answer.append(dns.rrset.from_text(query.question[0].name, ttl, "IN", "PTR", *records))
    return made


def pointing(*records: str, ttl: int = 3600, forward: str | None = None) -> Reply:
    """Answer with these names; forward: the address that they have."""

    def reply(query: dns.message.Message) -> list[bytes]:
        if query.question[0].rdtype == dns.rdatatype.PTR:
            return [answer(query, *records, ttl=ttl).to_wire()]
        made = answer(query)
        if forward:
            kind = dns.rdatatype.to_text(query.question[0].rdtype)
            made.answer.append(dns.rrset.from_text(query.question[0].name, ttl, "IN", kind, forward))
        return [made.to_wire()]

    return reply


def refusing(rcode: dns.rcode.Rcode) -> Reply:
    def reply(query: dns.message.Message) -> list[bytes]:
        made = answer(query)
        made.set_rcode(rcode)
        return [made.to_wire()]

    return reply


def silent(_: dns.message.Message) -> list[bytes]:
    return []


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], Server]]:
    servers: list[Server] = []

    def start(reply: Reply) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ReverseDns]]:
    made: list[ReverseDns] = []

    def start(*servers: str, clock: SetClock | None = None, **constants: object) -> ReverseDns:
        for name, value in {"WORKERS": 1, "RATE": 10_000, "TIMEOUT": 2.0, **constants}.items():
            monkeypatch.setattr(reverse_dns, name, value)
        reverse = ReverseDns(state(), clock or SetClock(), servers)
        made.append(reverse)
        reverse.start()
        return reverse

    yield start
    for reverse in made:
        reverse.stop()


Serve = Callable[[Reply], Server]
Ask = Callable[..., ReverseDns]


def ptr(server: Server) -> int:
    return sum(name.endswith("arpa.") for name in server.asked)


def done(reverse: ReverseDns) -> bool:
    return not reverse.wanted


@pytest.mark.parametrize(
    ("ip", "question"),
    [
        ("198.18.3.80", "80.3.18.198.in-addr.arpa."),
        ("fd77::1", "1." + "0." * 27 + "7.7.d.f.ip6.arpa."),
    ],
)
def test_a_name_is_known_after_it_was_wanted(serve: Serve, ask: Ask, ip: str, question: str) -> None:
    server = serve(pointing("Edge-7.CDN.example."))
    reverse = ask(server.address)
    assert reverse.name(ip)[0] is None
    reverse.want(ip)
    until(lambda: reverse.name(ip)[0])
    assert reverse.name(ip)[0] == "edge-7.cdn.example"
    assert server.asked == [question, "edge-7.cdn.example."]
    assert [reverse.counts[f"ptr_{what}"] for what in ("asked", "found", "unconfirmed")] == [2, 1, 1]


def test_an_address_is_asked_for_once(serve: Serve, ask: Ask) -> None:
    go = threading.Event()
    server = serve(lambda query: [answer(query, "a.example.").to_wire()] if go.wait(5) else [])
    reverse = ask(server.address, WORKERS=2)
    for _ in range(5):
        reverse.want("198.18.3.80")
    until(lambda: server.asked)
    reverse.want("198.18.3.80")
    go.set()
    until(lambda: reverse.name("198.18.3.80")[0])
    until(lambda: done(reverse))
    reverse.want("198.18.3.80")
    assert done(reverse)
    assert ptr(server) == 1


def test_a_name_is_asked_for_again_after_its_ttl_within_the_bounds(serve: Serve, ask: Ask) -> None:
    clock = SetClock()
    for ttl, stands in ((0, SHORTEST), (3600, 3_600_000), (10**6, 7_200_000)):
        server = serve(pointing("a.example.", ttl=ttl))
        reverse = ask(server.address, PTR_TTL=7_200_000, clock=clock)
        reverse.want("198.18.0.1")
        until(lambda reverse=reverse: done(reverse))
        clock.time += stands - 1
        reverse.want("198.18.0.1")
        assert done(reverse)
        assert ptr(server) == 1
        clock.time += 2
        reverse.want("198.18.0.1")
        until(lambda server=server: ptr(server) == 2)


def test_an_old_name_is_told_until_there_is_another_answer(serve: Serve, ask: Ask) -> None:
    clock = SetClock()
    server = serve(pointing("a.example.", ttl=0))
    reverse = ask(server.address, clock=clock)

    def told_after(ms: int, reply: Reply) -> str | None:
        server.reply = reply
        clock.time += ms
        # As the keeper does each minute.
        reverse.refresh(clock.time)
        told, asked = reverse.name("198.18.0.1")[0], reverse.counts["ptr_asked"]
        reverse.want("198.18.0.1")
        until(lambda: reverse.counts["ptr_asked"] > asked and done(reverse))
        return told

    assert told_after(0, server.reply) is None
    assert told_after(SHORTEST + 1, refusing(dns.rcode.SERVFAIL)) == "a.example"
    assert told_after(120_001, refusing(dns.rcode.SERVFAIL)) == "a.example"
    assert told_after(120_001, pointing("b.example.", ttl=0)) == "a.example"
    assert told_after(SHORTEST + STALE + 1, server.reply) is None
    assert told_after(SHORTEST + 1, refusing(dns.rcode.NXDOMAIN)) == "b.example"
    assert reverse.name("198.18.0.1")[0] is None


@pytest.mark.parametrize(
    ("reply", "counted", "after"),
    [
        (refusing(dns.rcode.NXDOMAIN), "ptr_none", 3_600_000),
        (pointing(), "ptr_none", 3_600_000),
        (refusing(dns.rcode.SERVFAIL), "ptr_failed", 120_000),
        (refusing(dns.rcode.REFUSED), "ptr_failed", 120_000),
        (pointing("1.2.3.4."), "names_invalid", 3_600_000),
        (pointing(r"a\032b.example."), "names_invalid", 3_600_000),
        (pointing(r"b\195\188ro.example."), "names_invalid", 3_600_000),
        (pointing(r"x\010SRC=1.2.3.4.example."), "names_invalid", 3_600_000),
        (pointing("."), "names_invalid", 3_600_000),
    ],
)
def test_no_name_is_remembered_too(serve: Serve, ask: Ask, reply: Reply, counted: str, after: int) -> None:
    clock = SetClock()
    server = serve(reply)
    reverse = ask(server.address, clock=clock)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1")[0] is None
    assert reverse.counts[counted] == 1
    first = len(server.asked)
    clock.time += after - 1
    reverse.want("198.18.0.1")
    assert done(reverse)
    clock.time += 2
    reverse.want("198.18.0.1")
    until(lambda: len(server.asked) > first)


def test_of_several_names_it_is_always_the_same(serve: Serve, ask: Ask) -> None:
    for records in (("b.example.", "a.example.", "1.2.3.4."), ("a.example.", "1.2.3.4.", "b.example.")):
        reverse = ask(serve(pointing(*records)).address)
        reverse.want("198.18.0.1")
        until(lambda reverse=reverse: done(reverse))
        assert reverse.name("198.18.0.1")[0] == "a.example"


def test_a_delegated_zone_is_followed(serve: Serve, ask: Ask) -> None:
    def reply(query: dns.message.Message) -> list[bytes]:
        made = answer(query)
        made.answer.append(
            dns.rrset.from_text(query.question[0].name, 60, "IN", "CNAME", "1.0-25.0.18.198.in-addr.arpa.")
        )
        made.answer.append(
            dns.rrset.from_text("1.0-25.0.18.198.in-addr.arpa.", 60, "IN", "PTR", "a.example.")
        )
        return [made.to_wire()]

    reverse = ask(serve(reply).address)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1")[0] == "a.example"


def lying(query: dns.message.Message) -> list[bytes]:
    wrong_id = answer(query, "liar.example.")
    wrong_id.id = query.id ^ 1
    other = dns.message.make_query("2.0.18.198.in-addr.arpa.", "PTR", id=query.id)
    return [
        wrong_id.to_wire(),
        answer(other, "liar.example.").to_wire(),
        query.to_wire(),
        b"\x00",
        b"garbage" * 50,
        answer(query, "liar.example.").to_wire()[:40],
    ]


def test_lies_and_garbage_give_no_name(serve: Serve, ask: Ask) -> None:
    reverse = ask(serve(lying).address, TIMEOUT=0.5)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1")[0] is None
    assert reverse.counts["ptr_failed"] == 1


def test_the_truth_is_found_behind_lies(serve: Serve, ask: Ask) -> None:
    reverse = ask(serve(lambda query: [*lying(query), *pointing("a.example.")(query)]).address)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1")[0] == "a.example"


def test_a_dead_server_costs_its_time_out_and_the_next_one_is_asked(serve: Serve, ask: Ask) -> None:
    dead, alive = serve(silent), serve(pointing("a.example."))
    alone = ask(dead.address, TIMEOUT=0.4)
    alone.want("198.18.0.1")
    until(lambda: done(alone))
    assert (alone.counts["ptr_failed"], alone.name("198.18.0.1")[0]) == (1, None)
    both = ask(dead.address, alive.address, TIMEOUT=1.0)
    both.want("198.18.0.1")
    until(lambda: done(both))
    assert both.name("198.18.0.1")[0] == "a.example"


def test_nobody_at_the_port(ask: Ask) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reverse = ask(f"127.0.0.1#{port}", TIMEOUT=0.4)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.counts["ptr_failed"] == 1


def test_what_is_no_address_harms_nobody(serve: Serve, ask: Ask) -> None:
    reverse = ask(serve(pointing("a.example.")).address)
    for text in ("", "nowhere", "1.2.3", "\udce9", "x" * 1_000_000):
        reverse.want(text)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1")[0] == "a.example"
    assert reverse.counts["names_invalid"] == 5
    assert len(reverse.names) == 1


def test_look_ups_keep_to_the_rate(serve: Serve, ask: Ask) -> None:
    server = serve(pointing("a.example."))
    reverse = ask(server.address, RATE=20)
    for number in range(4):
        reverse.want(f"198.18.0.{number}")
    until(lambda: len(server.asked) == 8)
    assert server.times[-1] - server.times[0] >= 7 / 20 * 0.9


def test_memory_is_bounded(serve: Serve, ask: Ask) -> None:
    reverse = ask(serve(pointing("a.example.")).address, PTR_SIZE=10)
    for number in range(30):
        reverse.want(f"198.18.0.{number}")
    until(lambda: done(reverse))
    assert reverse.counts["ptr_found"] == 30
    assert len(reverse.names) == 10


def test_a_name_that_leads_back_is_confirmed_and_another_is_not(serve: Serve, ask: Ask) -> None:
    for ip, forward, confirmed in (
        ("198.18.0.1", "198.18.0.1", True),
        ("198.18.0.1", "198.18.0.2", False),
        ("198.18.0.1", None, False),
        ("fd77::1", "fd77:0::1", True),
        ("fd77::1", "fd77::2", False),
    ):
        reverse = ask(serve(pointing("update.example.", forward=forward)).address)
        reverse.want(ip)
        until(lambda reverse=reverse: done(reverse))
        assert reverse.name(ip) == ("update.example", confirmed)


def test_of_several_names_the_one_that_leads_back_is_told(serve: Serve, ask: Ask) -> None:
    def reply(query: dns.message.Message) -> list[bytes]:
        true = str(query.question[0].name) == "b.example."
        return pointing("a.example.", "b.example.", "c.example.", forward="198.18.0.1" if true else None)(
            query
        )

    reverse = ask(serve(reply).address)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1") == ("b.example", True)


def test_whether_a_name_leads_back_is_asked_again_soon_where_nobody_answered(serve: Serve, ask: Ask) -> None:
    def reply(query: dns.message.Message) -> list[bytes]:
        told = (
            pointing("a.example.")
            if query.question[0].rdtype == dns.rdatatype.PTR
            else refusing(dns.rcode.SERVFAIL)
        )
        return told(query)

    clock = SetClock()
    server = serve(reply)
    reverse = ask(server.address, clock=clock)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1") == ("a.example", False)
    server.reply = pointing("a.example.", forward="198.18.0.1")
    clock.time += 120_001
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1") == ("a.example", True)


def test_a_device_s_scan_waits_behind_nobody_and_the_queue_is_bounded(serve: Serve, ask: Ask) -> None:
    go = threading.Event()
    server = serve(lambda query: pointing("a.example.")(query) if go.wait(5) else [])
    reverse = ask(server.address, WAITING_OF_DEVICE=5, WAITING=8)
    reverse.want("198.18.0.1", "scanner")
    until(lambda: server.asked)
    for number in range(2, 50):
        reverse.want(f"198.18.0.{number}", "scanner")
    assert (reverse.waiting, reverse.counts["ptr_dropped"]) == (5, 43)
    for number in range(4):
        reverse.want(f"198.18.1.{number}", f"camera{number}")
    assert (reverse.waiting, reverse.counts["ptr_dropped"]) == (8, 44)
    go.set()
    until(lambda: done(reverse))
    asked = [name.removesuffix(".18.198.in-addr.arpa.") for name in server.asked if name.endswith("arpa.")]
    # Each device in turn.
    assert asked == ["1.0", "2.0", "0.1", "1.1", "2.1", "3.0", "4.0", "5.0", "6.0"]
    # What was dropped is asked for when it is wanted again.
    reverse.want("198.18.0.49", "scanner")
    until(lambda: reverse.name("198.18.0.49")[0])


def test_what_was_wanted_lately_is_kept(serve: Serve, ask: Ask) -> None:
    reverse = ask(serve(pointing("a.example.")).address, PTR_SIZE=3)
    for number in (1, 2, 3):
        reverse.want(f"198.18.0.{number}")
        until(lambda: done(reverse))
    reverse.want("198.18.0.1")
    reverse.want("198.18.0.4")
    until(lambda: done(reverse))
    assert list(reverse.names) == ["198.18.0.3", "198.18.0.1", "198.18.0.4"]


def test_stop_waits_for_nobody_and_it_starts_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverse_dns, "TIMEOUT", 2.0)
    server = serve(silent)
    reverse = ReverseDns(state(), SetClock(), [server.address])
    reverse.start()
    threads = list(reverse._threads)
    assert all(thread.daemon for thread in threads)
    for number in range(50):
        reverse.want(f"198.18.0.{number}")
    until(lambda: len(server.asked) >= 3)
    began = time.monotonic()
    reverse.stop()
    assert time.monotonic() - began < 0.5
    server.reply = pointing("a.example.")
    reverse.start()
    reverse.want("198.18.0.200")
    until(lambda: reverse.name("198.18.0.200")[0])
    reverse.stop()
    until(lambda: not any(thread.is_alive() for thread in threads))


def test_names_come_back_and_those_of_a_clock_in_the_future_are_asked_for_again(
    serve: Serve, tmp_path
) -> None:
    before = state(tmp_path)
    reverse = ReverseDns(before, SetClock())
    before.open()
    day = NOW + PTR_TTL
    for ip, row in {
        "198.18.0.1": ("a.example", True, day),
        "198.18.0.2": ("b.example", False, day * 2),
        "198.18.0.3": (None, False, day),
        "198.18.0.4": ("d.example", True, NOW - STALE - 1),
        "198.18.0.5": (7,),
        "nowhere": ("a.example", True, day),
    }.items():
        reverse.names.table.put(ip, row)
    before.save()
    before.close()
    after = state(tmp_path)
    server = serve(pointing("new.example."))
    reverse = ReverseDns(after, SetClock(), [server.address])
    after.open()
    reverse.load(NOW)
    after.close()
    assert list(reverse.names) == ["198.18.0.1", "198.18.0.2", "198.18.0.3"]
    assert reverse.name("198.18.0.1") == ("a.example", True)
    assert reverse.name("198.18.0.2") == ("b.example", False)
    reverse.start()
    for number in (1, 2, 3):
        reverse.want(f"198.18.0.{number}")
    until(lambda: done(reverse))
    reverse.stop()
    assert [reverse.name(f"198.18.0.{number}")[0] for number in (1, 2, 3)] == [
        "a.example",
        "new.example",
        "new.example",
    ]


def test_the_collector_s_resolvers_are_read_again_when_they_change(ask: Ask, tmp_path, monkeypatch) -> None:
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr(reverse_dns, "RESOLV_CONF", str(file))
    reverse = ask()
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.counts["ptr_failed"] == 1
    file.write_text("nameserver 198.18.0.53\n")
    first = reverse._resolver()
    assert first.nameservers == ["198.18.0.53"]
    file.write_text("nameserver 198.18.0.54\n")
    os.utime(file, (1, 1))
    assert reverse._resolver().nameservers == ["198.18.0.54"]
