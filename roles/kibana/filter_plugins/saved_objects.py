"""Convert Kibana's saved objects from readable files to Kibana's import format, and back.

A file of the objects' folder holds one object. Kibana wants parts of an object as JSON inside a string; in the files
they are plain JSON:

- Values under a name that ends in JSON (panelsJSON, searchSourceJSON …) or is in PACKED become strings.
- {"$file": "name"} is replaced by the content of that file. Other keys beside "$file" override the file's.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

#: Names of values that Kibana wants as a string of JSON, besides those that end in JSON.
PACKED = {"visState", "spec", "fieldAttrs", "fieldFormatMap", "runtimeFieldMap"}
#: Characters of a line in the files, without the last comma.
_WIDTH = 115


def saved_objects(folder: str, index_prefix: str = "network") -> list[dict[str, Any]]:
    """Return all objects of a folder (TYPE/NAME.json). They read the indices PREFIX-*."""
    objects = [
        with_files(json.loads(file.read_text()), folder) for file in sorted(Path(folder).glob("*/*.json"))
    ]
    return [_pack(one) for one in json.loads(json.dumps(objects).replace("network-*", f"{index_prefix}-*"))]


def ndjson(objects: list[dict[str, Any]]) -> str:
    """Return objects as an import file, one on each line."""
    return "".join(json.dumps(one) + "\n" for one in objects)


def object_keys(objects: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return type and id of each object."""
    return [{"type": one["type"], "id": one["id"]} for one in objects]


def fingerprint(objects: list[dict[str, Any]], exported: str) -> str:
    """Return a digest of the objects as sent and as Kibana exports them (NDJSON). Order and times do not count."""
    stored = [
        {
            "type": one.get("type"),
            "id": one.get("id"),
            # Kibana counts in fieldAttrs how often somebody looks at a field.
            "attributes": {**one.get("attributes", {}), "fieldAttrs": None},
            "references": one.get("references"),
        }
        for one in map(json.loads, exported.splitlines())
    ]
    stored.sort(key=lambda one: (str(one["type"]), str(one["id"])))
    return hashlib.sha256(json.dumps([objects, stored], sort_keys=True).encode()).hexdigest()


def with_files(value: Any, folder: str | Path) -> Any:
    """Return a value in which each {"$file": …} is replaced by that file's content."""
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
    """Return a value in Kibana's form: JSON in strings."""
    if isinstance(value, dict):
        value = {key: _pack(inner, key) for key, inner in value.items()}
    elif isinstance(value, list):
        value = [_pack(inner) for inner in value]
    if isinstance(value, str) or not (name.endswith("JSON") or name in PACKED):
        return value
    # People read a Vega specification in Kibana's editor.
    return text(value) if name == "spec" else json.dumps(value, separators=(",", ":"))


def files(exported: str, folder: str, index_prefix: str = "network") -> list[dict[str, str]]:
    """Compare Kibana's export (NDJSON) with the files of a folder; return path and new text of each file that differs.

    Equal parts stay as they are in the file: the order of names, and the names of shared files. Version stamps stay
    too, also those of panels: Kibana writes its own version or none, and the files must suit older versions.
    """
    changed = []
    for one in map(json.loads, exported.replace(f"{index_prefix}-*", "network-*").splitlines()):
        path = Path(folder) / one["type"] / f"{one['id'].removeprefix('wrtflow-')}.json"
        there = json.loads(path.read_text())
        # Kibana writes references in an order of its own.
        names = [reference["name"] for reference in there["references"]]
        one["references"].sort(key=lambda reference: [*names, reference["name"]].index(reference["name"]))
        parts = {name: _unpack(one[name]) for name in ("attributes", "references")}
        for panel in parts["attributes"].get("panelsJSON", []):
            panel["version"] = there["typeMigrationVersion"]
        new = text({**there, **{name: _as_in(there[name], part, folder) for name, part in parts.items()}})
        if new != path.read_text():
            changed.append({"path": str(path), "text": new})
    return changed


def text(value: Any) -> str:
    """Return a value as text, in the files' form."""
    return _lines(value, 0, 0) + "\n"


def _lines(value: Any, indent: int, used: int) -> str:
    """Return a value on one line if it is short enough, else with one line for each member."""
    flat = json.dumps(value, ensure_ascii=False)
    if not value or not isinstance(value, dict | list) or indent + used + len(flat) <= _WIDTH:
        return flat
    pairs = (
        [(f"{json.dumps(name, ensure_ascii=False)}: ", one) for name, one in value.items()]
        if isinstance(value, dict)
        else [("", one) for one in value]
    )
    held = ",\n".join(" " * (indent + 2) + name + _lines(one, indent + 2, len(name)) for name, one in pairs)
    start, end = "{}" if isinstance(value, dict) else "[]"
    return f"{start}\n{held}\n{' ' * indent}{end}"


def _as_in(there: Any, new: Any, folder: str) -> Any:
    """Return the new value. Parts that are equal to the old one keep its form."""
    old = with_files(there, folder)
    if old == new:
        return there
    if isinstance(new, list) and isinstance(there, list):
        known = {_name(one): was for one, was in zip(old, there, strict=True)}
        return [_as_in(known.get(_name(one)), one, folder) for one in new]
    if not isinstance(new, dict) or not isinstance(there, dict) or not isinstance(old, dict):
        return new
    if "$file" in there:
        shared = with_files({"$file": there["$file"]}, folder)
        if shared.keys() - new.keys():
            return new
        # Other objects share the file: differences go beside "$file".
        own = {name: one for name, one in new.items() if shared.get(name) != one or name in there}
    else:
        own = new
    order = [name for name in there if name in own] + [name for name in own if name not in there]
    kept = {"$file": there["$file"]} if "$file" in there else {}
    return kept | {name: _as_in(there.get(name), own[name], folder) for name in order}


def _name(one: Any) -> str:
    """Return what tells a thing in a list from the others: its name, else itself."""
    names = (
        [one[name] for name in ("panelIndex", "id", "name") if name in one] if isinstance(one, dict) else []
    )
    return json.dumps(names or one, sort_keys=True)


def _unpack(value: Any, name: str = "") -> Any:
    """Return a value with Kibana's JSON strings parsed."""
    if isinstance(value, str) and (name.endswith("JSON") or name in PACKED):
        try:
            value = json.loads(value)
        except ValueError:
            # A Vega specification may be HJSON.
            return value
    if isinstance(value, dict):
        return {key: _unpack(inner, key) for key, inner in value.items()}
    return [_unpack(inner) for inner in value] if isinstance(value, list) else value


class FilterModule:
    """The filters, by the names that templates call them."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {
            "kibana_saved_objects": saved_objects,
            "kibana_ndjson": ndjson,
            "kibana_files": files,
            "kibana_object_keys": object_keys,
            "kibana_fingerprint": fingerprint,
        }
