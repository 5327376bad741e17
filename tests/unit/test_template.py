"""The index template: made from the flow document, and nothing but it."""

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


@pytest.mark.parametrize(("said", "meant"), [("false", "false"), (False, "false"), ("strict", "strict")])
def test_dynamic_is_what_elasticsearch_calls_it(said, meant):
    assert elasticsearch_mappings(CONTRACT, said)["dynamic"] == meant


def test_indices_can_be_sorted_as_the_role_sorts_them():
    defaults = yaml.safe_load((PROJECT / "roles/elasticsearch/defaults/main.yml").read_text())
    for name in defaults["elasticsearch_sort"]:
        assert BY_NAME[name]["type"] in ("ip", "keyword", "date", "long")
        assert "unindexed" not in BY_NAME[name]
