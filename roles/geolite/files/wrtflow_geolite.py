#!/usr/bin/python3
"""Keep the collector's GeoLite2 databases up to date.

    wrtflow-geolite [--settings FILE] [--check] [--force]

Fetch each database from its source, validate it, rename it into place, and have syslog-ng open it. If anything fails,
the database in use stays in use, the last line on standard error is one sentence with the reason, and the exit status
is 1. Standard output has one JSON object for each database, as
{"database": "City", "changed": true, "old": "2026-10-01T…", "new": "2026-11-20T…"}.

Sources: MaxMind's download service (documented at dev.maxmind.com, "Updating GeoIP and GeoLite Databases"), any URL,
or a file; .mmdb, .gz or .tar.gz. Needs Debian's python3-maxminddb and Python's standard library.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import gzip
import hashlib
import http.client
import ipaddress
import itertools
import json
import multiprocessing
import os
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import maxminddb

#: The fields that the collector reads, by path, with their types. A record may lack fields.
SCHEMAS: dict[str, dict[str, type]] = {
    "City": {
        "continent.code": str,
        "country.iso_code": str,
        "country.names.en": str,
        "subdivisions.0.iso_code": str,
        "subdivisions.0.names.en": str,
        "city.names.en": str,
        "location.latitude": float,
        "location.longitude": float,
    },
    "ASN": {"autonomous_system_number": int, "autonomous_system_organization": str},
}

#: At least one record of a database must have this field.
ESSENTIAL = {"City": "country.iso_code", "ASN": "autonomous_system_number"}

#: Records to read before a database is trusted: this many from its beginning, and for this many addresses spread
#: evenly over each space. Reading all of a City database would take minutes.
SAMPLE = 10_000
SPACES = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("2000::/3"))

#: Bytes. A larger file is refused; and RESERVE bytes of the disk are left to the collector's buffers.
LARGEST = 1 << 30
RESERVE = 64 << 20

#: Seconds to wait until the collector has opened the databases after a reload.
PATIENCE = 30

MAXMIND = "https://download.maxmind.com/geoip/databases/GeoLite2-{kind}/download?suffix=tar.gz"


class UpdateError(Exception):
    """The update can't be done. The message is one sentence for people, with what to do."""

    def __init__(self, sentence: str) -> None:
        """Put the sentence on one line: it may quote the output of others."""
        super().__init__(" ".join(sentence.split()))


@dataclass
class Source:
    """Where one database comes from: a URL or a path."""

    location: str
    maxmind: bool = False

    @property
    def host(self) -> str | None:
        """Return the host of a URL, None for a file."""
        parts = urlsplit(self.location)
        return parts.hostname if parts.scheme in {"http", "https"} else None


