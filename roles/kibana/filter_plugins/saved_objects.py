"""Kibana's saved objects, from readable files to what Kibana's import takes.

A file of the objects' folder holds one object. Kibana wants much of an object as JSON inside a string; in the files
it stands as plain JSON, and is packed here:

- a value under a name that ends in JSON (panelsJSON, searchSourceJSON …), the names in PACKED, and a Vega spec;
- {"$file": "name"} stands for the content of that file; what stands beside "$file" takes the place of the file's own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

#: What Kibana wants as a string of JSON, besides all that ends in JSON.
PACKED = {"visState", "spec", "fieldAttrs", "fieldFormatMap", "runtimeFieldMap"}


def saved_objects(folder: str, index_prefix: str = "network") -> list[dict[str, Any]]:
    """Return all objects of a folder (TYPE/NAME.json), made to read the indices of this prefix."""
    objects = [
        with_files(json.loads(file.read_text()), folder) for file in sorted(Path(folder).glob("*/*.json"))
    ]
    return [_pack(one) for one in json.loads(json.dumps(objects).replace("network-*", f"{index_prefix}-*"))]


def ndjson(objects: list[dict[str, Any]]) -> str:
    """Return objects as an import file: one a line."""
    return "".join(json.dumps(one) + "\n" for one in objects)


def object_keys(objects: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return what names the objects: type and id."""
    return [{"type": one["type"], "id": one["id"]} for one in objects]


def fingerprint(objects: list[dict[str, Any]], exported: str) -> str:
    """Return a digest of objects as sent and as Kibana exports them (NDJSON), whatever the order and the times."""
    stored = [
        {
            "type": one.get("type"),
            "id": one.get("id"),
            # In fieldAttrs Kibana counts how often somebody looks at a field.
            "attributes": {**one.get("attributes", {}), "fieldAttrs": None},
            "references": one.get("references"),
        }
        for one in map(json.loads, exported.splitlines())
    ]
    stored.sort(key=lambda one: (str(one["type"]), str(one["id"])))
    return hashlib.sha256(json.dumps([objects, stored], sort_keys=True).encode()).hexdigest()


def with_files(value: Any, folder: str | Path) -> Any:
    """Return a value in which no file is named any more: what they hold stands there."""
    if isinstance(value, list):
        return [with_files(inner, folder) for inner in value]
    if not isinstance(value, dict):
        return value
    own = {key: with_files(inner, folder) for key, inner in value.items() if key != "$file"}
    if "$file" not in value:
        return own
    content = with_files(json.loads((Path(folder) / value["$file"]).read_text()), folder)
    return content | own if own else content


def _pack(value: Any, name: str = "") -> Any:
    """Return a value with strings where Kibana wants them."""
    if isinstance(value, dict):
        value = {key: _pack(inner, key) for key, inner in value.items()}
    elif isinstance(value, list):
        value = [_pack(inner) for inner in value]
    if not isinstance(value, str) and (name.endswith("JSON") or name in PACKED):
        return json.dumps(value, separators=(",", ":"))
    return value


class FilterModule:
    """The filters, by the names that templates call them."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {
            "kibana_saved_objects": saved_objects,
            "kibana_ndjson": ndjson,
            "kibana_object_keys": object_keys,
            "kibana_fingerprint": fingerprint,
        }
