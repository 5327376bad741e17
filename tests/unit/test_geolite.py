"""wrtflow-geolite: whatever the source, the network, the disk or the power do, the database in use is a whole one."""

import contextlib
import errno
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import mmdb_writer
import pytest
import wrtflow_geolite as geolite
from maxmind import maxmind
from netaddr import IPSet
from wrtflow import places
from wrtflow_geolite import Settings, Source, UpdateError, update

DAY = 86400
NOW = int(time.time())
CITY = {
    "country": {"iso_code": "DE", "names": {"en": "Germany"}},
    "location": {"latitude": 50.1, "longitude": 8.7},
}
ASN = {"autonomous_system_number": 64501, "autonomous_system_organization": "Photoprint GmbH"}
NETWORK = "198.18.1.0/24"


def database(
    path: Path, record: dict | None = None, age: float = 1, kind: str | None = None, network: str = NETWORK
) -> bytes:
    """Write a database that was built age days ago, and return it."""
    name = path.name.removesuffix(".mmdb") if kind is None else f"GeoLite2-{kind}"
    writer = mmdb_writer.MMDBWriter(
        ip_version=6, ipv4_compatible=True, database_type=name, languages=["en"], description="test"
    )
    writer.insert_network(IPSet([network]), record or (ASN if name.endswith("ASN") else CITY))
    with mock.patch.object(mmdb_writer.time, "time", return_value=NOW - age * DAY):
        writer.to_db_file(str(path))
    return path.read_bytes()


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A collector's folder with databases of ten days ago in it, opened by the collector."""
    folder = tmp_path / "GeoIP"
    folder.mkdir()
    known = {}
    for kind in ("City", "ASN"):
        content = database(folder / f"GeoLite2-{kind}.mmdb", age=10)
        known[kind] = {"source": "earlier", "installed": hashlib.sha256(content).hexdigest()}
    (folder / ".wrtflow-geolite.json").write_text(json.dumps(known))
    return folder


@pytest.fixture
def offer(tmp_path: Path) -> Path:
    """What sources have: databases of yesterday."""
    folder = tmp_path / "offer"
    folder.mkdir()
    database(folder / "GeoLite2-City.mmdb")
    database(folder / "GeoLite2-ASN.mmdb")
    return folder


@pytest.fixture(scope="session")
def real() -> dict[str, Callable]:
    """The real functions that the other fixture replaces."""
    return {name: getattr(geolite, name) for name in ("_collector", "_opened", "reload_collector")}


@pytest.fixture(autouse=True)
def reloads(monkeypatch, real) -> list[list[str]]:
    """What the collector was told to open; it does."""
    told: list[list[str]] = []
    monkeypatch.setattr(geolite, "_collector", lambda: 77)
    monkeypatch.setattr(
        geolite, "_opened", lambda _, database: {os.stat(database).st_ino} if database.exists() else set()
    )
    monkeypatch.setattr(
        geolite, "reload_collector", lambda _, paths: told.append([path.name for path in paths])
    )
    monkeypatch.setattr(geolite, "_control", lambda *_: (True, ""))
    monkeypatch.setattr(geolite, "SAMPLE", 100)
    return told


@pytest.fixture
def server(offer: Path) -> Iterator[maxmind.Maxmind]:
    for kind in ("City", "ASN"):
        maxmind.pack(offer / f"GeoLite2-{kind}.mmdb", offer)
    served = maxmind.Maxmind(offer, storage=("127.0.0.2", 0))
    yield served
    served.close()


def of_files(house: Path, offer: Path, kinds: tuple[str, ...] = ("City",), suffix: str = "") -> Settings:
    return Settings(house, {kind: Source(f"{offer}/GeoLite2-{kind}.mmdb{suffix}") for kind in kinds})


def of_maxmind(house: Path, server: maxmind.Maxmind, key: str = maxmind.KEY) -> Settings:
    sources = {kind: Source(server.url.format(kind=kind), maxmind=True) for kind in ("City", "ASN")}
    return Settings(house, sources, maxmind.ACCOUNT, key, timeout=5)


