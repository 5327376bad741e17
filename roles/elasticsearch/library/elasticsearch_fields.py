#!/usr/bin/python
"""Ansible module: the indices of existing months have the fields that were added after they were created."""

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
short_description: The indices of existing months have the fields that were added after they were created
description:
  - An index template applies to new indices only. This module adds the missing fields to the indices PREFIX-YYYY.MM.
  - A field that is mapped stays as it is, because Elasticsearch can't change a mapping. The next month has the new one.
options:
  prefix: {description: First part of the indices' names., required: true, type: str}
  properties: {description: The mapping's properties., required: true, type: dict}
  url: {description: "Elasticsearch's URL.", required: true, type: str}
  ca_path: {description: Certificate of Elasticsearch's authority., required: true, type: path}
  username: {description: The user that the module logs in as., type: str, default: elastic}
  password: {description: The password of username; only a dry run may leave it out., type: str}
  key: {description: An API key to log in with instead of username and password., type: str, default: ''}
author: wrtflow
"""

EXAMPLES = r"""
- name: Existing months have the field device.manufacturer
  elasticsearch_fields:
    prefix: network
    properties: {device: {properties: {manufacturer: {type: keyword}}}}
    url: https://192.168.1.10:9200
    ca_path: /etc/elasticsearch/certs/ca.crt
    password: "{{ elastic_password }}"
"""

RETURN = r"""
diff: {description: The fields that were missing in each month., type: dict, returned: always}
"""


def lacking(wanted: dict[str, Any], present: dict[str, Any]) -> dict[str, Any]:
    """Return the wanted properties that are missing in the present ones."""
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
    """Return the properties of every month; none in a dry run without a server."""
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
    """Add the missing fields and return the module's result."""
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
