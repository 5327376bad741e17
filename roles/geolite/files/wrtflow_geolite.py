#!/usr/bin/python3
"""Keep the collector's GeoLite2 databases fresh and whole.

    wrtflow-geolite [--settings FILE] [--check] [--force]

Fetches each database from its source, validates it, puts it in place in one step and has syslog-ng open it. Whatever
goes wrong, the database that is in use stays in use; the one sentence that says what went wrong is the last line on
standard error, and the exit status is 1. Standard output: one JSON object a database, as
{"database": "City", "changed": true, "old": "2026-10-01T…", "new": "2026-11-20T…", "checked_only": false}.

Sources: MaxMind's download service (documented at dev.maxmind.com, "Updating GeoIP and GeoLite Databases"), any URL,
or a file; .mmdb, .mmdb.gz or .tar.gz. Needs Debian's python3-maxminddb and Python's standard library.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import maxminddb

#: What a record of each database must look like, as paths to types: what the collector reads, where it is there.
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

#: The path that makes a database of use: one record at least must have it.
ESSENTIAL = {"City": "country.iso_code", "ASN": "autonomous_system_number"}

#: Records that are read before a database is trusted; the first ones, and then one of every so many.
SAMPLE = 20_000

MAXMIND = "https://download.maxmind.com/geoip/databases/GeoLite2-{kind}/download?suffix=tar.gz"


class UpdateError(Exception):
    """The update can't be done; the message is one sentence for the person, and says what to do."""


@dataclass
class Source:
    """Where one database comes from."""

    location: str
    maxmind: bool = False

    @property
    def is_url(self) -> bool:
        """Whether the location is fetched over HTTP."""
        return urlsplit(self.location).scheme in {"http", "https"}


@dataclass
class Settings:
    """What /etc/wrtflow/geolite.json says (roles/geolite)."""

    directory: Path
    sources: dict[str, Source]
    account_id: str = ""
    license_key: str = field(default="", repr=False)
    known: dict[str, dict[str, str]] = field(default_factory=dict)
    timeout: float = 60
    minimum_share: float = 0.5
    syslog_ng: bool = True

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read the settings file; UpdateError where it is missing or wrong."""
        try:
            raw = json.loads(path.read_text())
            maxmind_url = raw.get("maxmind_url") or MAXMIND
            sources = {
                kind: Source(maxmind_url.format(kind=kind), maxmind=True)
                if where == "maxmind"
                else Source(where)
                for kind, where in raw["sources"].items()
            }
            return cls(
                directory=Path(raw["directory"]),
                sources=sources,
                account_id=str(raw.get("account_id", "")),
                license_key=str(raw.get("license_key", "")),
                known=raw.get("known", {}),
                timeout=float(raw.get("timeout", 60)),
                minimum_share=float(raw.get("minimum_share", 0.5)),
                syslog_ng=bool(raw.get("syslog_ng", True)),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UpdateError(
                f"The settings in {path} can't be read ({error!r}): run the collector's playbook."
            ) from error


@dataclass
class Result:
    """What became of one database; times are build times in seconds since 1970, None where there is none."""

    database: str
    old: int | None
    new: int | None
    changed: bool
    checked_only: bool = False

    def as_json(self) -> str:
        """Return it as one line for the playbook."""
        dates = {
            name: datetime.fromtimestamp(value, UTC).isoformat() if value else None
            for name, value in (("old", self.old), ("new", self.new))
        }
        return json.dumps(
            {"database": self.database, "changed": self.changed, **dates, "checked_only": self.checked_only}
        )


# --- fetching -------------------------------------------------------------------------------------------------------


class _KeepCredentials(urllib.request.HTTPRedirectHandler):
    """Follows MaxMind's redirect to its storage, without taking the licence key there."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Drop Authorization when the host changes."""
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            new.remove_header("Authorization")
        return new