def state(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, byte by byte."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@contextlib.contextmanager
def refused(folder: Path, reason: str) -> Iterator[None]:
    """The block ends with this reason, in one sentence, and the folder is as before, byte by byte."""
    before = state(folder)
    with pytest.raises(UpdateError) as raised:
        yield
    sentence = str(raised.value)
    assert reason in sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert state(folder) == before
    assert list(folder.glob(".update-*")) == []


# --- sources ---


@pytest.mark.parametrize("form", [".mmdb", ".gz", ".tar.gz"])
@pytest.mark.parametrize("by", ["file", "url"])
def test_every_form_from_every_place(house, offer, server, by, form):
    new = (offer / "GeoLite2-City.mmdb").read_bytes()
    name = {".mmdb": "GeoLite2-City.mmdb", ".gz": "city.gz", ".tar.gz": "GeoLite2-City.tar.gz"}[form]
    if form == ".gz":
        (offer / name).write_bytes(gzip.compress(new))
    place = f"{offer}/{name}" if by == "file" else mirror(server, name)
    (result,) = update(Settings(house, {"City": Source(place)}))
    assert result.changed
    assert (house / "GeoLite2-City.mmdb").read_bytes() == new


def mirror(server: maxmind.Maxmind, name: str) -> str:
    """An address of the storage, which any mirror could be."""
    host, port = server.storage.server_address[:2]
    return f"http://{host!s}:{port}{server.signed(f'/{name}', NOW + 300)}"


def test_maxmind_s_way_to_a_new_database(house, server, reloads):
    city, asn = update(of_maxmind(house, server))
    assert city.changed
    assert asn.changed
    assert city.old == NOW - 10 * DAY
    assert city.new == NOW - DAY
    # The storage would refuse the licence key (400), and every address was signed.
    assert [request["status"] for request in server.requests] == [302, 200] * 4
    assert reloads == [["GeoLite2-City.mmdb", "GeoLite2-ASN.mmdb"]]


def test_an_unchanged_file_costs_nothing(house, server, reloads):
    update(of_maxmind(house, server))
    before = state(house)
    server.requests.clear()
    results = update(of_maxmind(house, server))
    assert [result.changed for result in results] == [False, False]
    assert asked(server) == [("HEAD", 302, 0), ("HEAD", 304, 0)] * 2
    assert state(house) == before
    assert len(reloads) == 1


def asked(server: maxmind.Maxmind) -> list[tuple]:
    return [(request["method"], request["status"], request["bytes"]) for request in server.requests]


def test_an_unchanged_file_costs_nothing_where_conditions_are_ignored(house, server):
    """MaxMind promises Last-Modified, not that its storage knows If-Modified-Since."""
    update(of_maxmind(house, server))
    server.requests.clear()
    server.behaviour = {"unconditional": True}
    assert not any(result.changed for result in update(of_maxmind(house, server)))
    assert asked(server) == [("HEAD", 302, 0), ("HEAD", 200, 0)] * 2


def test_looking_for_a_new_database_is_not_a_download(house, server):
    """However often the playbook runs on a day: MaxMind counts only downloads."""
    update(of_maxmind(house, server))
    server.behaviour = {"limit": 0}
    assert not any(result.changed for result in update(of_maxmind(house, server)))


def test_a_new_release_is_fetched_after_the_question(house, offer, server):
    update(of_maxmind(house, server))
    server.requests.clear()
    database(offer / "GeoLite2-City.mmdb", age=0)
    later = time.time() + 60
    os.utime(maxmind.pack(offer / "GeoLite2-City.mmdb", offer), (later, later))
    city, asn = update(of_maxmind(house, server))
    assert (city.changed, asn.changed) == (True, False)
    assert [(method, status) for method, status, _ in asked(server)] == [
        *(("HEAD", 302), ("HEAD", 200)), *(("GET", 302), ("GET", 200)) * 2, *(("HEAD", 302), ("HEAD", 304)),
    ]  # fmt: skip


def test_a_mirror_is_asked_by_condition(house, server):
    """HEAD is not for every server, but If-Modified-Since is."""
    settings = Settings(house, {"City": Source(mirror(server, "GeoLite2-City.tar.gz"))})
    update(settings)
    server.requests.clear()
    update(settings)
    assert asked(server) == [("GET", 304, 0)]


def test_an_unchanged_local_file_is_not_taken_again(house, offer, reloads):
    update(of_files(house, offer))
    before = state(house)
    with mock.patch.object(geolite, "_write", side_effect=AssertionError("it was copied")):
        (result,) = update(of_files(house, offer))
    assert not result.changed
    assert state(house) == before
    assert len(reloads) == 1


def test_another_source_is_fetched_though_the_date_is_the_same(house, offer, server):
    update(of_maxmind(house, server))
    server.requests.clear()
    update(Settings(house, {"City": Source(mirror(server, "GeoLite2-City.tar.gz"))}))
    assert [request["status"] for request in server.requests] == [200]


def test_a_database_that_somebody_changed_is_fetched_anew(house, server, reloads):
    update(of_maxmind(house, server))
    (house / "GeoLite2-City.mmdb").write_bytes(b"scribbled over")
    city, asn = update(of_maxmind(house, server))
    assert (city.changed, asn.changed) == (True, False)
    assert reloads[-1] == ["GeoLite2-City.mmdb"]
    assert geolite.build_time(house / "GeoLite2-City.mmdb") == NOW - DAY


def test_the_licence_key_is_shown_nowhere(house, server, capsys, tmp_path):
    settings = of_maxmind(house, server, key="topsecret")
    assert "topsecret" not in repr(settings)
    with refused(house, "401"):
        update(settings)
    assert "topsecret" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"limit": 0}, "enough downloads for today (429)"),
        ({"cut": 100}, "broke off after 100 of"),
        ({"checksum": "0" * 64}, "does not have MaxMind's checksum"),
        ({"fail": 503}, "127.0.0.2 answered 503 for GeoLite2 City."),
        ({"fail": 403}, "127.0.0.2 answered 403 for GeoLite2 City."),
    ],
    ids=lambda value: "-".join(map(str, *value.items()))[:20] if isinstance(value, dict) else "",
)
def test_maxmind_s_troubles(house, server, behaviour, reason):
    server.behaviour = behaviour
    with refused(house, reason):
        update(of_maxmind(house, server))


