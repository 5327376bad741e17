"""What each panel of the dashboards asks of Elasticsearch: the aggregations of its file, as Kibana sends them."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[3]
FOLDER = PROJECT / "files/dashboards"

_spec = importlib.util.spec_from_file_location(
    "saved_objects", PROJECT / "roles/kibana/filter_plugins/saved_objects.py"
)
saved_objects = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(saved_objects)

#: Kibana reckons the interval of a histogram from the time range.
INTERVAL = "1h"


def load(kind: str) -> dict[str, dict[str, Any]]:
    """Return the attributes of all objects of a kind by their short names."""
    return {
        file.stem: saved_objects.with_files(json.loads(file.read_text()), FOLDER)["attributes"]
        for file in sorted((FOLDER / kind).glob("*.json"))
    }


def query(kql: str) -> dict[str, Any]:
    """Return KQL (words, and/or/not, parentheses, < and >) as a query of Elasticsearch: it is almost Lucene's."""
    lucene = re.sub(r"\b(and|or|not)\b", lambda word: word[0].upper(), kql).replace(": ", ":")
    lucene = re.sub(r" ([<>]) ", r":\1", lucene)
    return {"query_string": {"query": lucene}} if kql else {"match_all": {}}


def asked(attributes: dict[str, Any], page: str = "home") -> dict[str, Any]:
    """Return the request of a visualization or a saved search on a dashboard, whose filters hold for it."""
    source, whole = (
        one["kibanaSavedObjectMeta"]["searchSourceJSON"] for one in (attributes, load("dashboard")[page])
    )
    request = {"query": {"bool": {"must": query(source["query"]["query"]), **filters(whole["filter"])}}}
    if "columns" in attributes:
        sort = [{field: order} for field, order in attributes["sort"]]
        return {**request, "sort": sort, "fields": attributes["columns"], "_source": False}
    state = attributes["visState"]
    if state["type"] == "vega":
        (body,) = [data["url"]["body"] for data in state["params"]["spec"]["data"] if "url" in data]
        return {**request, **completed(body)}
    metrics = {agg["id"]: agg for agg in state["aggs"] if agg["schema"] == "metric"}
    values = {
        number: {agg["type"]: {"field": agg["params"]["field"]}}
        for number, agg in metrics.items()
        if agg["type"] != "count"
    }
    # Above the innermost rows Kibana asks for figures only where the rows are shown, or ordered by them.
    shown = values if state["params"].get("showPartialRows") else {}
    inner = values
    for agg in reversed([agg for agg in state["aggs"] if agg["schema"] != "metric"]):
        split, by = bucket(agg, metrics), agg["params"].get("orderBy")
        order = {by: values[by]} if by in values else {}
        inner = {**shown, agg["id"]: {**split, "aggs": inner | order | split.get("aggs", {})}}
    return {**request, "size": 0, "track_total_hits": True, "aggs": inner}


def completed(value: Any) -> Any:
    """Return a Vega panel's request as Kibana completes it, but for the time range."""
    if isinstance(value, list):
        return [completed(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    done = {key: completed(inner) for key, inner in value.items() if key != "extended_bounds"}
    if "%autointerval%" in done.get("interval", ""):
        done["fixed_interval"] = INTERVAL
        del done["interval"]
    return done


def filters(pills: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the filters of the filter bar as clauses of a query."""
    return {
        clause: [pill["query"] for pill in pills if pill["meta"]["negate"] is negate]
        for clause, negate in (("filter", False), ("must_not", True))
    }


def bucket(agg: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Return one splitting aggregation."""
    params = agg["params"]
    if agg["type"] == "filters":
        return {
            "filters": {"filters": {one["label"]: query(one["input"]["query"]) for one in params["filters"]}}
        }
    if agg["type"] == "date_histogram":
        return {"date_histogram": {"field": params["field"], "fixed_interval": INTERVAL, "min_doc_count": 1}}
    if agg["type"] == "histogram":
        return {"histogram": {"field": params["field"], "interval": params["interval"], "min_doc_count": 1}}
    order, more = params["orderBy"], {}
    if order == "custom":
        by = params["orderAgg"]
        order, more = by["id"], {by["id"]: {by["type"]: {"field": by["params"]["field"]}}}
    elif metrics[order]["type"] == "count":
        order = "_count"
    terms = {"field": params["field"], "size": params["size"], "order": {order: params["order"]}}
    if params["missingBucket"]:
        terms["missing"] = "__missing__"
    return {"terms": terms, "aggs": more}


def rows(
    attributes: dict[str, Any], aggregations: dict[str, Any], flows: int | None = None
) -> list[dict[str, Any]]:
    """Return a panel's answer as the rows that Kibana shows: column label to value, deepest rows only."""
    state = attributes["visState"]
    aggs = {agg["id"]: agg for agg in state["aggs"]}
    splits = [number for number, agg in aggs.items() if agg["schema"] != "metric"]

    def walk(
        level: dict[str, Any], count: int | None, left: list[str], row: dict[str, Any]
    ) -> list[dict[str, Any]]:
        inner = level.get(left[0], {}).get("buckets", []) if left else []
        if isinstance(inner, dict):
            inner = [{"key": label, **one} for label, one in inner.items()]
        found = []
        for one in inner:
            params = aggs[left[0]]["params"]
            key = params.get("missingBucketLabel") if one["key"] == "__missing__" else one["key"]
            if one["doc_count"]:
                found += walk(
                    one, one["doc_count"], left[1:], {**row, params.get("customLabel", left[0]): key}
                )
        if found or (left and not state["params"].get("showPartialRows")):
            return found
        values = {
            agg["params"]["customLabel"]: count if agg["type"] == "count" else level[number]["value"]
            for number, agg in aggs.items()
            if agg["schema"] == "metric"
        }
        return [{**row, **values}]

    return walk(aggregations, flows, splits, {})
