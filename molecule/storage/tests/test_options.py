"""The options: snapshots, an authority of your own, new keys."""

import json
import re
import subprocess
from typing import Any

import lab
import pytest
import requests

testinfra_hosts = ["docker://wrtflow-logserver"]

# Each choice takes another run of the playbook.
pytestmark = pytest.mark.long

CA = lab.SECRETS / "elasticsearch-ca.crt"
FOLDER = "/srv/snapshots"
#: Two months that are over.
OLD, LAST = "network-1999.05", "network-1999.06"
KEYS = ["collector.api-key", "reader.api-key", "retention.api-key", "kibana.service-token"]


def ask(method: str, path: str, body: Any = None) -> dict[str, Any]:
    return lab.elasticsearch(method, path, body, user="elastic")


def count(index: str) -> int:
    """Return the number of an index's documents, -1 if there is no such index."""
    return ask("GET", f"/{index}/_count").get("count", -1)


def accepted(value: str) -> int:
    """Return what Elasticsearch answers to a key or a token."""
    scheme = "Bearer" if value.startswith("AAEAAW") else "ApiKey"
    return requests.get(
        lab.ELASTICSEARCH + "/_security/_authenticate", headers={"Authorization": f"{scheme} {value}"},
        verify=CA, timeout=30,
    ).status_code  # fmt: skip


class Chosen:
    """A deployment with all of them, and what there was before."""

    def __init__(self, folder) -> None:
        """Make an authority and deploy."""
        self.before = {name: lab.secret(name) for name in KEYS}
        self.certificate, key = folder / "house.crt", folder / "house.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", key, "-out", self.certificate, "-days", "900", "-subj", "/CN=A house's own",
             "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign,cRLSign"],
            check=True, capture_output=True,
        )  # fmt: skip
        self.variables = {
            "elasticsearch_snapshots": FOLDER,
            "elasticsearch_ca_certificate": str(self.certificate),
            "elasticsearch_ca_key": str(key),
        }
        self.key = key.read_text()
        code, self.said = lab.deploy(
            "storage.yml", {**self.variables, "elasticsearch_rotate_keys": True}, "--diff", "-vvv"
        )
        assert code == 0, self.said[-6000:]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """Afterwards the storage is as before."""
    yield Chosen(tmp_path_factory.mktemp("house"))
    code, said = lab.deploy("storage.yml")
    assert code == 0, said
    assert ask("GET", "/_slm/policy") == {}, "snapshots are taken that nobody wants any more"
    delete = ask("GET", "/_ilm/policy/wrtflow-flows")["wrtflow-flows"]["policy"]["phases"]["delete"]
    assert "wait_for_snapshot" not in delete["actions"]


def test_the_second_run_changes_nothing_and_keeps_the_keys(chosen):
    new = {name: lab.secret(name) for name in KEYS}
    code, said = lab.deploy("storage.yml", chosen.variables)
    assert code == 0, said
    assert "changed=0 " in said, said
    assert {name: lab.secret(name) for name in KEYS} == new


class TestKeys:
    def test_all_are_new_and_the_old_ones_are_revoked(self, chosen):
        for name in KEYS:
            assert lab.secret(name) != chosen.before[name], name
            assert accepted(chosen.before[name]) == 401, f"{name}: the old one is still good"
            assert accepted(lab.secret(name)) == 200, name

    def test_neither_they_nor_the_authority_s_key_are_in_the_output(self, chosen):
        secrets = [
            *(lab.secret(name) for name in KEYS),
            *chosen.before.values(),
            *chosen.key.split("\n")[1:3],
        ]
        assert [secret for secret in secrets if secret in chosen.said] == []


class TestAuthority:
    def test_it_signs_what_elasticsearch_shows(self, chosen, host):
        assert requests.get(lab.ELASTICSEARCH, verify=chosen.certificate, timeout=10).status_code == 401
        assert CA.read_text() == chosen.certificate.read_text()
        key = host.file("/etc/elasticsearch/certs/ca.key")
        assert (key.user, key.mode, key.content_string) == ("root", 0o600, chosen.key)

    @pytest.mark.usefixtures("chosen")
    def test_the_retention_trusts_it(self, host):
        host.check_output("wrtflow-retention")


