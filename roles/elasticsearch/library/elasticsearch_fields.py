#!/usr/bin/python
"""Ansible module: the months that are there know the fields that a flow has got since they began."""

from __future__ import annotations

import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.elasticsearch_api import (
    CONNECTION,
    UNAUTHORIZED,
    Elasticsearch,
    ElasticsearchError,
    UnreachableError,
    conclude,
    reason,
)

DOCUMENTATION = r"""
module: elasticsearch_fields
short_description: The months that are there know the fields that a flow has got since they began
description:
  - An index template is for indices to come. This module adds the fields that the indices PREFIX-YYYY.MM lack.
  - What is mapped already stays as it is, since Elasticsearch can't change it; the next month has it in the new way.
options:
  prefix: {description: How the indices' names begin., required: true, type: str}
  properties: {description: The mapping's properties., required: true, type: dict}
  url: {description: Where Elasticsearch is., required: true, type: str}
  ca_path: {description: The authority of its certificate., required: true, type: path}
  username: {description: Who asks., type: str, default: elastic}
  password: {description: With which password; only a dry run may come without., type: str}
  key: {description: An API key to ask with instead., type: str, default: ''}
author: wrtflow
"""

RETURN = r"""
diff: {description: The fields that each month lacked., type: dict, returned: always}
"""


def lacking(wanted: dict[str, Any], present: dict[str, Any]) -> dict[str, Any]:
    """Return what of the wanted properties is not among those that are there."""
    found: dict[str, Any] = {}
    for name, mapping in wanted.items():
        if name not in present:
            found[name] = mapping
        elif "properties" in mapping and (
            inner := lacking(mapping["properties"], present[name].get("properties", mapping["properties"]))
        ):
            found[name] = {"properties": inner}
    return found


def names(properties: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of a mapping's fields."""
    found = []
    for name, mapping in properties.items():
        if "properties" in mapping:
            found += names(mapping["properties"], f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return sorted(found)


def mappings(server: Elasticsearch, prefix: str, check_mode: bool) -> dict[str, dict[str, Any]]:
    """Return the properties of every month; none in a dry run that comes before there is a server."""
    path = f"/{prefix}-*/_mapping"
    try:
        status, answer = server.ask("GET", path)
    except UnreachableError:
        if check_mode:
            return {}
        raise
    if check_mode and status == UNAUTHORIZED:
        return {}
    if status >= 300:
        raise ElasticsearchError(f"Elasticsearch refused GET {path} with {status}: {reason(answer)}")
    month = re.compile(re.escape(prefix) + r"-\d{4}\.\d{2}")
    return {
        index: about["mappings"].get("properties", {})
        for index, about in sorted(answer.items())
        if month.fullmatch(index)
    }


def ensure(server: Elasticsearch, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Add what is lacking and return the module's result."""
    added = {}
    for index, present in mappings(server, params["prefix"], check_mode).items():
        if properties := lacking(params["properties"], present):
            added[index] = names(properties)
            if not check_mode:
                server.must("PUT", f"/{index}/_mapping", {"properties": properties})
    return {"changed": bool(added), "diff": {"before": {}, "after": added}}


def main() -> None:
    """Run as a module."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "prefix": {"type": "str", "required": True},
            "properties": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    conclude(module, lambda server: ensure(server, module.params, module.check_mode))


if __name__ == "__main__":
    main()
