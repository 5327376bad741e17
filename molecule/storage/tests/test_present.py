"""A machine that is not new: an installed version, somebody's settings and data, its address and memory."""

import re
import subprocess

import lab
import pytest
import requests
from test_options import accepted

testinfra_hosts = ["docker://wrtflow-logserver"]

SETTINGS = "/etc/elasticsearch/elasticsearch.yml"
STATUS = "/var/lib/dpkg/status"
INDEX = "network-1999.04"


def deploy(**variables) -> tuple[int, str]:
    """Run the playbook with these variables; return its exit code and what it said, on one line."""
    return lab.deploy("storage.yml", variables)


def refused(host, *words: str, **variables) -> None:
    """See that the playbook stops with these words and has changed nothing."""
    settings, started = host.file(SETTINGS).content_string, start(host)
    code, said = deploy(**variables)
    assert code == 2, said
    assert [word for word in words if word not in said] == [], said
    assert "changed=0 " in said
    assert (host.file(SETTINGS).content_string, start(host)) == (settings, started)


def start(host) -> str:
    return host.check_output(
        "systemctl show --value --property ExecMainStartTimestampMonotonic elasticsearch"
    )


def pretend_version(host, version: str) -> None:
    """Have the package manager believe that this version is installed."""
    host.check_output(rf"sed -i '/^Package: elasticsearch$/,/^$/s/^Version: .*/Version: {version}/' {STATUS}")


@pytest.fixture
def installed(host):
    """The installed version is as before after the test."""
    before = host.package("elasticsearch").version
    yield
    pretend_version(host, before)


@pytest.mark.parametrize(
    "url",
    ["https://10.77.0.10", "https://10.77.0.10:443", "http://10.77.0.10:9200", "https://10.77.0.10:9200/x"],
)
def test_an_address_that_cannot_be_served_is_refused(host, url):
    refused(host, "https://HOST:PORT", "the port 1024 or more", url, wrtflow_elasticsearch_url=url)


def test_an_address_of_another_machine_is_refused(host):
    refused(
        host, "198.18.3.80 is 198.18.3.80", "10.77.0.10", "elasticsearch_network_host",
        wrtflow_elasticsearch_url="https://198.18.3.80:9200",
    )  # fmt: skip


def test_it_listens_on_its_url_s_address_and_loopback_alone(host):
    heard = set(re.findall(r"\S+:9200(?= )", host.check_output("ss -Hltn sport = :9200")))
    assert heard == {"10.77.0.10:9200", "127.0.0.1:9200", *({"[::1]:9200"} & heard)}


@pytest.mark.long
def test_memory_is_summed_over_what_the_machine_is_to_hold(host):
    third = int(host.check_output("awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo")) * 2 // 5
    needs = {"storage": third, "dashboards": third}
    code, said = deploy(wrtflow_memory_needed=needs)
    assert code == 0, said
    refused(
        host, f"needs {3 * third}", f"storage {third}, dashboards {third}, collector {third}",
        wrtflow_memory_needed={**needs, "collector": third},
    )  # fmt: skip


@pytest.fixture(scope="module")
def pems(tmp_path_factory) -> dict[str, str]:
    """Return the paths of an authority's certificate and key, and of another certificate and key that sign nothing."""
    folder = tmp_path_factory.mktemp("pems")
    for name, may in (("house", "TRUE"), ("leaf", "FALSE")):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt", "-subj", f"/CN={name}",
             "-addext", f"basicConstraints=critical,CA:{may}"],
            check=True, capture_output=True,
        )  # fmt: skip
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("certificate", "key", "word"),
    [
        ("house.crt", None, "Name both, or neither"),
        ("house.crt", "leaf.key", "has to be its key"),
        ("leaf.crt", "leaf.key", "(CA:TRUE)"),
    ],
)
def test_an_authority_that_cannot_sign_is_refused(host, pems, certificate, key, word):
    refused(
        host, word, elasticsearch_ca_certificate=pems[certificate],
        elasticsearch_ca_key=pems[key] if key else "",
    )  # fmt: skip


def test_snapshots_go_to_a_folder_or_a_repository(host):
    refused(host, "/mnt/nas/flows", "My NAS", elasticsearch_snapshots="My NAS")