def test_a_wrong_key_says_where_to_mend_it(house, server):
    with refused(house, "check geolite_account_id and geolite_license_key"):
        update(of_maxmind(house, server, key="wrong"))


def test_the_second_database_failing_leaves_the_first(house, offer, server):
    """Both are validated before one is placed."""
    (offer / "GeoLite2-ASN.tar.gz").unlink()
    with refused(house, "127.0.0.1 has no GeoLite2 ASN (404): is geolite_asn_source right?"):
        update(of_maxmind(house, server))


def test_a_dead_server(house, server):
    settings = of_maxmind(house, server)
    server.close()
    with refused(house, "can't be fetched from 127.0.0.1 (Connection refused)"):
        update(settings)


def test_a_dead_storage_is_named(house, server):
    """A firewall that knows MaxMind's address may not know where it sends to."""
    server.storage.shutdown()
    server.storage.server_close()
    with refused(house, "can't be fetched from 127.0.0.2 (Connection refused)"):
        update(of_maxmind(house, server))


def test_a_server_that_falls_silent(house, server):
    def fall_silent(handler: maxmind.Handler) -> None:
        handler.rfile.read(1)

    with mock.patch.object(maxmind.Download, "do_GET", fall_silent), refused(house, "timed out"):
        settings = of_maxmind(house, server)
        settings.timeout = 0.2
        update(settings)


@pytest.mark.parametrize(
    "answer",
    [
        b"what?\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://elsewhere/\r\n\r\n",
    ],
    ids=["no HTTP", "nothing", "half a chunk", "a length that is none", "to another protocol"],
)
def test_a_server_that_talks_nonsense(house, server, answer):
    def babble(handler: maxmind.Handler) -> None:
        handler.wfile.write(answer)
        handler.close_connection = True

    with mock.patch.object(maxmind.Download, "do_GET", babble), refused(house, "GeoLite2 City can"):
        update(of_maxmind(house, server))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A certificate of its own authority for 127.0.0.1, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=maxmind"
        " -addext subjectAltName=IP:127.0.0.1 -addext keyUsage=critical,keyCertSign,digitalSignature"
        f" -keyout {path}.key -out {path} && cat {path}.key >>{path}",
        shell=True, check=True, capture_output=True,
    )  # fmt: skip
    return path


@pytest.fixture
def secure(offer: Path, server, certificate: Path) -> Iterator[maxmind.Maxmind]:
    served = maxmind.Maxmind(offer, certificate=str(certificate))
    yield served
    served.close()


def test_a_certificate_that_nobody_vouches_for(house, secure):
    with refused(house, "its certificate is not trusted"):
        update(of_maxmind(house, secure))
    assert secure.requests == []


