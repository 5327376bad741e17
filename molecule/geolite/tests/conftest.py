"""Fixtures of the databases' tests: the collector, MaxMind's double, and the playbook."""

import hashlib
import importlib.util
import json
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import lab
import pytest

MAXMIND = "https://198.18.1.80:8443"
#: In the lab's databases, and not in MaxMind's.
SHENZHEN = "198.18.2.80"


def load(name: str, path: str) -> ModuleType:
    """Import a file that is in no package."""
    specification = importlib.util.spec_from_file_location(name, lab.PROJECT / path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


collector = load("collector_tests", "molecule/collector/tests/conftest.py")
maxmind = load("maxmind_double", "molecule/doubles/maxmind/maxmind.py")


class Collector(collector.Machine):
    """The log server with the updater."""

    def update(self) -> tuple[str, list[str]]:
        """Start the unit; return its result and its output."""
        # systemd refuses a sixth start within 10 s, and shows the run before.
        self.run("systemctl", "reset-failed", "wrtflow-geolite", check=False)
        self.run("systemctl", "start", "wrtflow-geolite", check=False)
        return self.ended()

    def ended(self) -> tuple[str, list[str]]:
        """Return the result and the output of the unit's last run."""
        said = self.run(
            *("journalctl", "--quiet", "--output=cat", "_TRANSPORT=stdout"),
            "_SYSTEMD_INVOCATION_ID=" + self.unit("wrtflow-geolite", "InvocationID"),
        )
        return self.unit("wrtflow-geolite", "Result"), said.splitlines()

    def unit(self, name: str, what: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", f"--property={what}", "--value", name).strip()

    def settings(self, **changes: object) -> None:
        """Change the updater's settings."""
        path = "/etc/wrtflow/geolite.json"
        self.put(path, json.dumps({**json.loads(self.run("cat", path)), **changes}).encode())

    def databases(self) -> dict[str, tuple[str, str]]:
        """Return checksum and inode of the databases in place, and of what is remembered of them."""
        names = ("GeoLite2-City.mmdb", "GeoLite2-ASN.mmdb", ".wrtflow-geolite.json")
        paths = [f"/var/lib/GeoIP/{name}" for name in names]
        sums, inodes = (
            self.run("sha256sum", *paths).split()[::2],
            self.run("stat", "-c", "%i", *paths).split(),
        )
        return dict(zip(names, zip(sums, inodes, strict=True), strict=True))

    def opened(self) -> dict[str, set[str]]:
        """Return the inodes of the databases that the collector has copies of, by the name that they had then."""
        found: dict[str, set[str]] = {}
        for line in self.run("cat", f"/proc/{self.pid()}/maps").splitlines():
            if ".mmdb" in line:
                name, _, inode = line.split()[5].removeprefix("/memfd:").rpartition(".")
                found.setdefault(name, set()).add(inode)
        return found

    def pid(self) -> str:
        """Return the collector's process."""
        return self.unit("syslog-ng", "MainPID")


class Double:
    """MaxMind's double on the lab's internet."""

    def _ask(self, method: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{MAXMIND}/_double", method=method, data=body)
        with urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=10) as answer:
            return answer.read()

    def behave(self, **behaviour: object) -> None:
        """Have it misbehave from now on."""
        self._ask("PUT", json.dumps(behaviour).encode())

    def requests(self) -> list[dict]:
        """Return the requests that the double has got."""
        return json.loads(self._ask("GET"))["requests"]

    def release(self, kind: str, database: Path) -> None:
        """Offer a database."""
        with tempfile.TemporaryDirectory() as folder:
            named = Path(folder, f"GeoLite2-{kind}.mmdb")
            named.symlink_to(database)
            packed = maxmind.pack(named, Path(folder))
            subprocess.run(
                ["docker", "cp", packed, f"wrtflow-internet:/srv/maxmind/releases/{packed.name}"],
                check=True,
            )


def rotate(*arguments: str, playbook: str = "rotate-geolite") -> tuple[int, str]:
    """Run the playbook with MaxMind as the source; return its exit code and what it said, on one line."""
    variables = {
        "geolite_city_source": "maxmind",
        "geolite_asn_source": "maxmind",
        "geolite_maxmind_url": MAXMIND + "/geoip/databases/GeoLite2-{kind}/download?suffix=tar.gz",
        "geolite_account_id": maxmind.ACCOUNT,
        "geolite_license_key": maxmind.KEY,
    }
    return lab.deploy(f"{playbook}.yml", variables, *arguments)


def make_databases(folder: Path, *built: str) -> None:
    """Write the lab's databases, built at a time (ISO 8601, UTC) or just now."""
    subprocess.run(
        [sys.executable, lab.PROJECT / "molecule/images/geolite/make.py", folder, *built], check=True
    )


@pytest.fixture(scope="session")
def machine() -> Collector:
    return Collector()


@pytest.fixture(scope="session")
def _double() -> Double:
    return Double()


@pytest.fixture
def double(_double: Double) -> Iterator[Double]:
    yield _double
    _double.behave()


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """The lab's databases, built just now."""
    folder = tmp_path_factory.mktemp("made")
    make_databases(folder)
    return folder


@pytest.fixture(scope="session")
def full_size() -> Path:
    """A City database of full size."""
    found = subprocess.run(
        lab.PROJECT / "molecule/geolite/full-size.sh", stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(found.stdout.strip())


def digest(path: Path) -> str:
    """Return a file's checksum."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
