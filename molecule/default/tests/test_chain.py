"""The whole chain: send traffic through the router, compare the documents with the kernel's counters."""

import chain
import lab
import pytest
import requests

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")


@pytest.fixture(scope="module")
def run():
    return chain.run_traffic()


def test_every_flow_is_exact(run):
    wrong = chain.faults(run)
    assert not wrong, "\n".join([*wrong, "", "The collector says:", lab.health()])


def test_every_flow_is_searchable_soon_after_its_end(run):
    assert len(run.latency) == len(run.finished)
    assert max(run.latency.values()) < chain.SEARCHABLE_WITHIN, lab.health()


def test_nobody_reads_without_credentials():
    answer = requests.get(
        f"{lab.ELASTICSEARCH}/network-*/_search", verify=lab.SECRETS / "elasticsearch-ca.crt", timeout=10
    )
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/network-*/_search"),
        ("GET", "/_cluster/health"),
        ("DELETE", "/network-2026.11"),
        ("PUT", "/other-index/_doc/1?op_type=create"),
        ("PUT", "/_index_template/wrtflow-flows"),
    ],
)
def test_the_collectors_key_only_writes_flows(method, path):
    answer = requests.request(
        method,
        lab.ELASTICSEARCH + path,
        json={} if method == "PUT" else None,
        headers={"Authorization": f"ApiKey {lab.secret('collector.api-key')}"},
        verify=lab.SECRETS / "elasticsearch-ca.crt",
        timeout=10,
    )
    assert answer.status_code == 403, answer.text


def test_the_article_s_queries_find_the_flows(run):
    def count(query: str) -> int:
        found = lab.search(
            {"query_string": {"query": query, "analyze_wildcard": True}}, size=0, track_total_hits=True
        )
        return found["hits"]["total"]["value"]

    def made(site: str) -> int:
        return sum(1 for flow in run.finished if flow["site"] == site)

    assert count("hostname.server:*photoprint*") >= made("www.photoprint.example") > 0
    assert (
        count("geoip2.country.iso_code:CN AND hostname.client:camera") >= made("telemetry.gadget.example") > 0
    )
    assert count("nf_orig.PROTO:TCP") > 0