class TestVersions:
    pytestmark = pytest.mark.usefixtures("installed")

    def test_an_older_version_is_refused(self, host):
        refused(host, "can't go back", "9.2.0", elasticsearch_version="9.1.*")
        refused(host, "can't go back", elasticsearch_version="8.19.5")

    @pytest.mark.parametrize("version", ["7.17.28", "8.18.8"])
    def test_what_is_not_the_last_before_the_next_major_version_is_refused(self, host, version):
        pretend_version(host, version)
        refused(host, f"Elasticsearch {version} can't become 9.* in one step", "8.19")

    def test_what_elasticsearch_calls_critical_stands_in_the_way(self, host):
        pretend_version(host, "8.19.5")
        told = (
            '{"index_settings": {"old": [{"level": "critical", "message": "Made by 7"}, {"level": "warning", "message":'
            ' "Odd"}]}, "node_settings": [{"level": "critical", "message": "Gone in 9"}]}'
        )
        lab.put("logserver", "/var/lib/elasticsearch/deprecations.json", told.encode())
        try:
            refused(host, "Gone in 9; Made by 7.", "Upgrade Assistant")
        finally:
            host.check_output("rm /var/lib/elasticsearch/deprecations.json")

    def test_who_cannot_be_asked_is_not_upgraded(self, host):
        pretend_version(host, "8.19.5")
        host.check_output("systemctl stop elasticsearch")
        try:
            refused(host, "_migration/deprecations", "8.19.5")
        finally:
            host.check_output("systemctl start elasticsearch")
            # A node that has just started accepts nobody for a moment.
            key = lab.secret("reader.api-key")
            lab.wait_for("Elasticsearch to accept its keys", lambda: accepted(key) == 200, 60)

    @pytest.mark.long
    def test_the_last_eight_without_a_fault_becomes_nine(self, host):
        pretend_version(host, "8.19.5")
        before = start(host)
        code, said = deploy()
        assert code == 0, said
        assert host.package("elasticsearch").version == "9.2.0"
        assert int(start(host)) > int(before)
        assert lab.deploy("storage.yml")[1].count("changed=0 ") == 1


class TestSomebodyElses:
    @pytest.mark.long
    def test_settings_that_are_not_ours_are_refused_and_taken_over_with_their_data(self, host):
        lab.elasticsearch(
            "PUT", f"/{INDEX}/_doc/a?refresh=true", {"@timestamp": "1999-04-01T00:00:00Z"}, user="elastic"
        )
        ours = host.file(SETTINGS).content_string
        data = "/srv/somewhere else"
        host.check_output("systemctl stop elasticsearch")
        host.check_output(f"mv /var/lib/elasticsearch '{data}'")
        theirs = re.sub(r"^#.*\n", "", ours, flags=re.MULTILINE).replace(
            "path.data: /var/lib/elasticsearch", f"path:\n  data: {data}"
        )
        assert data in theirs
        lab.put("logserver", SETTINGS, theirs.encode(), 0o660)
        host.check_output(f"chown root:elasticsearch {SETTINGS}; systemctl start elasticsearch")
        try:
            refused(host, "not wrtflow's", data, "elasticsearch_take_over: true")
            code, said = deploy(elasticsearch_take_over=True)
            assert code == 0, said
            assert self.count() == 1
            code, said = deploy()
            assert code == 0, said
            assert "changed=0 " in said, said
            assert self.count() == 1
            refused(host, data, "it would start empty", elasticsearch_data_directory="/var/lib/elasticsearch")
        finally:
            host.check_output("systemctl stop elasticsearch")
            host.check_output(f"rm -rf /var/lib/elasticsearch; mv '{data}' /var/lib/elasticsearch")
            lab.put("logserver", SETTINGS, ours.encode(), 0o660)
            host.check_output(f"chown root:elasticsearch {SETTINGS}; systemctl start elasticsearch")
            # The retention, too, has to look where the data lies again.
            code, said = deploy()
        assert code == 0, said
        assert self.count() == 1
        lab.elasticsearch("DELETE", f"/{INDEX}", user="elastic")

    @staticmethod
    def count() -> int:
        """Return how many flows of the month are found; a node that has just started refuses everybody for a moment."""

        def asked() -> requests.Response | None:
            answer = requests.get(
                f"{lab.ELASTICSEARCH}/{INDEX}/_count", auth=("elastic", lab.secret("elastic.password")),
                verify=lab.SECRETS / "elasticsearch-ca.crt", timeout=30,
            )  # fmt: skip
            return answer if answer.ok else None

        return lab.wait_for("flows to be counted", asked, 30).json()["count"]