def test_a_certificate_that_is_trusted(house, secure, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert update(of_maxmind(house, secure))[0].changed


def test_nobody_is_led_out_of_tls(house, secure, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    secure.scheme = "http"
    settings = of_maxmind(house, secure)
    for source in settings.sources.values():
        source.location = source.location.replace("http:", "https:")
    with refused(house, "which is not encrypted"):
        update(settings)


def test_a_file_that_is_not_there(house, tmp_path):
    with refused(house, "is geolite_city_source right?"):
        update(of_files(house, tmp_path))


# --- archives ---


def test_an_archive_s_names_lead_nowhere(house, offer, tmp_path):
    content = (offer / "GeoLite2-City.mmdb").read_bytes()
    with tarfile.open(offer / "GeoLite2-City.mmdb.tar.gz", "w:gz") as tar:
        for name, kind in (
            ("dir/GeoLite2-City.mmdb", tarfile.DIRTYPE),
            ("../../GeoLite2-City.mmdb", tarfile.REGTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size = kind, 0o4777, len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(content))
    update(of_files(house, offer, suffix=".tar.gz"))
    assert (house / "GeoLite2-City.mmdb").stat().st_mode & 0o7777 == 0o644
    assert not (tmp_path / "GeoLite2-City.mmdb").exists()


def test_an_archive_without_a_database(house, offer):
    with tarfile.open(offer / "GeoLite2-City.mmdb.tar.gz", "w:gz") as tar:
        tar.add(offer / "GeoLite2-ASN.mmdb", "GeoLite2-ASN.mmdb")
    with refused(house, "holds no City.mmdb"):
        update(of_files(house, offer, suffix=".tar.gz"))


@pytest.mark.parametrize("form", [".gz", ".tar.gz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:100] + b"\xff\x00\xff" + whole[103:],
        lambda whole: whole[:-8] + b"sums" + whole[-4:],
    ],
    ids=["cut", "broken", "of another checksum"],
)
def test_a_damaged_archive(house, offer, form, damage):
    content = (offer / "GeoLite2-City.mmdb").read_bytes()
    packed = io.BytesIO()
    if form == ".gz":
        packed.write(gzip.compress(content))
    else:
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            # What comes behind the database is not needed, but has to be whole.
            for name, inside in (("GeoLite2-City.mmdb", content), ("LICENSE.txt", random.randbytes(100_000))):
                entry = tarfile.TarInfo(name)
                entry.size = len(inside)
                tar.addfile(entry, io.BytesIO(inside))
    (offer / "GeoLite2-City.mmdb.gz").write_bytes(damage(packed.getvalue()))
    with refused(house, "is no whole archive"):
        update(of_files(house, offer, suffix=".gz"))


# --- what a database must be ---


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(b"<html>Not found</html>" * 100), "is damaged"),
        (lambda path: path.write_bytes(database(path)[:-40]), "is damaged"),
        (lambda path: database(path, ASN, kind="ASN"), "is a database of type GeoLite2-ASN"),
        (lambda path: database(path, {"country": {"iso_code": 49}}), "country.iso_code that is no str"),
        (
            lambda path: database(path, {**CITY, "location": {"latitude": "50"}}),
            "location.latitude that is no float at 198.18.1.0",
        ),
        (lambda path: database(path, {"city": {"names": {"en": "X"}}}), "has no country.iso_code"),
        (lambda path: database(path, age=11), "is older than the present one"),
        (lambda path: database(path, age=-2), "was built in the future"),
    ],
    ids=[
        "empty", "a page of HTML", "truncated", "of another type", "a field of another type", "a place of another type",
        "without countries", "older", "of the future",
    ],
)  # fmt: skip
def test_what_is_no_new_city_database(house, offer, make, reason, reloads):
    make(offer / "GeoLite2-City.mmdb")
    with refused(house, reason):
        update(of_files(house, offer))
    assert reloads == []


def test_much_smaller_than_the_present_one(house, offer):
    settings = of_files(house, offer)
    settings.minimum_share = 1.01
    with refused(house, "of the present one's size"):
        update(settings)


@pytest.mark.parametrize("reason", ["older", "smaller"])
def test_forced(house, offer, reason):
    new = database(offer / "GeoLite2-City.mmdb", age=11 if reason == "older" else 1)
    settings = of_files(house, offer)
    settings.minimum_share = 1.01 if reason == "smaller" else 0.5
    assert update(settings, force=True)[0].changed
    assert (house / "GeoLite2-City.mmdb").read_bytes() == new


def test_known_addresses(house, offer):
    settings = of_files(house, offer, ("City", "ASN"))
    settings.known = {"City": {"198.18.1.80": "DE"}, "ASN": {"198.18.1.80": "64502"}}
    with refused(house, "says 64501 of 198.18.1.80, not 64502"):
        update(settings)
    settings.known["ASN"] = {"198.18.9.9": "64502"}
    with refused(house, "says None of 198.18.9.9"):
        update(settings)
    settings.known["ASN"] = {"198.18.1.80": "64501"}
    assert all(result.changed for result in update(settings))