@dataclass
class Settings:
    """The settings in /etc/wrtflow/geolite.json, which roles/geolite writes."""

    directory: Path
    sources: dict[str, Source]
    account_id: str = ""
    license_key: str = field(default="", repr=False)
    known: dict[str, dict[str, str]] = field(default_factory=dict)
    timeout: float = 60
    minimum_share: float = 0.5

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read the settings file. Raise UpdateError if it is missing or wrong."""
        try:
            raw = json.loads(path.read_text())
            maxmind_url = raw.get("maxmind_url") or MAXMIND
            if not raw["sources"] or not raw["sources"].keys() <= SCHEMAS.keys():
                raise ValueError(f"databases are {', '.join(SCHEMAS)}")
            sources = {
                kind: Source(maxmind_url.format(kind=kind), maxmind=True)
                if raw["sources"][kind] == "maxmind"
                else Source(raw["sources"][kind])
                for kind in SCHEMAS
                if kind in raw["sources"]
            }
            if any("@" in urlsplit(source.location).netloc for source in sources.values()):
                raise ValueError("a password in a URL would be shown: not supported")
            return cls(
                directory=Path(raw["directory"]),
                sources=sources,
                account_id=str(raw.get("account_id", "")),
                license_key=str(raw.get("license_key", "")),
                known={kind: dict(addresses) for kind, addresses in raw.get("known", {}).items()},
                timeout=float(raw.get("timeout", 60)),
                minimum_share=float(raw.get("minimum_share", 0.5)),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UpdateError(
                f"The settings in {path} can't be used ({type(error).__name__}: {error}):"
                " run the collector's playbook."
            ) from error


@dataclass
class Result:
    """The result for one database. Times are build times in seconds since 1970, None if there is none."""

    database: str
    old: int | None
    new: int | None
    changed: bool

    def as_json(self) -> str:
        """Return the result as one line of JSON for the playbook."""
        dates = {
            name: datetime.fromtimestamp(value, UTC).isoformat() if value else None
            for name, value in (("old", self.old), ("new", self.new))
        }
        return json.dumps({"database": self.database, "changed": self.changed, **dates})


# --- fetching -------------------------------------------------------------------------------------------------------

#: What is known of the file at a source, so that it is fetched only if it has changed.
Known = dict[str, str | None]


class _Client(urllib.request.HTTPRedirectHandler):
    """HTTP client for a source. It follows MaxMind's redirect to its storage, but never from https to http.

    host: the host of the last request; after the redirect, the storage's.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        self._source, self._settings = source, settings
        self.host = source.host

    def ask(self, url: str, headers: dict[str, str] | None = None, method: str = "GET") -> Any:
        """Return the open answer. Raise urllib's errors."""
        self.host = self._source.host
        request = urllib.request.Request(
            url, headers={"User-Agent": "wrtflow-geolite", **(headers or {})}, method=method
        )
        if self._source.maxmind:
            pair = f"{self._settings.account_id}:{self._settings.license_key}".encode()
            # Not for the storage that MaxMind redirects to: it refuses a signed request that has this header, too.
            request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
        return urllib.request.build_opener(self).open(request, timeout=self._settings.timeout)

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"it points to {newurl.split('?')[0]}, which is not encrypted")
        self.host = urlsplit(newurl).hostname
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            # The address is signed for one method; Python before 3.12 would use GET.
            following.method = req.get_method()
        return following


def _write(stream: IO[bytes] | gzip.GzipFile, target: Path) -> int:
    """Copy a stream into a file and return its length. Raise UpdateError if the file can't be written.

    Errors of reading are the stream's own.
    """
    size = 0
    with target.open("wb", buffering=0) as file:
        while chunk := memoryview(stream.read(1 << 20)):
            size += len(chunk)
            if size > LARGEST:
                raise UpdateError(f"The file is larger than {LARGEST >> 20} MB: no GeoLite2 database is.")
            if shutil.disk_usage(target.parent).free < RESERVE + len(chunk):
                raise UpdateError(
                    f"There is no room for new databases in {target.parent.parent}: {RESERVE >> 20} MB of its disk"
                    " are left to the collector. Make some room."
                )
            try:
                while chunk:
                    chunk = chunk[file.write(chunk) :]
            except OSError as error:
                raise UpdateError(
                    f"{target.parent.parent} can't be written to ({error.strerror})."
                ) from error
    return size


