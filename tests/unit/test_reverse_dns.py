"""wrtflow.reverse_dns, against servers that answer, are slow, lie, talk nonsense or are dead."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from wrtflow import reverse_dns
from wrtflow.reverse_dns import SHORTEST, STALE, ReverseDns
from wrtflow.settings import SettingsError

NOW = 1_700_000_000.0
Reply = Callable[[dns.message.Message], list[bytes]]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


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


def pointing(*records: str, ttl: int = 3600) -> Reply:
    return lambda query: [answer(query, *records, ttl=ttl).to_wire()]


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
def ask() -> Iterator[Callable[..., ReverseDns]]:
    made: list[ReverseDns] = []

    def start(*servers: str, **options: object) -> ReverseDns:
        given = {"workers": 1, "rate": 10_000, "timeout": 2.0, "clock": Clock(), **options}
        reverse = ReverseDns(resolvers=servers, **given)
        made.append(reverse)
        reverse.start()
        return reverse

    yield start
    for reverse in made:
        reverse.stop()


Serve = Callable[[Reply], Server]
Ask = Callable[..., ReverseDns]


def done(reverse: ReverseDns) -> bool:
    return not reverse._wanted


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
    assert reverse.name(ip) is None
    reverse.want(ip)
    until(lambda: reverse.name(ip))
    assert reverse.name(ip) == "edge-7.cdn.example"
    assert server.asked == [question]
    assert (reverse.asked, reverse.found) == (1, 1)


def test_an_address_is_asked_for_once(serve: Serve, ask: Ask) -> None:
    go = threading.Event()
    server = serve(lambda query: [answer(query, "a.example.").to_wire()] if go.wait(5) else [])
    reverse = ask(server.address, workers=2)
    for _ in range(5):
        reverse.want("198.18.3.80")
    until(lambda: server.asked)
    reverse.want("198.18.3.80")
    go.set()
    until(lambda: reverse.name("198.18.3.80"))
    until(lambda: done(reverse))
    reverse.want("198.18.3.80")
    assert done(reverse)
    assert len(server.asked) == 1


def test_nobody_waits_for_a_slow_server_and_the_queue_is_bounded(serve: Serve, ask: Ask) -> None:
    go = threading.Event()
    server = serve(lambda query: [answer(query, "a.example.").to_wire()] if go.wait(5) else [])
    reverse = ask(server.address, waiting=3)
    reverse.want("198.18.0.1")
    until(lambda: server.asked)
    # The one thread waits for the server; these return all the same.
    for number in range(2, 12):
        reverse.want(f"198.18.0.{number}")
        assert reverse.name(f"198.18.0.{number}") is None
    assert (reverse.waiting, reverse.dropped) == (3, 7)
    go.set()
    until(lambda: done(reverse))
    assert reverse.found == 4
    # What was dropped is asked for when it is wanted again.
    reverse.want("198.18.0.11")
    until(lambda: reverse.name("198.18.0.11"))


def test_a_name_is_asked_for_again_after_its_ttl_within_the_bounds(serve: Serve, ask: Ask) -> None:
    clock = Clock()
    for ttl, stands in ((0, SHORTEST), (3600, 3600), (10**6, 7200)):
        server = serve(pointing("a.example.", ttl=ttl))
        reverse = ask(server.address, ttl=7200, clock=clock)
        reverse.want("198.18.0.1")
        until(lambda reverse=reverse: done(reverse))
        clock.now += stands - 1
        reverse.want("198.18.0.1")
        assert done(reverse)
        assert len(server.asked) == 1
        clock.now += 2
        reverse.want("198.18.0.1")
        until(lambda server=server: len(server.asked) == 2)


def test_an_old_name_is_told_until_there_is_another_answer(serve: Serve, ask: Ask) -> None:
    clock = Clock()
    server = serve(pointing("a.example.", ttl=0))
    reverse = ask(server.address, retry=120, clock=clock)

    def told_after(seconds: float, reply: Reply) -> str | None:
        server.reply = reply
        clock.now += seconds
        told, asked = reverse.name("198.18.0.1"), reverse.asked
        reverse.want("198.18.0.1")
        until(lambda: reverse.asked > asked and done(reverse))
        return told

    assert told_after(0, server.reply) is None
    assert told_after(SHORTEST + 1, refusing(dns.rcode.SERVFAIL)) == "a.example"
    assert told_after(121, refusing(dns.rcode.SERVFAIL)) == "a.example"
    assert told_after(121, pointing("b.example.", ttl=0)) == "a.example"
    assert told_after(SHORTEST + STALE + 1, server.reply) is None
    assert told_after(SHORTEST + 1, refusing(dns.rcode.NXDOMAIN)) == "b.example"
    assert reverse.name("198.18.0.1") is None


@pytest.mark.parametrize(
    ("reply", "counted", "after"),
    [
        (refusing(dns.rcode.NXDOMAIN), "none", 3600),
        (pointing(), "none", 3600),
        (refusing(dns.rcode.SERVFAIL), "failed", 120),
        (refusing(dns.rcode.REFUSED), "failed", 120),
        (pointing("1.2.3.4."), "invalid", 3600),
        (pointing(r"a\032b.example."), "invalid", 3600),
        (pointing(r"b\195\188ro.example."), "invalid", 3600),
        (pointing(r"x\010SRC=1.2.3.4.example."), "invalid", 3600),
        (pointing("."), "invalid", 3600),
    ],
)
def test_no_name_is_remembered_too(serve: Serve, ask: Ask, reply: Reply, counted: str, after: int) -> None:
    clock = Clock()
    server = serve(reply)
    reverse = ask(server.address, negative_ttl=3600, retry=120, clock=clock)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1") is None
    assert getattr(reverse, counted) == 1
    first = len(server.asked)
    clock.now += after - 1
    reverse.want("198.18.0.1")
    assert done(reverse)
    clock.now += 2
    reverse.want("198.18.0.1")
    until(lambda: len(server.asked) > first)


def test_of_several_names_it_is_always_the_same(serve: Serve, ask: Ask) -> None:
    for records in (("b.example.", "a.example.", "1.2.3.4."), ("a.example.", "1.2.3.4.", "b.example.")):
        reverse = ask(serve(pointing(*records)).address)
        reverse.want("198.18.0.1")
        until(lambda reverse=reverse: done(reverse))
        assert reverse.name("198.18.0.1") == "a.example"


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
    assert reverse.name("198.18.0.1") == "a.example"


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
    reverse = ask(serve(lying).address, timeout=0.5)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1") is None
    assert reverse.failed == 1


def test_the_truth_is_found_behind_lies(serve: Serve, ask: Ask) -> None:
    reverse = ask(serve(lambda query: [*lying(query), *pointing("a.example.")(query)]).address)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1") == "a.example"


def test_a_dead_server_costs_its_time_out_and_the_next_one_is_asked(serve: Serve, ask: Ask) -> None:
    dead, alive = serve(silent), serve(pointing("a.example."))
    alone = ask(dead.address, timeout=0.4)
    alone.want("198.18.0.1")
    until(lambda: done(alone))
    assert (alone.failed, alone.name("198.18.0.1")) == (1, None)
    both = ask(dead.address, alive.address, timeout=1.0)
    both.want("198.18.0.1")
    until(lambda: done(both))
    assert both.name("198.18.0.1") == "a.example"


def test_nobody_at_the_port(ask: Ask) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reverse = ask(f"127.0.0.1#{port}", timeout=0.4)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.failed == 1


def test_what_is_no_address_harms_nobody(serve: Serve, ask: Ask) -> None:
    reverse = ask(serve(pointing("a.example.")).address)
    for text in ("", "nowhere", "1.2.3", "\udce9", "x" * 1_000_000):
        reverse.want(text)
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert reverse.name("198.18.0.1") == "a.example"
    assert reverse.invalid == 5
    assert len(reverse.names) == 1


def test_look_ups_keep_to_the_rate(serve: Serve, ask: Ask) -> None:
    server = serve(pointing("a.example."))
    reverse = ask(server.address, rate=20)
    for number in range(4):
        reverse.want(f"198.18.0.{number}")
    until(lambda: len(server.asked) == 4)
    assert server.times[-1] - server.times[0] >= 3 / 20 * 0.9


def test_stop_waits_for_nobody_and_the_threads_end(serve: Serve) -> None:
    server = serve(silent)
    reverse = ReverseDns(resolvers=[server.address], workers=3, rate=1, timeout=3.0, waiting=2)
    reverse.start()
    threads = list(reverse._threads)
    assert all(thread.daemon for thread in threads)
    for number in range(50):
        reverse.want(f"198.18.0.{number}")
    until(lambda: len(server.asked) >= 3)
    began = time.monotonic()
    reverse.stop()
    assert time.monotonic() - began < 2.0
    assert reverse.waiting == 1
    # Nobody asks now: it isn't remembered as asked for.
    reverse.want("198.18.0.200")
    assert reverse.waiting == 1
    # Once more from the start, while the last threads of before are still waiting.
    server.reply = pointing("a.example.")
    reverse.start()
    reverse.want("198.18.0.200")
    until(lambda: reverse.name("198.18.0.200"))
    reverse.stop()
    until(lambda: not any(thread.is_alive() for thread in threads))
    assert len(server.asked) <= 10


def test_memory_is_bounded(serve: Serve, ask: Ask) -> None:
    reverse = ask(serve(pointing("a.example.")).address, size=10, waiting=100)
    for number in range(30):
        reverse.want(f"198.18.0.{number}")
    until(lambda: done(reverse))
    assert reverse.asked == 30
    assert len(reverse.names) == 10


def test_the_collector_s_resolvers_are_read_again_when_they_change(tmp_path) -> None:
    file = tmp_path / "resolv.conf"
    source = reverse_dns._Resolver([], str(file), 2.0)
    with pytest.raises(dns.resolver.NoResolverConfiguration):
        source.get()
    file.write_text("nameserver 198.18.0.53\n")
    first = source.get()
    assert first.nameservers == ["198.18.0.53"]
    assert source.get() is first
    assert (first.lifetime, first.timeout) == (2.0, 1.0)
    file.write_text("nameserver 198.18.0.54\n")
    os.utime(file, (1, 1))
    assert source.get().nameservers == ["198.18.0.54"]


def test_without_a_resolver_there_are_no_names(ask: Ask, tmp_path) -> None:
    reverse = ask(resolv_conf=str(tmp_path / "none"))
    reverse.want("198.18.0.1")
    until(lambda: done(reverse))
    assert (reverse.failed, reverse.name("198.18.0.1")) == (1, None)


@pytest.mark.parametrize("text", ["dns.example", "1.2.3.4#x", "1.2.3.4#70000", "1.2.3.4#0", ""])
def test_a_mistake_in_the_settings_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match=f"'{text}'"):
        ReverseDns(resolvers=[text])