def test_a_fault_far_behind_the_first_records_is_seen(house, offer):
    writer = mmdb_writer.MMDBWriter(
        ip_version=6,
        ipv4_compatible=True,
        database_type="GeoLite2-City",
        languages=["en"],
        description="test",
    )
    for number in range(250):
        writer.insert_network(IPSet([f"9.{number}.0.0/16"]), CITY)
    writer.insert_network(IPSet(["128.0.0.0/2"]), {"country": {"iso_code": 1}})
    writer.to_db_file(str(offer / "GeoLite2-City.mmdb"))
    with refused(house, "country.iso_code that is no str at 1"):
        update(of_files(house, offer))


def test_broken_bytes_are_damage_or_harmless(tmp_path):
    """Whatever the decoder makes of them, it is no accident of the program."""
    whole = database(tmp_path / "GeoLite2-City.mmdb")
    dice = random.Random(7)
    seen = set()
    with mock.patch.object(geolite, "SAMPLE", 50):
        for _ in range(300):
            broken = bytearray(whole)
            for _ in range(dice.randint(1, 40)):
                broken[dice.randrange(len(broken))] = dice.randrange(256)
            (tmp_path / "broken").write_bytes(broken)
            try:
                geolite.validate("City", tmp_path / "broken", {})
                seen.add("harmless")
            except UpdateError:
                seen.add("refused")
    assert seen == {"harmless", "refused"}


def test_a_database_that_crashes_its_reader_is_damaged(house, offer, monkeypatch):
    def crash(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(geolite, "_records", crash)
    with refused(house, "The new GeoLite2 City is damaged (MaxMind's library crashes)."):
        update(of_files(house, offer))


def test_all_that_the_collector_reads_is_looked_at(monkeypatch):
    read: set[str] = set()

    def member(_: object, kind: type, *path: str | int) -> object:
        read.add(".".join(map(str, path)))
        return 1 if kind is float else "x"

    monkeypatch.setattr(places, "_member", member)
    databases = places.Databases(Path("/nonexistent"))
    databases.look_up(places.Place("198.18.1.80", 4), "198.18.1.80")
    assert read == geolite.SCHEMAS["City"].keys() | geolite.SCHEMAS["ASN"].keys()


# --- in place ---


def test_the_former_database_is_kept_and_the_file_tells_its_age(house, offer):
    old = (house / "GeoLite2-City.mmdb").read_bytes()
    update(of_files(house, offer))
    assert (house / "GeoLite2-City.mmdb.previous").read_bytes() == old
    assert (house / "GeoLite2-City.mmdb").stat().st_mtime == NOW - DAY
    assert sorted(state(house)) == [
        ".wrtflow-geolite.json", "GeoLite2-ASN.mmdb", "GeoLite2-City.mmdb", "GeoLite2-City.mmdb.previous",
    ]  # fmt: skip


@pytest.mark.usefixtures("all_back")
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"scribbled over"), Path.unlink])
def test_a_damaged_database_is_no_former_one(house, offer, monkeypatch, damage):
    update(of_files(house, offer))
    whole = (house / "GeoLite2-City.mmdb.previous").read_bytes()
    damage(house / "GeoLite2-City.mmdb")
    monkeypatch.setattr(geolite, "reload_collector", ill)
    with pytest.raises(UpdateError, match="the former databases are back"):
        update(of_files(house, offer))
    assert (house / "GeoLite2-City.mmdb").read_bytes() == whole


def test_nobody_else_s_umask_counts(house, offer):
    before = os.umask(0o077)
    try:
        update(of_files(house, offer))
    finally:
        os.umask(before)
    assert (house / "GeoLite2-City.mmdb").stat().st_mode & 0o777 == 0o644


def test_a_database_is_on_the_disk_before_it_has_its_name(house, offer, monkeypatch):
    steps = []
    replace = os.replace
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: steps.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    monkeypatch.setattr(os, "replace", lambda old, new: (steps.append(str(new)), replace(old, new)))
    update(of_files(house, offer))
    name = str(house / "GeoLite2-City.mmdb")
    synced = [Path(step).name for step in steps[: steps.index(name)]]
    assert "GeoLite2-City.mmdb" in synced
    assert str(house) in steps[steps.index(name) :]


def test_the_first_database(offer, tmp_path):
    house = tmp_path / "new"
    house.mkdir()
    results = update(of_files(house, offer, ("City", "ASN")))
    assert [(result.old, result.new, result.changed) for result in results] == [(None, NOW - DAY, True)] * 2
    assert not (house / "GeoLite2-City.mmdb.previous").exists()