def fetch(
    kind: str, source: Source, settings: Settings, work: Path, known: Known
) -> tuple[Path, Known] | None:
    """Fetch a source into the folder work. Return None if its file is the known one.

    Return the path of the file, and what to remember of it. Raise UpdateError if the source can't be fetched.
    """
    target = work / f"{kind}.download"
    if source.host is None:
        try:
            with Path(source.location).open("rb") as file:
                fresh: Known = {"source": source.location, "sha256": _digest(file)}
                if fresh.items() <= known.items():
                    return None
                file.seek(0)
                _write(file, target)
        except OSError as error:
            raise UpdateError(
                f"{source.location} can't be read ({error.strerror}): is geolite_{kind.lower()}_source right?"
            ) from error
        return target, fresh

    client = _Client(source, settings)
    headers = {}
    if known.get("source") == source.location and known.get("last_modified"):
        headers["If-Modified-Since"] = str(known["last_modified"])
    try:
        if headers and source.maxmind:
            # MaxMind counts downloads, but no HEAD requests, against the day's limit.
            with client.ask(source.location, headers, "HEAD") as answer:
                if answer.headers["Last-Modified"] == known["last_modified"]:
                    return None
        with client.ask(source.location, headers) as answer:
            size = _write(answer, target)
            length, modified = answer.headers["Content-Length"], answer.headers["Last-Modified"]
        if length is not None and size != int(length):
            raise UpdateError(f"The download of GeoLite2 {kind} broke off after {size} of {length} bytes.")
        if source.maxmind:
            with client.ask(f"{source.location}.sha256") as answer:
                checksum = answer.read(64).decode("ascii", "replace")
            with target.open("rb") as file:
                if checksum != _digest(file):
                    raise UpdateError(f"The download of GeoLite2 {kind} does not have MaxMind's checksum.")
    except urllib.error.HTTPError as error:
        if error.code == 304:
            return None
        raise UpdateError(_refusal(kind, source, client.host, error.code)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            said = f"its certificate is not trusted: {reason.verify_message}"
        else:
            said = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise UpdateError(f"GeoLite2 {kind} can't be fetched from {client.host} ({said}).") from error
    return target, {"source": source.location, "last_modified": modified}


def _refusal(kind: str, source: Source, host: str | None, status: int) -> str:
    if status in {401, 403} and source.maxmind and host == source.host:
        return (
            f"{host} refuses the account id or licence key ({status}):"
            " check geolite_account_id and geolite_license_key."
        )
    if status == 429:
        return f"{host} has had enough downloads for today (429): try GeoLite2 {kind} again tomorrow."
    if status in {404, 410}:
        return f"{host} has no GeoLite2 {kind} ({status}): is geolite_{kind.lower()}_source right?"
    return f"{host} answered {status} for GeoLite2 {kind}."


def _digest(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def unpack(kind: str, download: Path, target: Path) -> None:
    """Write the database inside a .mmdb, .gz or .tar.gz download to target. Raise UpdateError if there is none."""
    try:
        with download.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        if not packed:
            download.rename(target)
        elif tarfile.is_tarfile(download):
            with gzip.open(download) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                # Take the content only, no names and modes: the archive is not trusted.
                contents = (tar.extractfile(member) for member in tar if member.name.endswith(f"{kind}.mmdb"))
                content = next(filter(None, contents), None)
                if content is None:
                    raise UpdateError(f"The archive for GeoLite2 {kind} holds no {kind}.mmdb.")
                _write(content, target)
                # Read on to gzip's checksum, which comes after the tar archive's end.
                while stream.read(1 << 20):
                    pass
        else:
            with gzip.open(download) as unpacked:
                _write(unpacked, target)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UpdateError(f"The download of GeoLite2 {kind} is no whole archive ({error}).") from error


# --- validating -----------------------------------------------------------------------------------------------------


def build_time(path: Path) -> int | None:
    """Return when a database was built (seconds since 1970), None if it can't be read."""
    try:
        # MODE_MMAP is the Python reader: MaxMind's C library crashes on some damaged files.
        with maxminddb.open_database(str(path), maxminddb.MODE_MMAP) as database:
            return int(database.metadata().build_epoch)
    except (OSError, maxminddb.InvalidDatabaseError, ValueError):
        return None


def _value(record: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(record, dict):
            record = record.get(part)
        elif isinstance(record, list) and part.isdigit() and int(part) < len(record):
            record = record[int(part)]
        else:
            return None
    return record


def _records(database: maxminddb.Reader) -> Iterator[tuple[str, Any]]:
    for network, record in itertools.islice(database, SAMPLE):
        yield str(network.network_address), record
    for space in SPACES:
        if space.version <= database.metadata().ip_version:
            for number in range(SAMPLE):
                address = str(space[space.num_addresses // SAMPLE * number])
                yield address, database.get(address)


def validate(kind: str, path: Path, known: dict[str, str]) -> None:
    """Validate a database. Raise UpdateError if something is wrong with it.

    A separate process reads it with MaxMind's C library, as the collector does. The library crashes on some damaged
    files.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as reader:
        try:
            reader.submit(read, kind, path, known).result()
        except BrokenProcessPool:
            raise UpdateError(f"The new GeoLite2 {kind} is damaged (MaxMind's library crashes).") from None


def read(kind: str, path: Path, known: dict[str, str]) -> None:
    """Read a sample of the records, and those of the known addresses. Raise UpdateError if something is wrong."""
    useful = False
    try:
        with maxminddb.open_database(str(path)) as database:
            if not (found := database.metadata().database_type).endswith(kind):
                raise UpdateError(f"What came for GeoLite2 {kind} is a database of type {found}.")
            for address, record in _records(database):
                for name, wanted in SCHEMAS[kind].items():
                    value = _value(record, name)
                    if value is not None and not isinstance(value, wanted):
                        raise UpdateError(
                            f"The new GeoLite2 {kind} has a {name} that is no {wanted.__name__} at {address}."
                        )
                useful = useful or _value(record, ESSENTIAL[kind]) is not None
            for address, expected in known.items():
                said = _value(database.get(address), ESSENTIAL[kind])
                if str(said) != str(expected):
                    raise UpdateError(f"The new GeoLite2 {kind} says {said} of {address}, not {expected}.")
    except UpdateError:
        raise
    except Exception as error:
        # A decoder can raise any error on damaged bytes.
        raise UpdateError(f"The new GeoLite2 {kind} is damaged ({error}).") from error
    if not useful:
        raise UpdateError(
            f"The new GeoLite2 {kind} has no {ESSENTIAL[kind]}: it is no database of that kind."
        )


def compare(kind: str, new: Path, present: Path, minimum_share: float) -> None:
    """Raise UpdateError if the new database is from the future, or older or much smaller than the present one."""
    built, old = build_time(new) or 0, build_time(present)
    if built > time.time() + 86400:
        fault = f"was built in the future ({_date(built)})"
    elif old is None:
        return
    elif built < old:
        fault = f"is older than the present one ({_date(built)}, {_date(old)})"
    elif (share := new.stat().st_size / present.stat().st_size) < minimum_share:
        fault = f"has only {share:.0%} of the present one's size"
    else:
        return
    raise UpdateError(f"The new GeoLite2 {kind} {fault}: wrtflow-geolite --force installs it all the same.")


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _until(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(met)


# --- putting in place -----------------------------------------------------------------------------------------------


def _previous(present: Path) -> Path:
    return present.with_name(f"{present.name}.previous")


def put_in_place(new: Path, present: Path) -> None:
    """Rename new to present, safe against a power cut. The database in use before stays as PRESENT.previous."""
    built = build_time(new) or 0
    # The file's date is the database's date, for people.
    os.utime(new, (built, built))
    new.chmod(0o644)
    _sync(new)
    if build_time(present) is not None:
        _link(present, _previous(present), new.parent)
    os.replace(new, present)


def put_back(present: Path, work: Path) -> bool:
    """Put the previous database back. Return whether there is one."""
    if there := _previous(present).exists():
        _link(_previous(present), present, work)
    return there


def _link(file: Path, name: Path, work: Path) -> None:
    """Give a file a second name, replacing a file that has it, in one step."""
    link = work / f"{name.name}.link"
    os.link(file, link)
    os.replace(link, name)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _collector() -> int:
    """Return the process id of the collector, 0 if it does not run. Raise UpdateError if systemd does not tell."""
    if not shutil.which("systemctl"):
        return 0
    command = ["systemctl", "show", "--property=MainPID", "--value", "syslog-ng"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UpdateError(f"systemd does not say whether the collector runs ({done.stderr.strip()}).")
    return int(done.stdout.strip() or 0)


def _control(*command: str) -> tuple[bool, str]:
    """Run syslog-ng-ctl. Return whether it succeeded, and its output."""
    done = subprocess.run(
        ["syslog-ng-ctl", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode == 0, done.stdout.strip()


def _opened(process: int, database: Path) -> set[int]:
    """Return the inodes of the files of this name that the collector has loaded into memory (wrtflow.places)."""
    try:
        maps = Path(f"/proc/{process}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return set()
    return {int(inode) for inode in re.findall(rf"/memfd:{re.escape(database.name)}\.(\d+) ", maps)}


def _runs_with(databases: list[Path]) -> int:
    """Return the collector's process id if it is healthy and has loaded exactly these databases, else 0."""
    pid = _collector()
    if any(_opened(pid, database) != {database.stat().st_ino} for database in databases if database.exists()):
        return 0
    # Loaded files alone prove nothing: a dying process still has its memory.
    return pid if _control("healthcheck", "--timeout", "5")[0] else 0


def reload_collector(pid: int, databases: list[Path]) -> None:
    """Have the collector open the databases. Raise UpdateError unless the same process runs on with them."""
    done, said = _control("reload")
    if not done:
        raise UpdateError(f"The collector could not reload ({said}).")
    _until(lambda: _runs_with(databases) or _collector() != pid, PATIENCE)
    if _runs_with(databases) != pid:
        raise UpdateError("The collector did not go on with the new databases.")


# --- the whole ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the folder's lock. Raise UpdateError if another update runs."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UpdateError("Another update of the GeoLite2 databases is running: wait for it.") from None
        yield
    finally:
        os.close(descriptor)


def update(settings: Settings, *, check: bool = False, force: bool = False) -> list[Result]:
    """Update every database. All are validated before one is put in place.

    check: change nothing, only return what would be done. force: fetch in any case, and accept older or much smaller
    ones.
    """
    try:
        with only_one(settings.directory):
            # Remove what a killed run has left.
            for left in settings.directory.glob(".update-*"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=".update-", dir=settings.directory) as work:
                return _update(settings, Path(work), check=check, force=force)
    except OSError as error:
        raise UpdateError(f"The databases can't be kept in {settings.directory} ({error}).") from error


def _update(settings: Settings, work: Path, *, check: bool, force: bool) -> list[Result]:
    record = settings.directory / ".wrtflow-geolite.json"
    before = _remembered(record)
    after: dict[str, Known] = {}
    results = []
    fresh: list[tuple[Path, Path]] = []
    unopened = []
    for kind, source in settings.sources.items():
        present = settings.directory / f"GeoLite2-{kind}.mmdb"
        new = work / present.name
        digest = _digest_of(present)
        known = before.get(kind, {})
        opened = digest == known.get("installed")
        # A killed run, or somebody else, has put this file in place: fetch it again.
        if force or not opened or digest is None:
            known = {}
        old = build_time(present)
        if fetched := fetch(kind, source, settings, work, known):
            download, known = fetched
            unpack(kind, download, new)
            validate(kind, new, settings.known.get(kind, {}))
            if not force:
                compare(kind, new, present, settings.minimum_share)
        changed = fetched is not None and _digest_of(new) != digest
        if changed:
            fresh.append((new, present))
        results.append(Result(kind, old, build_time(new) if changed else old, changed))
        after[kind] = {**known, "installed": _digest_of(new if changed else present)}
        if changed or not opened:
            unopened.append(present)
    if not check:
        if unopened:
            _place(fresh, unopened, work)
        if after != before:
            _remember(record, after, work)
    return results


def _place(fresh: list[tuple[Path, Path]], unopened: list[Path], work: Path) -> None:
    """Put the fresh databases in place and have the collector open them. If that fails, put the former ones back."""
    # A collector that does not run opens them when it starts. A syslog-ng without loaded databases is no collector.
    pid = _collector()
    used = [present for present in unopened if _opened(pid, present)]
    placed = []
    try:
        for new, present in fresh:
            put_in_place(new, present)
            placed.append(present)
        _sync(work.parent)
        if pid:
            reload_collector(pid, used)
    except (UpdateError, OSError, subprocess.SubprocessError) as error:
        sentence = str(error).rstrip(".")
        if not isinstance(error, UpdateError):
            sentence = f"The new databases can't be put to use ({sentence})"
        if [present for present in placed if put_back(present, work)]:
            sentence += ": the former databases are back"
            # systemd starts a collector that has died. One that did not reload still has the former databases.
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                _control("reload")
            if pid and not _until(lambda: _runs_with(used), PATIENCE):
                sentence += ", but the collector does not run with them: see journalctl -u syslog-ng"
        raise UpdateError(f"{sentence}.") from error


def _digest_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return _digest(file)
    except FileNotFoundError:
        return None


def _remembered(record: Path) -> dict[str, Known]:
    try:
        found = json.loads(record.read_text())
        return {kind: dict(known) for kind, known in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(record: Path, known: dict[str, Known], work: Path) -> None:
    fresh = work / record.name
    fresh.write_text(json.dumps(known, indent=1) + "\n")
    _sync(fresh)
    os.replace(fresh, record)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="wrtflow-geolite", description="Keep the GeoLite2 databases up to date."
    )
    parser.add_argument("--settings", type=Path, default=Path("/etc/wrtflow/geolite.json"))
    parser.add_argument("--check", action="store_true", help="fetch and validate, change nothing")
    parser.add_argument(
        "--force", action="store_true", help="fetch in any case, and accept an older or much smaller database"
    )
    options = parser.parse_args(arguments)
    try:
        for result in update(Settings.load(options.settings), check=options.check, force=options.force):
            print(result.as_json())
    except UpdateError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