def _open(source: Source, url: str, settings: Settings, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "wrtflow-geolite", **headers})
    if source.maxmind:
        if not (settings.account_id and settings.license_key):
            raise UpdateError(
                "MaxMind's download needs an account id and a licence key:"
                " set geolite_account_id and geolite_license_key (vault), or another source."
            )
        pair = base64.b64encode(f"{settings.account_id}:{settings.license_key}".encode()).decode()
        request.add_header("Authorization", f"Basic {pair}")
    opener = urllib.request.build_opener(_KeepCredentials)
    return opener.open(request, timeout=settings.timeout)


def _http_sentence(kind: str, source: Source, error: urllib.error.HTTPError) -> str:
    where = urlsplit(source.location).netloc
    match error.code:
        case 401 | 403 if source.maxmind:
            return (
                f"{where} refuses the account id or licence key ({error.code}):"
                " check geolite_account_id and geolite_license_key."
            )
        case 429:
            return f"{where} has had enough downloads today (429): GeoLite2 {kind} is tried again at the next run."
    return f"{where} answered {error.code} for GeoLite2 {kind}."


def fetch(kind: str, source: Source, settings: Settings, work: Path, state: dict[str, Any]) -> Path | None:
    """Download or copy a source into the folder work; None where it is what was installed last time.

    state remembers, per database, what the server said of the last file installed; it is changed in place.
    """
    target = work / f"{kind}.download"
    if not source.is_url:
        path = Path(source.location)
        try:
            digest = _sha256(path)
            if state.get("source") == source.location and state.get("sha256") == digest:
                return None
            shutil.copyfile(path, target)
        except OSError as error:
            raise UpdateError(
                f"{path} can't be read ({error.strerror}): is geolite_{kind.lower()}_source right?"
            ) from error
        state.update(source=source.location, sha256=digest)
        return target
    headers = {}
    if state.get("source") == source.location and state.get("last_modified"):
        headers["If-Modified-Since"] = state["last_modified"]
    try:
        with _open(source, source.location, settings, headers) as answer, target.open("wb") as file:
            expected = answer.headers.get("Content-Length")
            shutil.copyfileobj(answer, file)
            modified = answer.headers.get("Last-Modified")
        if expected is not None and target.stat().st_size != int(expected):
            raise UpdateError(
                f"The download of GeoLite2 {kind} broke off after {target.stat().st_size} of {expected} bytes."
            )
        if source.maxmind:
            _verify_checksum(kind, source, settings, target)
    except urllib.error.HTTPError as error:
        if error.code == 304:
            return None
        raise UpdateError(_http_sentence(kind, source, error)) from error
    except (urllib.error.URLError, OSError, EOFError) as error:
        reason = getattr(error, "reason", None) or error
        raise UpdateError(
            f"{urlsplit(source.location).netloc} can't be reached for GeoLite2 {kind} ({reason})."
        ) from error
    state.clear()
    state.update(source=source.location, last_modified=modified)
    return target