def test_a_check_changes_nothing(house, offer, reloads):
    before = state(house)
    (result,) = update(of_files(house, offer), check=True)
    assert result.changed
    assert result.new == NOW - DAY
    assert state(house) == before
    assert reloads == []


# --- the collector ---


def ill(*_: object) -> None:
    raise UpdateError("The collector is ill.")


@pytest.fixture
def all_back(monkeypatch) -> None:
    """After an accident the collector runs with what is there."""
    monkeypatch.setattr(geolite, "_runs_with", lambda _: 78)


@pytest.mark.usefixtures("all_back")
def test_an_ill_collector_has_the_former_databases_back(house, offer, monkeypatch):
    old = state(house)
    monkeypatch.setattr(geolite, "reload_collector", ill)
    with pytest.raises(UpdateError, match=r"^The collector is ill: the former databases are back\.$"):
        update(of_files(house, offer, ("City", "ASN")))
    assert old.items() <= state(house).items()


def test_nothing_is_back_where_nothing_was(offer, tmp_path, monkeypatch):
    house = tmp_path / "new"
    house.mkdir()
    monkeypatch.setattr(geolite, "reload_collector", ill)
    with pytest.raises(UpdateError, match=r"^The collector is ill\.$"):
        update(of_files(house, offer, ("City", "ASN")))
    # They are good ones, and the next run has the collector open them.
    assert (house / "GeoLite2-City.mmdb").read_bytes() == (offer / "GeoLite2-City.mmdb").read_bytes()


def test_nothing_is_back_where_nothing_was_placed(house, offer, monkeypatch):
    """Of a run that was killed before the reload: the database is new already."""
    (offer / "GeoLite2-City.mmdb").rename(house / "GeoLite2-City.mmdb")
    monkeypatch.setattr(geolite, "reload_collector", ill)
    with pytest.raises(UpdateError, match=r"^The collector is ill\.$"):
        update(of_files(house, house))


@pytest.mark.usefixtures("all_back")
def test_one_that_had_a_former_one_is_back(house, offer, monkeypatch):
    old = (house / "GeoLite2-ASN.mmdb").read_bytes()
    (house / "GeoLite2-City.mmdb").unlink()
    monkeypatch.setattr(geolite, "reload_collector", ill)
    with pytest.raises(UpdateError, match=r"^The collector is ill: the former databases are back\.$"):
        update(of_files(house, offer, ("City", "ASN")))
    assert (house / "GeoLite2-ASN.mmdb").read_bytes() == old


def test_a_collector_that_stays_ill_is_told(house, offer, monkeypatch):
    monkeypatch.setattr(geolite, "reload_collector", ill)
    monkeypatch.setattr(geolite, "_runs_with", lambda _: 0)
    monkeypatch.setattr(geolite, "PATIENCE", 0.1)
    with pytest.raises(
        UpdateError, match="are back, but the collector does not run with them: see journalctl -u"
    ):
        update(of_files(house, offer))


@pytest.mark.usefixtures("all_back")
def test_what_failed_halfway_is_put_back(house, offer, monkeypatch):
    old = state(house)
    place = geolite.put_in_place

    def half(new: Path, present: Path) -> None:
        if "ASN" in present.name:
            raise OSError(errno.EIO, "Input/output error")
        place(new, present)

    monkeypatch.setattr(geolite, "put_in_place", half)
    with pytest.raises(
        UpdateError, match=r"can't be put to use \(.*Input/output error\): the former databases are back\."
    ):
        update(of_files(house, offer, ("City", "ASN")))
    assert old.items() <= state(house).items()


COLLECTOR = """
import pathlib, sys
from wrtflow import places
behaviour, *databases = sys.argv[1:]

def opened():
    return [places._read(pathlib.Path(database)) for database in databases]

readers = opened()
print("ready", flush=True)
for _ in sys.stdin:
    match behaviour:
        case "opens" | "is ill":
            readers = opened()
        case "opens as well":
            readers += opened()
        case "dies":
            sys.exit(1)
    print("reloaded", flush=True)
"""


