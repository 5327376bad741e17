"""What each panel of the dashboards asks of Elasticsearch: the aggregations of its file, as Kibana sends them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[3] / "files/dashboards"

#: Kibana reckons the interval of a histogram from the time range.
INTERVAL = "1h"


def load(kind: str) -> dict[str, dict[str, Any]]:
    """Return the attributes of all objects of a kind by their short names."""
    return {
        file.stem: json.loads(file.read_text())["attributes"]
        for file in sorted((FOLDER / kind).glob("*.json"))
    }


def query(kql: str) -> dict[str, Any]:
    """Return KQL (words, and/or/not, parentheses) as a query of Elasticsearch: it is Lucene's in small letters."""
    lucene = re.sub(r"\b(and|or|not)\b", lambda word: word[0].upper(), kql).replace(": ", ":")
    return {"query_string": {"query": lucene}} if kql else {"match_all": {}}


def asked(attributes: dict[str, Any], page: str = "overview") -> dict[str, Any]:
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
        return {**request, **body}
    metrics = {agg["id"]: agg for agg in state["aggs"] if agg["schema"] == "metric"}
    values = {
        number: {agg["type"]: {"field": agg["params"]["field"]}}
        for number, agg in metrics.items()
        if agg["type"] != "count"
    }
    inner = values
    for agg in reversed([agg for agg in state["aggs"] if agg["schema"] != "metric"]):
        inner = {**values, agg["id"]: {**bucket(agg, metrics), "aggs": inner}}
    return {**request, "size": 0, "track_total_hits": True, "aggs": inner}


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
    order = "_count" if metrics[params["orderBy"]]["type"] == "count" else params["orderBy"]
    terms = {"field": params["field"], "size": params["size"], "order": {order: params["order"]}}
    if params["missingBucket"]:
        terms["missing"] = "__missing__"
    return {"terms": terms}


def rows(attributes: dict[str, Any], aggregations: dict[str, Any]) -> list[dict[str, Any]]:
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

    return walk(aggregations, None, splits, {})
