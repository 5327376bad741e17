"""Stands for Elasticsearch in the tests of alerts and letter: answers searches from documents in memory.

It knows the few queries and aggregations that they use, and fails on any other. The scenario `default` asks the same of
the real one.
"""

import datetime
import itertools
from typing import Any

Document = dict[str, Any]


def value(document: Document, field: str) -> Any:
    """Return a field's value by its dotted name, None if it is absent."""
    for part in field.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document


def seconds(at: Any) -> float:
    return datetime.datetime.fromisoformat(at).timestamp()


def matches(query: Document, document: Document) -> bool:
    ((kind, about),) = query.items()
    if kind == "bool":
        assert set(about) <= {"filter", "should", "must_not", "minimum_should_match"}
        return (
            all(matches(each, document) for each in about.get("filter", []))
            and not any(matches(each, document) for each in about.get("must_not", []))
            and ("should" not in about or any(matches(each, document) for each in about["should"]))
        )
    if kind == "exists":
        return value(document, about["field"]) is not None
    ((field, wanted),) = about.items()
    found = value(document, field)
    if kind == "term":
        return found == wanted
    if kind == "terms":
        return found in wanted
    assert kind == "range", kind
    if found is None:
        return False
    if field == "@timestamp":
        found, wanted = seconds(found), {name: seconds(limit) for name, limit in wanted.items()}
    tests = {"gt": found.__gt__, "gte": found.__ge__, "lt": found.__lt__, "lte": found.__le__}
    return all(tests[name](limit) for name, limit in wanted.items())


def aggregated(aggs: Document, documents: list[Document]) -> Document:
    return {name: aggregation(about, documents) for name, about in aggs.items()}


def aggregation(about: Document, documents: list[Document]) -> Document:
    inner = about.get("aggs", {})

    def bucket(found: list[Document], **more: Any) -> Document:
        return {"doc_count": len(found), **more, **aggregated(inner, found)}

    (kind,) = set(about) - {"aggs"}
    asked = about[kind]
    if kind == "filter":
        return bucket([each for each in documents if matches(asked, each)])
    if kind == "filters":
        return {
            "buckets": {
                name: bucket([each for each in documents if matches(query, each)])
                for name, query in asked["filters"].items()
            }
        }
    if kind == "composite":
        fields = [next(iter(source.values()))["terms"]["field"] for source in asked["sources"]]
        names = [next(iter(source)) for source in asked["sources"]]
        rows = sorted(
            (tuple(value(each, field) for field in fields), number)
            for number, each in enumerate(documents)
            if all(value(each, field) is not None for field in fields)
        )
        after = tuple(asked["after"].values()) if "after" in asked else ()
        groups = [
            (key, list(group)) for key, group in itertools.groupby(rows, lambda row: row[0]) if key > after
        ]
        page = groups[: asked["size"]]
        buckets = [
            bucket([documents[number] for _, number in group], key=dict(zip(names, key, strict=True)))
            for key, group in page
        ]
        return {"buckets": buckets, **({"after_key": buckets[-1]["key"]} if buckets else {})}
    found = [value(each, asked["field"]) for each in documents]
    if kind == "terms":
        counts = sorted(
            {one for one in found if one is not None}, key=lambda one: (-found.count(one), str(one))
        )
        return {
            "buckets": [
                bucket([each for each in documents if value(each, asked["field"]) == one], key=one)
                for one in counts[: asked.get("size", 10)]
            ]
        }
    numbers = [seconds(one) * 1000 if isinstance(one, str) else one for one in found if one is not None]
    if kind == "sum":
        return {"value": float(sum(numbers))}
    assert kind in ("min", "max"), kind
    return {"value": (min if kind == "min" else max)(numbers) if numbers else None}


class Core:
    """Takes the place of Storage.ask."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.disks = {"node": 0.5}
        # Bytes by index.
        self.sizes: dict[str, int] = {}
        self.fault: Exception | None = None

    def ask(self, path: str, body: Document | None = None) -> Document:
        if self.fault:
            raise self.fault
        if path.startswith("/network-*/_stats/store?"):
            return {
                "indices": {
                    name: {"total": {"store": {"size_in_bytes": size}}} for name, size in self.sizes.items()
                }
            }
        if body is None:
            total = 1000
            return {
                "nodes": {
                    name: {
                        "name": name,
                        "fs": {"total": {"total_in_bytes": total, "available_in_bytes": total * (1 - used)}},
                    }
                    for name, used in self.disks.items()
                }
            }
        assert path.startswith("/network-*/_search?")
        assert body["size"] == 0
        found = [each for each in self.documents if matches(body["query"], each)]
        return {"aggregations": aggregated(body["aggs"], found)}