class StandIn:
    """A process that opens databases as the collector does, and does something when it is told to reload."""

    def __init__(self, behaviour: str, databases: list[Path]) -> None:
        """Start."""
        self.command = [sys.executable, "-c", COLLECTOR, behaviour, *map(str, databases)]
        self.start()

    def start(self) -> None:
        """Start, and have the databases open."""
        self.process = subprocess.Popen(
            self.command,
            env={**os.environ, "PYTHONPATH": str(Path(places.__file__).parents[1])},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def end(self) -> None:
        """End."""
        self.process.kill()
        self.process.communicate()

    def pid(self) -> int:
        """As systemd says, which starts one that has died."""
        if self.process.poll() is not None:
            self.end()
            self.start()
        return self.process.pid

    def control(self, *command: str) -> tuple[bool, str]:
        """As syslog-ng-ctl."""
        if command == ("reload",):
            self.process.stdin.write("reload\n")
            self.process.stdout.readline()
        return not (command[0] == "healthcheck" and "is ill" in self.command), ""


@pytest.fixture
def stand_in(monkeypatch, real) -> Iterator[Callable]:
    started: list[StandIn] = []

    def start(behaviour: str, databases: list[Path]) -> StandIn:
        started.append(StandIn(behaviour, databases))
        for name, function in real.items():
            monkeypatch.setattr(geolite, name, function)
        monkeypatch.setattr(geolite, "_collector", started[0].pid)
        monkeypatch.setattr(geolite, "_control", started[0].control)
        return started[0]

    yield start
    for one in started:
        one.end()


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        ("opens", None),
        ("opens nothing", "are back."),
        ("dies", "are back."),
        ("is ill", "are back, but the collector does not run with them: see journalctl -u syslog-ng."),
        ("opens as well", "are back, but the collector does not run with them: see journalctl -u syslog-ng."),
    ],
)
def test_the_collector_must_have_opened_the_new_databases(
    house, offer, stand_in, monkeypatch, behaviour, sentence
):
    monkeypatch.setattr(geolite, "PATIENCE", 60 if behaviour == "dies" else 0.3)
    city = house / "GeoLite2-City.mmdb"
    stand_in(behaviour, [city])
    old, began = city.read_bytes(), time.monotonic()
    if sentence is None:
        update(of_files(house, offer))
        assert city.read_bytes() != old
    else:
        with pytest.raises(UpdateError) as raised:
            update(of_files(house, offer))
        assert (
            str(raised.value)
            == f"The collector did not go on with the new databases: the former databases {sentence}"
        )
        assert city.read_bytes() == old
    # Nothing is awaited of the dead.
    assert time.monotonic() - began < 20


def test_a_collector_without_databases_need_not_open_them(house, offer, stand_in):
    stand_in("opens nothing", [])
    assert update(of_files(house, offer))[0].changed


@pytest.mark.parametrize(
    ("script", "pid"), [("echo 42", 42), ("echo 0", 0), ("echo no bus >&2; exit 1", None)]
)
def test_systemd_says_whether_the_collector_runs(house, offer, tmp_path, monkeypatch, real, script, pid):
    """Silence is no proof that nobody has the databases open."""
    systemctl = tmp_path / "bin/systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f"#!/bin/sh\n{script}\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(systemctl.parent), prepend=os.pathsep)
    monkeypatch.setattr(geolite, "_collector", real["_collector"])
    if pid is not None:
        assert geolite._collector() == pid
    else:
        with refused(house, "systemd does not say whether the collector runs (no bus)."):
            update(of_files(house, offer))


def test_a_collector_that_does_not_run_opens_them_at_its_start(house, offer, monkeypatch, reloads):
    monkeypatch.setattr(geolite, "_collector", lambda: 0)
    assert update(of_files(house, offer))[0].changed
    assert reloads == []


def test_two_at_once(house, offer):
    with geolite.only_one(house), refused(house, "Another update"):
        update(of_files(house, offer))
    assert update(of_files(house, offer))[0].changed


# --- the disk ---


def test_a_disk_that_is_filling_up(house, offer, monkeypatch):
    monkeypatch.setattr(geolite, "RESERVE", 1 << 60)
    with refused(house, f"no room for new databases in {house}"):
        update(of_files(house, offer))


def test_a_disk_that_is_full(tmp_path):
    """/dev/full is one."""
    (tmp_path / "work").mkdir()
    target = tmp_path / "work/City.download"
    target.symlink_to("/dev/full")
    with pytest.raises(UpdateError, match="No space left on device"):
        geolite._write(io.BytesIO(b"x" * 10), target)


def test_a_file_that_never_ends(house, offer, monkeypatch):
    monkeypatch.setattr(geolite, "LARGEST", 100)
    with refused(house, "no GeoLite2 database is"):
        update(of_files(house, offer))