@pytest.mark.usefixtures("chosen")
class TestSnapshots:
    @pytest.fixture(autouse=True)
    def clean(self):
        """Begin without snapshots, and leave no month behind."""
        ask("DELETE", "/_snapshot/wrtflow/*")
        yield
        for index in (OLD, LAST, "restored-1999.05"):
            ask("DELETE", f"/{index}?ignore_unavailable=true")

    def flow(self, index: str) -> None:
        ask(
            "PUT",
            f"/{index}/_create/a?refresh=true",
            {"@timestamp": f"{index[-7:-3]}-{index[-2:]}-01T00:00:00Z"},
        )

    def snapshot(self) -> str:
        """Have the policy take one; return its name when it is complete."""
        name = ask("POST", "/_slm/policy/wrtflow-flows/_execute")["snapshot_name"]

        def complete() -> bool:
            return ask("GET", f"/_snapshot/wrtflow/{name}")["snapshots"][0]["state"] == "SUCCESS"

        lab.wait_for("a snapshot", complete, 60)
        return name

    def test_the_policy_takes_flows_each_night_and_a_month_waits_for_it(self):
        policy = ask("GET", "/_slm/policy/wrtflow-flows")["wrtflow-flows"]["policy"]
        assert policy["config"] == {"indices": ["network-*"], "include_global_state": False}
        assert (policy["repository"], policy["retention"]["expire_after"]) == ("wrtflow", "365d")
        delete = ask("GET", "/_ilm/policy/wrtflow-flows")["wrtflow-flows"]["policy"]["phases"]["delete"]
        assert delete["actions"]["wait_for_snapshot"] == {"policy": "wrtflow-flows"}

    def test_a_month_too_many_goes_only_when_a_snapshot_has_it(self, host):
        self.flow(OLD)
        settings = json.loads(lab.run("logserver", "cat", "/etc/wrtflow/retention.json"))
        lab.put(
            "logserver", "/root/retention.json", json.dumps({**settings, "max_size": "1b"}).encode(), 0o600
        )
        refused = host.run("wrtflow-retention --settings /root/retention.json")
        assert refused.rc == 1
        assert re.search(
            rf"{OLD} would be dropped, but no snapshot in wrtflow has the whole month", refused.stderr
        )
        assert count(OLD) == 1
        self.snapshot()
        assert f"{OLD}: dropped" in host.run("wrtflow-retention --settings /root/retention.json").stdout
        assert count(OLD) == -1

    def test_a_month_that_is_gone_comes_back_beside_the_others(self):
        """As the README has it."""
        self.flow(OLD)
        name = self.snapshot()
        ask("DELETE", f"/{OLD}")
        restore = {
            "indices": OLD, "include_global_state": False, "ignore_index_settings": ["index.lifecycle.*"],
            "rename_pattern": "network-(.+)", "rename_replacement": "restored-$1",
        }  # fmt: skip
        ask("POST", f"/_snapshot/wrtflow/{name}/_restore?wait_for_completion=true", restore)
        assert (count(OLD), count("restored-1999.05")) == (-1, 1)
        assert (
            "lifecycle"
            not in ask("GET", "/restored-1999.05/_settings")["restored-1999.05"]["settings"]["index"]
        )

    def test_all_months_come_back_after_a_loss(self):
        """As the README has it."""
        self.flow(OLD)
        self.flow(LAST)
        name = self.snapshot()
        ask("DELETE", f"/{OLD},{LAST}")
        every = {"indices": "network-*", "include_global_state": False}
        ask("POST", f"/_snapshot/wrtflow/{name}/_restore?wait_for_completion=true", every)
        assert (count(OLD), count(LAST)) == (1, 1)
