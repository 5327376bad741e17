"""The index template: made from the flow document, and nothing but it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from elasticsearch_mappings import elasticsearch_mappings

PROJECT = Path(__file__).parents[2]
CONTRACT = yaml.safe_load((PROJECT / "files/flow-document.yml").read_text())
BY_NAME = {field["name"]: field for field in CONTRACT["flow_fields"]}


def leaves(properties: dict[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    found = {}
    for name, about in properties.items():
        if "properties" in about:
            assert set(about) == {"properties"}, f"{prefix}{name} is a field and an object"
            found.update(leaves(about["properties"], f"{prefix}{name}."))
        else:
            found[prefix + name] = about
    return found


HEALTH = yaml.safe_load((PROJECT / "files/health-document.yml").read_text())["health_fields"]
MAPPINGS = elasticsearch_mappings(CONTRACT, "strict")
LEAVES = leaves(MAPPINGS["properties"])


def test_every_field_and_alias_is_there_and_nothing_else():
    assert set(LEAVES) == set(BY_NAME) | set(CONTRACT["flow_aliases"])


def test_aliases_lead_to_fields():
    for name, path in CONTRACT["flow_aliases"].items():
        assert LEAVES[name] == {"type": "alias", "path": path}
        assert path in BY_NAME


@pytest.mark.parametrize("name", BY_NAME)
def test_a_field_is_mapped_as_the_contract_says(name):
    field, mapping = BY_NAME[name], LEAVES[name]
    assert mapping["type"] == field["type"]
    assert mapping.get("index", True) is not field.get("unindexed", False)
    assert mapping.get("normalizer") == field.get("normalizer")
    # No single value may cost a whole document.
    assert ("ignore_malformed" in mapping) == (field["type"] in ("date", "long", "ip", "geo_point"))
    assert ("ignore_above" in mapping) == (field["type"] == "keyword")


#: The article's field names that its two stories, their panels and the guide's examples filter by.
STORIES = {
    "hostname.server", "hostname.client", "geoip2.country.iso_code", "geoip2.country.names.en", "geoip2.city.names.en",
    "geoip2.location2", "nf_orig.SRC", "nf_orig.DST", "nf_orig.SPT", "nf_orig.DPT", "nf_orig.PROTO", "nf_orig.BYTES",
    "nf_reply.BYTES", "nf.SESSION_START", "nf.SESSION_END", "event.end",
}  # fmt: skip
#: Fields that every panel of a page, or a control at every key, filters by: they need an index.
LOOKED_UP = {
    "@timestamp", "observer.type", "observer.hostname", "network.direction", "network.transport", "source.ip",
    "source.domain", "source.mac", "destination.ip", "destination.port", "destination.domain",
    "destination.geo.country_name", "destination.geo.country_iso_code", "destination.geo.city_name",
    "wrtflow.domain_source", "wrtflow.first_seen", "wrtflow.device", "destination.registered_domain",
    "device.manufacturer",
}  # fmt: skip


def filters_of_dashboards() -> set[str]:
    """All that panels, controls, filter bars and clicks filter by."""
    found = set()
    for file in (PROJECT / "files/dashboards").glob("*/*.json"):
        text = file.read_text()
        if "wrtflow-health" in text and file.parent.name != "links":
            # Health documents have a template of their own, in which every field can be filtered by.
            continue
        found |= set(re.findall(r"""match_phrase\\*"?: *{ *\\*["'](.*?)\\*["']""", text))
        found |= set(re.findall(r'"(?:fieldName|geoField)": "(.*?)"', text))
        for query in re.findall(r'"query": "(.*?)(?<!\\)"', text):
            found |= set(re.findall(r"([@\w]+(?:\.\w+)+|@\w+)\s*(?::|[<>]=?)", query))
    return found


def test_what_dashboards_and_the_article_s_stories_filter_by_can_be_filtered():
    used = filters_of_dashboards()
    # The search above finds something of each kind: a filter bar, a control, a query, a click on the map.
    assert used >= {
        "observer.type",
        "wrtflow.device",
        "destination.geo.country_iso_code",
        "network.direction",
    }
    for name in used | STORIES | LOOKED_UP:
        mapping = LEAVES[LEAVES[name].get("path", name)]
        assert mapping.get("index", True) or mapping.get("doc_values", True), f"{name} can't be filtered by"


def test_what_every_page_filters_by_is_looked_up():
    assert [name for name in sorted(LOOKED_UP) if LEAVES[name].get("index") is False] == []


@pytest.mark.parametrize(("said", "meant"), [("false", "false"), (False, "false"), ("strict", "strict")])
def test_dynamic_is_what_elasticsearch_calls_it(said, meant):
    assert elasticsearch_mappings(CONTRACT, said)["dynamic"] == meant


def test_indices_can_be_sorted_as_the_role_sorts_them():
    defaults = yaml.safe_load((PROJECT / "roles/elasticsearch/defaults/main.yml").read_text())
    for name in defaults["elasticsearch_sort"]:
        assert BY_NAME[name]["type"] in ("ip", "keyword", "date", "long")
        assert "unindexed" not in BY_NAME[name]


def test_health_documents_have_a_template_of_their_own():
    found = leaves(elasticsearch_mappings({"health_fields": HEALTH}, "strict")["properties"])
    assert {name: about["type"] for name, about in found.items()} == {
        each["name"]: each["type"] for each in HEALTH
    }


def test_a_counter_is_a_number_of_one_kind_of_health_document():
    for each in HEALTH:
        assert each["in"] in ("both", "router", "collector")
        if each.get("counter"):
            assert (each["type"], each["in"] != "both") == ("long", True)