def test_a_folder_that_is_not_there(tmp_path, offer):
    with pytest.raises(UpdateError, match=r"can't be kept in .*/nowhere"):
        update(of_files(tmp_path / "nowhere", offer))


# --- a power cut ---

STEPS = ("open", "mkdir", "link", "replace", "fsync", "utime", "unlink", "rename", "rmdir")


def until_killed(settings: Settings, reloads: Path, survive: int) -> None:
    """Update, and be killed before the step of that number that touches the disk."""
    count = 0

    def counted(function: Callable) -> Callable:
        def step(*arguments, **named):
            nonlocal count
            count += 1
            if count > survive:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return step

    geolite.reload_collector = lambda *_: reloads.write_text("reloaded")
    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    update(settings)


def test_killed_at_every_step(house, offer, tmp_path, reloads):
    """Before each step: both databases are whole ones, and the next run ends what was begun."""
    spawn = multiprocessing.get_context("fork")
    settings = of_files(house, offer, ("City", "ASN"))
    whole = {
        kind: {(folder / f"GeoLite2-{kind}.mmdb").read_bytes() for folder in (house, offer)}
        for kind in ("City", "ASN")
    }
    old = state(house)
    for survive in range(200):
        for path in house.iterdir():
            path.unlink()
        for name, content in old.items():
            (house / name).write_bytes(content)
        told = tmp_path / f"told-{survive}"
        child = spawn.Process(target=until_killed, args=(settings, told, survive))
        child.start()
        child.join()
        for kind, versions in whole.items():
            assert (house / f"GeoLite2-{kind}.mmdb").read_bytes() in versions
        reloads.clear()
        update(settings)
        for kind in whole:
            assert (house / f"GeoLite2-{kind}.mmdb").read_bytes() == (
                offer / f"GeoLite2-{kind}.mmdb"
            ).read_bytes()
            assert (house / f"GeoLite2-{kind}.mmdb.previous").exists()
        assert list(house.glob(".update-*")) == []
        # The collector has been told: then, or now.
        assert reloads or told.exists()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert 20 < survive < 199


# --- the command ---


def settings_file(tmp_path: Path, **content: object) -> str:
    path = tmp_path / "geolite.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_the_command_prints_old_and_new_dates(house, offer, tmp_path, capsys):
    path = settings_file(tmp_path, directory=str(house), sources={"City": f"{offer}/GeoLite2-City.mmdb"})
    assert geolite.main(["--settings", path]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["changed"]
    assert (line["database"], line["old"] < line["new"]) == ("City", True)


def test_the_command_fails_with_the_sentence(house, tmp_path):
    path = settings_file(tmp_path, directory=str(house), sources={"City": "/nowhere.mmdb"})
    command = [sys.executable, geolite.__file__, "--settings", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert (
        done.stderr
        == "/nowhere.mmdb can't be read (No such file or directory): is geolite_city_source right?\n"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "directory|sources"),
        ({"directory": "/x", "sources": {"Country": "/y"}}, "databases are City, ASN"),
        ({"directory": "/x", "sources": {}}, "databases are City, ASN"),
        ({"directory": "/x", "sources": {"City": 7}}, "run the collector's playbook"),
        ({"directory": "/x", "sources": ["City"]}, "run the collector's playbook"),
        ({"directory": "/x", "sources": {"City": "/y"}, "timeout": "soon"}, "soon"),
        ({"directory": "/x", "sources": {"City": "/y"}, "known": {"City": "8.8.8.8"}}, "run the collector's playbook"),
        ({"directory": "/x", "sources": {"City": "https://me:secret@mirror/x"}}, "a password in a URL"),
        ({"directory": "/x", "sources": {"City": "maxmind"}, "maxmind_url": "https://x/{edition}"}, "edition"),
    ],
)  # fmt: skip
def test_settings_that_can_t_be_used(tmp_path, content, reason):
    with pytest.raises(UpdateError, match=reason):
        Settings.load(Path(settings_file(tmp_path, **content)))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "\udcff"])
def test_settings_that_are_none(tmp_path, text):
    path = tmp_path / "settings.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UpdateError, match="run the collector's playbook"):
        Settings.load(path)
    with pytest.raises(UpdateError, match="run the collector's playbook"):
        Settings.load(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"City": null}', '{"City": [1]}'])
def test_a_record_that_can_t_be_read_is_none(house, offer, text):
    (house / ".wrtflow-geolite.json").write_text(text)
    assert update(of_files(house, offer))[0].changed
    assert not update(of_files(house, offer))[0].changed
