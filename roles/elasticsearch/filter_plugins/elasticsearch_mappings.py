"""Ansible filter: the fields of flow or health documents as an Elasticsearch mapping."""

from __future__ import annotations

from typing import Any

# Types that know ignore_malformed: the document is kept, the malformed value is not indexed.
LENIENT = {"date", "ip", "geo_point", "long", "integer", "double"}


def field(about: dict[str, Any]) -> dict[str, Any]:
    """Return the mapping of one field."""
    mapping: dict[str, Any] = {"type": about["type"]}
    if about["type"] in LENIENT:
        mapping["ignore_malformed"] = True
    if about["type"] == "keyword":
        # Lucene refuses a document with a term beyond 32,766 bytes.
        mapping["ignore_above"] = 1024
    if about.get("normalizer"):
        mapping["normalizer"] = about["normalizer"]
    if about.get("unindexed"):
        mapping["index"] = False
    return mapping


def elasticsearch_mappings(document: dict[str, Any], dynamic: str) -> dict[str, Any]:
    """Return the mappings for a document as files/flow-document.yml or files/health-document.yml describes it."""
    properties: dict[str, Any] = {}
    fields = document.get("flow_fields") or document["health_fields"]
    flat = {about["name"]: field(about) for about in fields}
    flat |= {name: {"type": "alias", "path": path} for name, path in document.get("flow_aliases", {}).items()}
    for name, mapping in flat.items():
        *parents, leaf = name.split(".")
        level = properties
        for parent in parents:
            level = level.setdefault(parent, {"properties": {}})["properties"]
        level[leaf] = mapping
    return {"dynamic": str(dynamic).lower(), "properties": properties}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by its name."""
        return {"elasticsearch_mappings": elasticsearch_mappings}