def _verify_checksum(kind: str, source: Source, settings: Settings, path: Path) -> None:
    with _open(source, source.location + ".sha256", settings, {}) as answer:
        expected = answer.read(1000).decode("ascii", "replace").split()
    if not expected or expected[0] != _sha256(path):
        raise UpdateError(
            f"The download of GeoLite2 {kind} does not have MaxMind's checksum: it is thrown away."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(kind: str, download: Path, target: Path) -> None:
    """Write the database inside a .mmdb, .gz or .tar.gz download to target. UpdateError where there is none."""
    try:
        with download.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        if not packed:
            shutil.copyfile(download, target)
            return
        if tarfile.is_tarfile(download):
            with tarfile.open(download) as tar:
                for member in tar:
                    # Only the content is taken: names and modes in an archive are nobody's business.
                    content = tar.extractfile(member) if member.name.endswith(f"{kind}.mmdb") else None
                    if content:
                        with target.open("wb") as out:
                            shutil.copyfileobj(content, out)
                        return
            raise UpdateError(f"The archive for GeoLite2 {kind} holds no …{kind}.mmdb.")
        with gzip.open(download) as unpacked, target.open("wb") as out:
            shutil.copyfileobj(unpacked, out)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UpdateError(f"The download of GeoLite2 {kind} is no whole archive ({error}).") from error


# --- validating -----------------------------------------------------------------------------------------------------


def build_time(path: Path) -> int | None:
    """Return when a database was built (seconds since 1970), None where there is none that can be read."""
    try:
        with maxminddb.open_database(str(path), maxminddb.MODE_FILE) as database:
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


def validate(kind: str, path: Path, present: Path, settings: Settings, *, force: bool) -> int:
    """Check a new database and return its build time; UpdateError says what is wrong with it."""
    try:
        with maxminddb.open_database(str(path), maxminddb.MODE_FILE) as database:
            metadata = database.metadata()
            if not metadata.database_type.endswith(kind):
                raise UpdateError(
                    f"What came for GeoLite2 {kind} is a database of type {metadata.database_type}."
                )
            essential = 0
            for number, (network, record) in enumerate(database):
                if number >= SAMPLE:
                    break
                for name, wanted in SCHEMAS[kind].items():
                    value = _value(record, name)
                    if value is not None and not isinstance(value, wanted):
                        raise UpdateError(
                            f"The new GeoLite2 {kind} has a {name} that is no {wanted.__name__} at {network}."
                        )
                essential += _value(record, ESSENTIAL[kind]) is not None
            if not essential:
                raise UpdateError(
                    f"The new GeoLite2 {kind} has no {ESSENTIAL[kind]}: it is no database of that kind."
                )
            for address, expected in settings.known.get(kind, {}).items():
                found = _value(database.get(address), ESSENTIAL[kind])
                if str(found) != str(expected):
                    raise UpdateError(f"The new GeoLite2 {kind} says {found} of {address}, not {expected}.")
    except (OSError, maxminddb.InvalidDatabaseError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise UpdateError(f"The new GeoLite2 {kind} is damaged ({error}).") from error
    old = build_time(present)
    if old is not None and not force:
        if metadata.build_epoch < old:
            raise UpdateError(
                f"The new GeoLite2 {kind} is older than the present one"
                f" ({_date(metadata.build_epoch)}, {_date(old)}): --force installs it all the same."
            )
        share = path.stat().st_size / present.stat().st_size
        if share < settings.minimum_share:
            raise UpdateError(
                f"The new GeoLite2 {kind} has only {share:.0%} of the present one's size:"
                " --force installs it all the same."
            )
    return int(metadata.build_epoch)


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


_SCRATCH = """@version: 4.8
source s {{ file("{work}/input" follow-freq(0) flags(no-parse)); }};
parser p {{ geoip2("8.8.8.8" prefix("geo.") database("{database}")); }};
destination d {{ file("{work}/output" template("seen\\n")); }};
log {{ source(s); parser(p); destination(d); }};
"""


def try_in_syslog_ng(kind: str, path: Path, work: Path) -> None:
    """Have a syslog-ng of its own read the database: the one that collects must never be the first to open it."""
    if not shutil.which("syslog-ng"):
        return
    (work / "scratch.conf").write_text(_SCRATCH.format(work=work, database=path))
    (work / "input").write_text("a line\n")
    output = work / "output"
    output.unlink(missing_ok=True)
    command = [
        "syslog-ng", "--foreground", "--no-caps", "--cfgfile", str(work / "scratch.conf"),
        *("--persist-file", str(work / "persist"), "--control", str(work / "ctl"), "--pidfile", str(work / "pid")),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            end = time.monotonic() + 30
            while process.poll() is None and not output.exists() and time.monotonic() < end:
                time.sleep(0.05)
        finally:
            process.terminate()
        _, said = process.communicate(timeout=30)
    if not output.exists():
        last = said.strip().splitlines()[-1:] or ["it said nothing"]
        raise UpdateError(f"syslog-ng does not take the new GeoLite2 {kind}: {last[0]}")


# --- putting in place -----------------------------------------------------------------------------------------------


def put_in_place(new: Path, present: Path) -> None:
    """Rename new to present in one step that a power cut can't halve; the former one stays as PRESENT.previous."""
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.chmod(0o644)
    previous = present.with_name(present.name + ".previous")
    if present.exists():
        link = present.with_name(f".{present.name}.link")
        link.unlink(missing_ok=True)
        os.link(present, link)
        os.replace(link, previous)
    os.replace(new, present)
    _sync_directory(present.parent)


def put_back(present: Path) -> None:
    """Make the former database the present one again."""
    previous = present.with_name(present.name + ".previous")
    if previous.exists():
        link = present.with_name(f".{present.name}.link")
        link.unlink(missing_ok=True)
        os.link(previous, link)
        os.replace(link, present)
        _sync_directory(present.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _systemctl(*arguments: str) -> str:
    found = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def reload_collector() -> None:
    """Have the collector open the new databases, and see that it lives on as the same process; UpdateError if not.

    A collector that isn't running opens them at its start.
    """
    if _systemctl("is-active", "syslog-ng") != "active":
        return
    before = _systemctl("show", "--property=MainPID", "syslog-ng")
    done = subprocess.run(
        ["syslog-ng-ctl", "reload"], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise UpdateError(f"The collector could not reload ({(done.stderr or done.stdout).strip()}).")
    alive = subprocess.run(
        ["syslog-ng-ctl", "healthcheck", "--timeout", "10"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    after = _systemctl("show", "--property=MainPID", "syslog-ng")
    if alive.returncode != 0 or before != after:
        raise UpdateError("The collector did not live through opening the new databases.")


# --- the whole ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the folder's lock; UpdateError where another update runs."""
    with (directory / ".wrtflow-geolite.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UpdateError("Another update of the GeoLite2 databases is running.") from None
        yield


def update(settings: Settings, *, check: bool, force: bool) -> list[Result]:
    """Bring every database up to date, or with check say what would be done. All are validated before one is placed."""
    try:
        settings.directory.mkdir(parents=True, exist_ok=True)
        with only_one(settings.directory):
            for left in settings.directory.glob(".update-*"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=".update-", dir=settings.directory) as work:
                return _update(settings, Path(work), check=check, force=force)
    except OSError as error:
        raise UpdateError(f"The databases can't be written ({error.strerror}: {error.filename}).") from error


def _update(settings: Settings, work: Path, *, check: bool, force: bool) -> list[Result]:
    record = settings.directory / ".wrtflow-geolite.json"
    try:
        state = json.loads(record.read_text())
    except (OSError, ValueError):
        state = {}
    results, placed = [], []
    for kind, source in settings.sources.items():
        present = settings.directory / f"GeoLite2-{kind}.mmdb"
        old = build_time(present)
        known = state.setdefault(kind, {})
        if old is None or force:
            known.clear()
        download = fetch(kind, source, settings, work, known)
        if download is None:
            results.append(Result(kind, old, old, changed=False, checked_only=check))
            continue
        new = work / f"GeoLite2-{kind}.mmdb"
        unpack(kind, download, new)
        built = validate(kind, new, present, settings, force=force)
        changed = not present.exists() or _sha256(new) != _sha256(present)
        results.append(Result(kind, old, built, changed=changed, checked_only=check))
        if changed:
            try_in_syslog_ng(kind, new, work)
            placed.append((new, present))
    if check:
        return results
    for new, present in placed:
        put_in_place(new, present)
    if placed and settings.syslog_ng:
        try:
            reload_collector()
        except (UpdateError, subprocess.SubprocessError) as error:
            for _, present in placed:
                put_back(present)
            _systemctl("restart", "syslog-ng")
            raise UpdateError(f"{error} The former databases are back.") from error
    fresh = work / "state.json"
    fresh.write_text(json.dumps(state))
    os.replace(fresh, record)
    return results


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="wrtflow-geolite", description="Keep the GeoLite2 databases fresh and whole."
    )
    parser.add_argument("--settings", type=Path, default=Path("/etc/wrtflow/geolite.json"))
    parser.add_argument("--check", action="store_true", help="fetch and validate, change nothing")
    parser.add_argument("--force", action="store_true", help="install an older or much smaller database, too")
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
