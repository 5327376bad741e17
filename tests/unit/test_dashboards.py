"""The dashboards: fields are those of a flow, references lead somewhere, Kibana 8.12 takes all, Vega draws the map."""

import calendar
import difflib
import importlib.util
import itertools
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import vl_convert
import yaml
from wrtflow import document

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "files/dashboards"

_spec = importlib.util.spec_from_file_location(
    "saved_objects", PROJECT / "roles/kibana/filter_plugins/saved_objects.py"
)
saved_objects = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(saved_objects)

_spec = importlib.util.spec_from_file_location("house", PROJECT / "molecule/dashboards/tests/house.py")
house = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(house)

FILES = sorted(FOLDER.glob("*/*.json"))
READABLE = {
    file.relative_to(FOLDER).with_suffix("").as_posix(): saved_objects.with_files(
        json.loads(file.read_text()), FOLDER
    )
    for file in FILES
}
SENT = saved_objects.saved_objects(str(FOLDER))
IDS = {(one["type"], one["id"]) for one in SENT}

CONTRACT = yaml.safe_load((PROJECT / "files/flow-document.yml").read_text())
FIELDS = {field["name"]: field for field in CONTRACT["flow_fields"]}
FIELDS |= {alias: FIELDS[path] for alias, path in CONTRACT["flow_aliases"].items()}
HEALTH = {
    field["name"]: field
    for field in yaml.safe_load((PROJECT / "files/health-document.yml").read_text())["health_fields"]
}
RUNTIME = READABLE["index-pattern/flows"]["attributes"]["runtimeFieldMap"]

#: What Kibana 8.12 stamps, and every attribute that it knows of each type: it refuses any other with a 400.
STAMPS = {"index-pattern": "7.11.0", "search": "7.9.3", "visualization": "8.5.0", "dashboard": "8.7.0",
          "map": "8.4.0", "links": None}  # fmt: skip
ATTRIBUTES = {
    "index-pattern": "title name timeFieldName allowNoIndex fieldAttrs fieldFormatMap runtimeFieldMap",
    "links": "title description layout links",
    "map": "title description layerListJSON mapStateJSON uiStateJSON",
    "search": "title description columns sort grid hideChart rowHeight kibanaSavedObjectMeta",
    "visualization": "title description visState uiStateJSON version kibanaSavedObjectMeta",
    "dashboard": "title description timeRestore timeFrom timeTo refreshInterval version optionsJSON panelsJSON "
    "kibanaSavedObjectMeta controlGroupInput",
}
METRICS = {"count", "sum", "min", "max", "avg", "cardinality"}
BUCKETS = {"terms", "date_histogram", "histogram", "filters"}

NUMBERS = {"byte", "integer", "long", "double"}
#: What each aggregation can reckon with.
TYPES = {
    "sum": NUMBERS,
    "avg": NUMBERS,
    "histogram": NUMBERS,
    "min": NUMBERS | {"date"},
    "max": NUMBERS | {"date"},
    "cardinality": NUMBERS | {"keyword", "ip", "date"},
    "terms": NUMBERS | {"keyword", "ip", "boolean"},
    "date_histogram": {"date"},
    "geotile_grid": {"geo_point"},
    "geo_centroid": {"geo_point"},
}


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: one["attributes"] for name, one in READABLE.items() if one["type"] == kind}


VISUALIZATIONS = of_type("visualization")
DASHBOARDS = of_type("dashboard")
#: The pages that show flows, and the one that shows how the chain is.
PAGES = [*DASHBOARDS.keys() - {"dashboard/health"}, *of_type("map")]
DATA_VIEWS = of_type("index-pattern")
TABLES = {name: one for name, one in VISUALIZATIONS.items() if one["visState"]["aggs"]}
VEGA = {name: one for name, one in VISUALIZATIONS.items() if one["visState"]["type"] == "vega"}


def strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """All strings of an object, each with the name it stands under."""
    if isinstance(value, str):
        yield name, value
    for inner in value if isinstance(value, list) else ():
        yield from strings(inner, name)
    for below, inner in value.items() if isinstance(value, dict) else ():
        yield from strings(inner, below)


def fields_of(name: str) -> dict[str, dict[str, Any]]:
    """The fields of the documents that an object reads: of flows or of health."""
    one = READABLE[name]
    views = {r["id"] for r in one["references"] if r["type"] == "index-pattern"}
    return HEALTH if "wrtflow-health-documents" in views or "wrtflow-health-*" in json.dumps(one) else FIELDS


def filtered(value: Any) -> Iterator[str]:
    """All fields that an Elasticsearch query filters by."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield from inner if name in ("term", "range") else filtered(inner)
    for inner in value if isinstance(value, list) else ():
        yield from filtered(inner)


def queries(one: dict[str, Any]) -> list[str]:
    """All KQL of an object."""
    return [text for name, text in strings(one) if name == "query" and text]


def asked(query: str) -> list[str]:
    """The fields that a KQL query filters by."""
    return re.findall(r"([@\w.]+)\s*(?::|[<>]=?)", query)


def requests_of(name: str) -> list[dict[str, Any]]:
    """Return the queries of a Vega panel."""
    spec = VEGA[name]["visState"]["params"]["spec"]
    return [data["url"] for data in spec["data"] if "url" in data]


def clicks_of(name: str) -> list[str]:
    """Return the actions of a Vega panel's clicks."""
    signals = VEGA[name]["visState"]["params"]["spec"].get("signals", [])
    return [text for _, text in strings(signals) if "kibana" in text]


def clicked(name: str) -> list[str]:
    """The fields that a click on a panel filters by."""
    if name in VEGA:
        return [field for text in clicks_of(name) for field in re.findall(r"match_phrase: {'(.*?)'", text)]
    aggs = VISUALIZATIONS[name]["visState"]["aggs"]
    return [agg["params"]["field"] for agg in aggs if agg["type"] in BUCKETS - {"filters"}]


def reckoned(name: str) -> Iterator[tuple[str, str]]:
    """Each aggregation of a panel, with its field."""
    for agg in VISUALIZATIONS[name]["visState"]["aggs"]:
        for one in (agg, agg["params"].get("orderAgg")):
            if one and "field" in one["params"]:
                yield one["type"], one["params"]["field"]
    for request in requests_of(name) if name in VEGA else ():
        levels = [request["body"]["aggs"]]
        while levels:
            for one in levels.pop().values():
                yield from ((kind, of["field"]) for kind, of in one.items() if kind in TYPES)
                levels += [one["aggs"]] if "aggs" in one else []


def filters_of(name: str) -> list[dict[str, Any]]:
    """The filters of a whole page: of a dashboard or a map."""
    attributes = READABLE[name]["attributes"]
    if name in DASHBOARDS:
        return attributes["kibanaSavedObjectMeta"]["searchSourceJSON"]["filter"]
    return attributes["mapStateJSON"]["filters"]


def passes(name: str, flow: dict[str, str]) -> bool:
    """Tell whether a flow, given by its fields, passes all filters of a page."""
    enabled = [one for one in filters_of(name) if not one["meta"]["disabled"]]
    return all(
        (one["query"]["match_phrase"].items() <= flow.items()) != one["meta"]["negate"] for one in enabled
    )


class TestFields:
    @pytest.mark.parametrize("name", READABLE)
    def test_fields_are_those_of_a_flow(self, name):
        one = READABLE[name] if name not in VEGA else requests_of(name)
        under = {"field", "fieldName", "geoField", "timeFieldName", "%timefield%", "_source"}
        used = [text for key, text in strings(one) if key in under]
        used += filtered(one)
        used += [field for query in queries(READABLE[name]) for field in asked(query)]
        used += READABLE[name]["attributes"].get("columns", [])
        used += [field for field, _ in READABLE[name]["attributes"].get("sort", [])]
        assert [field for field in used if field not in fields_of(name)] == []

    @pytest.mark.parametrize("name", VISUALIZATIONS)
    def test_fields_are_of_a_type_that_can_be_reckoned_with(self, name):
        found = list(reckoned(name))
        assert found or VISUALIZATIONS[name]["visState"]["type"] == "markdown"
        types = {field: about["type"] for field, about in fields_of(name).items()}
        assert [(kind, field) for kind, field in found if types[field] not in TYPES[kind]] == []

    def test_a_click_on_a_picture_filters_by_fields_of_a_flow(self):
        filtering = {name for name in VEGA if clicks_of(name)}
        assert {f"visualization/{name}" for name in ("world", "devices", "phoning", "nights")} <= filtering
        for name in filtering:
            assert len(clicked(name)) >= len(clicks_of(name))
            assert [field for field in clicked(name) if field not in FIELDS] == []
            title = READABLE["index-pattern/flows"]["attributes"]["title"]
            assert all(f"'{title}'" in text for text in clicks_of(name))

    def test_the_examples_in_the_guide_work(self):
        text = VISUALIZATIONS["visualization/guide"]["visState"]["params"]["markdown"]
        examples = re.findall(r"`(.*?)`", text)
        assert examples
        assert [field for example in examples for field in asked(example) if field not in FIELDS] == []

    def test_what_people_choose_by_is_indexed(self):
        """A click and a control filter a whole page, and only the time range narrows it down as well.

        But for hour and weekday: each finds so many flows that to read their small columns is as quick.
        """
        chosen = [(name, field) for name in VISUALIZATIONS for field in clicked(name)]
        chosen += [
            (name, text) for name in DASHBOARDS for key, text in strings(READABLE[name]) if key == "fieldName"
        ]
        assert len(chosen) > 20
        unindexed = {field for name, field in chosen if fields_of(name)[field].get("unindexed")}
        assert unindexed == {"wrtflow.hour", "wrtflow.weekday"}

    @pytest.mark.parametrize("name", READABLE)
    def test_a_field_without_an_index_is_asked_beside_one_that_has_it(self, name):
        whole = [field for query in queries(READABLE[name]) for field in asked(query)]
        assert not whole or any(not fields_of(name)[field].get("unindexed") for field in whole)

    def test_controls_offer_words(self):
        """Kibana's lists of options are for keywords."""
        fields = {
            (name, text) for name in DASHBOARDS for key, text in strings(READABLE[name]) if key == "fieldName"
        }
        assert {fields_of(name)[field]["type"] for name, field in fields} == {"keyword"}

    def test_ports_are_encrypted_or_plain_text_or_neither(self):
        ports = {
            name: set(re.findall(r"\d+", json.loads((FOLDER / f"{name}.json").read_text())))
            for name in ("encrypted", "plain-text", "neither", "plain-text-and-mail")
        }
        assert not ports["encrypted"] & ports["plain-text"]
        assert ports["encrypted"] | ports["plain-text"] == ports["neither"]
        assert ports["plain-text-and-mail"] - ports["plain-text"] == {"465", "587", "993", "995"}

    def test_a_weekday_has_a_name_and_a_place_in_the_week(self):
        one = READABLE["index-pattern/flows"]["attributes"]["fieldFormatMap"]["wrtflow.weekday"]
        days = {entry["key"]: entry["value"] for entry in one["params"]["lookupEntries"]}
        assert one["id"] == "static_lookup"
        assert days == {str(number): day[:3] for number, day in enumerate(calendar.day_name, 1)}

    @pytest.mark.parametrize("name", DATA_VIEWS)
    def test_formats_and_labels_are_for_fields_that_are_there(self, name):
        view = DATA_VIEWS[name]
        named = {**view["fieldFormatMap"], **view.get("fieldAttrs", {})}
        assert named.keys() - fields_of(name).keys() - view.get("runtimeFieldMap", {}).keys() == set()

    def test_every_column_of_a_list_is_headed_by_a_word(self):
        labels = DATA_VIEWS["index-pattern/flows"]["fieldAttrs"]
        shown = {field for one in of_type("search").values() for field in [*one["columns"], "@timestamp"]}
        assert shown - labels.keys() == set()
        assert len({one["customLabel"] for one in labels.values()}) == len(labels)

    def test_every_count_of_bytes_is_shown_as_bytes(self):
        """In steps of 1000, as Vega's are. Kibana's own format for bytes puts an axis' ticks at powers of two."""
        formats = DATA_VIEWS["index-pattern/flows"]["fieldFormatMap"]
        of_bytes = {field for field in FIELDS if re.search(r"(?i)bytes$", field)}
        one = {"id": "number", "params": {"pattern": "0,0.[0]bd"}}
        assert {field for field, format_ in formats.items() if format_ == one} == of_bytes

    def test_runtime_fields_read_fields_that_are_there(self):
        read = [
            field
            for one in RUNTIME.values()
            for field in re.findall(r"doc\['(.*?)'\]", one["script"]["source"])
        ]
        assert read
        assert [field for field in read if field not in FIELDS] == []
        assert [name for name in RUNTIME if name in FIELDS] == []


class TestObjects:
    @pytest.mark.parametrize("name", READABLE)
    def test_files_are_named_as_what_they_hold(self, name):
        kind, short = name.split("/")
        assert (READABLE[name]["type"], READABLE[name]["id"]) == (kind, f"wrtflow-{short}")

    @pytest.mark.parametrize("one", SENT, ids=lambda one: one["id"])
    def test_stamps_are_as_low_as_the_oldest_kibana_s(self, one):
        stamps = (one["coreMigrationVersion"], one.get("typeMigrationVersion"))
        assert stamps == ("8.8.0", STAMPS[one["type"]])

    @pytest.mark.parametrize("one", SENT, ids=lambda one: one["id"])
    def test_attributes_are_known_to_kibana_and_of_its_shape(self, one):
        assert set(one["attributes"]) <= set(ATTRIBUTES[one["type"]].split())
        for name, value in one["attributes"].items():
            if name.endswith("JSON") or name in saved_objects.PACKED:
                json.loads(value)

    @pytest.mark.parametrize("one", SENT, ids=lambda one: one["id"])
    def test_references_lead_to_objects_that_are_sent_along(self, one):
        assert [r for r in one["references"] if (r["type"], r["id"]) not in IDS] == []
        names = [r["name"] for r in one["references"]]
        assert len(names) == len(set(names))

    @pytest.mark.parametrize(
        "name", [name for name in READABLE if READABLE[name]["type"] not in ("dashboard", "links")]
    )
    def test_what_reads_flows_refers_to_the_data_view(self, name):
        text = json.dumps(READABLE[name]["attributes"])
        wanted = re.findall(r'"index(?:Pattern)?RefName": "(.*?)"', text)
        assert [r["name"] for r in READABLE[name]["references"]] == wanted

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_a_dashboard_s_references_are_its_panels_controls_and_drilldowns(self, name):
        attributes, wanted = DASHBOARDS[name], set()
        for panel in attributes["panelsJSON"]:
            number = panel["panelIndex"]
            wanted.add((f"{number}:{panel['panelRefName']}", panel["type"]))
            events = panel["embeddableConfig"]["enhancements"].get("dynamicActions", {}).get("events", [])
            for event in events:
                factory = event["action"]["factoryId"]
                assert factory == "DASHBOARD_TO_DASHBOARD_DRILLDOWN", "any other needs a paid licence"
                assert event["action"]["config"]["useCurrentFilters"]
                assert event["action"]["config"]["useCurrentDateRange"]
                wanted.add((f"{number}:drilldown:{factory}:{event['eventId']}:dashboardId", "dashboard"))
        for control in attributes["controlGroupInput"]["panelsJSON"]:
            wanted.add((f"controlGroup_{control}:optionsListDataView", "index-pattern"))
        wanted |= {(one["meta"]["indexRefName"], "index-pattern") for one in filters_of(name)}
        assert {(r["name"], r["type"]) for r in READABLE[name]["references"]} == wanted

    def test_every_object_is_shown_somewhere(self):
        shown = {
            (r["type"], r["id"]) for one in SENT if one["type"] == "dashboard" for r in one["references"]
        }
        assert {key for key in IDS if key[0] in ("visualization", "search", "links")} - shown == set()

    def test_links_lead_to_all_pages_from_every_page(self):
        pages, references = READABLE["links/pages"]["attributes"], READABLE["links/pages"]["references"]
        assert {one["id"] for one in references} == {one["id"] for one in SENT if one["type"] == "dashboard"}
        assert [link["destinationRefName"] for link in pages["links"]] == [one["name"] for one in references]
        assert [link["order"] for link in pages["links"]] == list(range(len(references)))
        for link in pages["links"]:
            assert link["type"] == "dashboardLink"
            # Health documents have no device, so a filter by one would leave nothing.
            filters = link["id"] != "health"
            kept = {"useCurrentFilters": filters, "useCurrentDateRange": True, "openInNewTab": False}
            assert link["options"] == kept
        for name in DASHBOARDS:
            assert ("links", "wrtflow-pages") in {(r["type"], r["id"]) for r in READABLE[name]["references"]}

    def test_a_click_leads_from_one_page_to_another(self):
        for name in DASHBOARDS:
            drilldowns = [r for r in READABLE[name]["references"] if ":drilldown:" in r["name"]]
            assert READABLE[name]["id"] not in {r["id"] for r in drilldowns}
        targets = {r["id"] for r in READABLE["dashboard/home"]["references"] if ":drilldown:" in r["name"]}
        assert targets == {"wrtflow-device", "wrtflow-site", "wrtflow-phoning-home"}

    def test_the_guide_leads_to_the_map(self):
        """Relative to /app/dashboards, so that it holds in every space and behind every proxy."""
        text = VISUALIZATIONS["visualization/guide"]["visState"]["params"]["markdown"]
        assert set(re.findall(r"\]\((.*?)\)", text)) == {
            f"maps/map/{one['id']}" for one in SENT if one["type"] == "map"
        }

    def test_nothing_is_loaded_from_elsewhere(self):
        """An address is a click's target, or the name of Vega's language, which nobody fetches."""
        found = {
            (one["id"], where)
            for one in SENT
            for where in re.findall(r"https?://[\w.]+", json.dumps(one["attributes"]))
        }
        named = {(READABLE[name]["id"], "https://vega.github.io") for name in VEGA}
        assert found == named | {("wrtflow-flows", "https://stat.ripe.net")}
        link = READABLE["index-pattern/flows"]["attributes"]["fieldFormatMap"]["destination.ip"]
        assert (link["id"], link["params"]["type"]) == ("url", "a")


class TestPanels:
    @pytest.mark.parametrize("name", TABLES)
    def test_aggregations_are_kibana_s_and_ordered_by_one_another(self, name):
        aggs = {agg["id"]: agg for agg in TABLES[name]["visState"]["aggs"]}
        assert len(aggs) == len(TABLES[name]["visState"]["aggs"])
        for agg in aggs.values():
            assert agg["type"] in (METRICS if agg["schema"] == "metric" else BUCKETS)
            if agg["type"] == "terms" and agg["params"]["orderBy"] == "custom":
                assert agg["params"]["orderAgg"]["type"] in METRICS
            elif agg["type"] == "terms":
                assert aggs[agg["params"]["orderBy"]]["schema"] == "metric"

    @pytest.mark.parametrize("name", [name for name in TABLES if TABLES[name]["visState"]["type"] == "table"])
    def test_rows_without_a_value_are_kept(self, name):
        """Kibana fills in keywords only; rows that lack a number at their end are shown as partial rows."""
        state = TABLES[name]["visState"]
        terms = [agg["params"] for agg in state["aggs"] if agg["type"] == "terms"]
        fields = fields_of(name)
        assert [
            t["field"] for t in terms if t["missingBucket"] and fields[t["field"]]["type"] != "keyword"
        ] == []
        for outer, inner in itertools.pairwise(terms):
            # A row is partial only where nothing at all follows: so it is split first by what decides that.
            decided = (outer["field"], inner["field"]) == ("network.transport", "destination.port")
            always = fields[inner["field"]].get("always") or inner["field"] in asked(queries(TABLES[name])[0])
            assert always or inner["missingBucket"] or (decided and state["params"]["showPartialRows"])

    @pytest.mark.parametrize("name", TABLES)
    def test_filters_are_pictures_and_no_column(self, name):
        """Kibana can't name such a column: its head would say "filters"."""
        state = TABLES[name]["visState"]
        assert state["type"] != "table" or "filters" not in {agg["type"] for agg in state["aggs"]}

    @pytest.mark.parametrize("name", VISUALIZATIONS)
    def test_titles_are_the_same_inside_and_outside(self, name):
        assert VISUALIZATIONS[name]["visState"]["title"] == VISUALIZATIONS[name]["title"]

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_panels_lie_side_by_side(self, name):
        taken = set()
        for panel in DASHBOARDS[name]["panelsJSON"]:
            grid = panel["gridData"]
            assert (grid["i"], panel["panelRefName"]) == (panel["panelIndex"], f"panel_{panel['panelIndex']}")
            cells = {
                (x, y)
                for x in range(grid["x"], grid["x"] + grid["w"])
                for y in range(grid["y"], grid["y"] + grid["h"])
            }
            assert not cells & taken, f"{panel['panelIndex']} lies on another panel"
            assert grid["x"] + grid["w"] <= 48
            taken |= cells
        assert len(taken) == 48 * (1 + max(y for _, y in taken)), "there are holes"

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_controls_are_the_dashboard_s_own(self, name):
        group = DASHBOARDS[name]["controlGroupInput"]
        assert {control["type"] for control in group["panelsJSON"].values()} == {"optionsListControl"}
        assert [c["explicitInput"]["id"] for c in group["panelsJSON"].values()] == list(group["panelsJSON"])
        fields = [c["explicitInput"]["fieldName"] for c in group["panelsJSON"].values()]
        common = ["wrtflow.device", "destination.geo.country_name", "destination.registered_domain",
                  "network.direction"]  # fmt: skip
        # What comes from outside has its place and its network at the source.
        outside = ["wrtflow.device", "source.geo.country_name", "source.as.organization.name"]
        of_page = {"dashboard/outside": outside, "dashboard/health": ["observer.hostname"]}
        assert fields == of_page.get(name, common)

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_controls_are_of_kibana_s_shape(self, name):
        """A width that Kibana does not know imports, and then fails on opening the page."""
        group = DASHBOARDS[name]["controlGroupInput"]
        assert group["controlStyle"] in {"oneLine", "twoLine"}
        assert group["chainingSystem"] in {"HIERARCHICAL", "NONE"}
        assert {c["width"] for c in group["panelsJSON"].values()} <= {"small", "medium", "large"}
        assert [c["order"] for c in group["panelsJSON"].values()] == list(range(len(group["panelsJSON"])))


class TestAccessPoints:
    """What passes an access point passes the edge as well: each page counts it once."""

    @pytest.mark.parametrize("name", PAGES)
    def test_a_flow_of_an_access_point_is_not_counted(self, name):
        assert passes(name, {"observer.type": document.ROUTER})
        assert not passes(name, {"observer.type": document.ACCESS_POINT})

    @pytest.mark.parametrize("name", PAGES)
    def test_the_filter_bar_says_what_the_filter_does(self, name):
        for one in filters_of(name):
            meta = one["meta"]
            assert {meta["key"]: meta["params"]["query"]} == one["query"][f"match_{meta['type']}"]
            assert meta["key"] in FIELDS
            # A pinned one would go along to pages that are none of ours.
            assert one["$state"] == {"store": "appState"}

    def test_what_is_on_a_page_heeds_its_filters(self):
        for name in VEGA:
            assert [(r["%context%"], r["%timefield%"]) for r in requests_of(name)] == [(True, "@timestamp")]
        for one in DASHBOARDS.values():
            assert one["controlGroupInput"]["ignoreParentSettingsJSON"]["ignoreFilters"] is False
        for one in of_type("map").values():
            assert all(layer["sourceDescriptor"]["applyGlobalQuery"] for layer in one["layerListJSON"])


class TestPacking:
    def test_other_indices_are_read_everywhere(self):
        text = saved_objects.ndjson(saved_objects.saved_objects(str(FOLDER), "flows"))
        assert "network-*" not in text
        assert text.count("flows-*") == saved_objects.ndjson(SENT).count("network-*") >= 3

    def test_one_line_is_one_object(self):
        lines = saved_objects.ndjson(SENT).splitlines()
        assert [json.loads(line) for line in lines] == SENT

    def test_a_fingerprint_changes_with_what_is_sent_and_with_what_is_there(self):
        there = [{**one, "updated_at": "2026-01-01", "version": "WzEsMV0="} for one in SENT]
        now = saved_objects.fingerprint(SENT, saved_objects.ndjson(there))
        later = [{**one, "updated_at": "2027-01-01", "version": "WzIsMV0="} for one in reversed(there)]
        assert saved_objects.fingerprint(SENT, saved_objects.ndjson(later)) == now
        counted = [{**one, "attributes": {**one["attributes"], "fieldAttrs": "{}"}} for one in there]
        assert saved_objects.fingerprint(SENT, saved_objects.ndjson(counted)) == now
        edited = [{**there[0], "attributes": {"title": "mine"}}, *there[1:]]
        assert saved_objects.fingerprint(SENT, saved_objects.ndjson(edited)) != now
        assert saved_objects.fingerprint(SENT[:-1], saved_objects.ndjson(there)) != now
        assert saved_objects.fingerprint(SENT, "") != now


class TestExport:
    """An edit in Kibana becomes a change of the files, and nothing else does."""

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        return Path(shutil.copytree(FOLDER, tmp_path / "objects"))

    @staticmethod
    def exported(identifier: str = "", edit: Callable[[dict[str, Any]], Any] = lambda one: None) -> str:
        """Kibana's export of all objects, one of them edited: as Kibana packs it, with stamps and times of its own."""
        objects = json.loads(json.dumps(SENT))
        for one in objects:
            one |= {
                "created_at": "2026-01-01",
                "managed": False,
                "version": "WzEsMV0=",
                "typeMigrationVersion": "8.9.0",
            }
            if f"{one['type']}/{one['id']}" == identifier:
                readable = saved_objects._unpack(one["attributes"])
                # As 8.12 saves a page.
                for panel in readable.get("panelsJSON", []):
                    del panel["version"]
                edit(readable)
                one["attributes"] = saved_objects._pack(readable)
        return saved_objects.ndjson(objects)

    def diff(self, folder: Path, *edited: Any) -> list[str]:
        """The lines that go (-) and come (+)."""
        changed = saved_objects.files(self.exported(*edited), str(folder))
        lines = [
            line
            for one in changed
            for line in difflib.ndiff(Path(one["path"]).read_text().splitlines(), one["text"].splitlines())
        ]
        return [line[0] + line[1:].strip() for line in lines if line[0] in "+-"]

    @pytest.mark.parametrize("file", [file for file in FOLDER.rglob("*.json") if file.name != "world.json"])
    def test_files_are_written_as_an_export_writes_them(self, file):
        assert saved_objects.text(json.loads(file.read_text())) == file.read_text()

    def test_nothing_changes_where_nobody_edited(self, folder):
        assert self.diff(folder) == []

    def test_a_title(self, folder):
        assert self.diff(folder, "visualization/wrtflow-week", lambda one: one.update(title="Our week")) == [
            '-"title": "Hours of the week",', '+"title": "Our week",',
        ]  # fmt: skip

    def test_a_setting_that_others_share_stands_beside_the_shared_file(self, folder):
        def edit(one: dict[str, Any]) -> None:
            one["visState"]["params"]["legendPosition"] = "bottom"

        assert self.diff(folder, "visualization/wrtflow-bytes-over-time", edit) == [
            '-"params": {"$file": "bars.json", "legendSize": "large"}',
            '+"params": {"$file": "bars.json", "legendSize": "large", "legendPosition": "bottom"}',
        ]

    def test_a_panel_is_made_larger_and_another_goes(self, folder):
        def edit(one: dict[str, Any]) -> None:
            one["panelsJSON"] = [panel for panel in one["panelsJSON"] if panel["panelIndex"] != "week"]
            one["panelsJSON"][2]["gridData"]["w"] = 48

        lines = self.diff(folder, "dashboard/wrtflow-device", edit)
        assert [line for line in lines if line[0] == "+"] == [
            '+"gridData": {"x": 0, "y": 11, "w": 48, "h": 11, "i": "down-and-up"},'
        ]
        assert len(lines) == 10, "the panel that went has eight lines"

    def test_a_part_of_a_vega_specification(self, folder):
        def edit(one: dict[str, Any]) -> None:
            spec = one["visState"]["params"]["spec"]
            spec["marks"][0]["encode"]["update"]["x"]["band"] = 0.4
            one["visState"]["params"]["spec"] = json.dumps(spec, indent=4)

        lines = self.diff(folder, "visualization/wrtflow-figures", edit)
        assert '+"x": {"scale": "place", "field": "key", "band": 0.4},' in lines
        assert '"$file": "glance.json",' in (folder / "visualization/figures.json").read_text()

    def test_a_text_of_a_shared_file(self, folder):
        def edit(one: dict[str, Any]) -> None:
            one["kibanaSavedObjectMeta"]["searchSourceJSON"]["query"]["query"] = "destination.port: 80"

        assert self.diff(folder, "visualization/wrtflow-plain-text", edit) == [
            '-"query": {"query": {"$file": "plain-text-and-mail.json"}, "language": "kuery"},',
            '+"query": {"query": "destination.port: 80", "language": "kuery"},',
        ]

    def test_another_prefix_stays_out_of_the_files(self, folder):
        ours = self.exported().replace("network-*", "flows-*")
        assert saved_objects.files(ours, str(folder), "flows") == []


def answer(*places: tuple[str, str, str | None, float, float, int]) -> dict[str, Any]:
    """What Elasticsearch says to the map: (country code, name, city, latitude, longitude, bytes) for each place."""
    countries = [
        {
            "key": code, "doc_count": 3, "bytes": {"value": float(size)}, "devices": {"value": 2},
            "name": {"buckets": [{"key": name, "doc_count": 3}]},
        }
        for code, name, _, _, _, size in places
    ]  # fmt: skip
    tiles = [
        {
            "key": "7/1/1", "doc_count": 3, "bytes": {"value": float(size)},
            "middle": {"count": 3, "location": {"lat": lat, "lon": lon}}, "city": {"buckets": [{"key": city}]},
        }
        for _, _, city, lat, lon, size in places
        if city
    ]  # fmt: skip
    return {"aggregations": {"countries": {"buckets": countries}, "places": {"buckets": tiles}}}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """A document's fields by their dotted names."""
    if not isinstance(value, dict) or name.endswith("location"):
        return {name: value}
    return {
        path: one
        for key, inner in value.items()
        for path, one in flat(inner, f"{name}.{key}".strip(".")).items()
    }


def matches(query: dict[str, Any], one: dict[str, Any]) -> bool:
    """Tell whether a document matches a filter of the Vega panels."""
    ((kind, of),) = query.items()
    if kind == "bool":
        return all(matches(inner, one) for inner in of["filter"])
    if kind == "query_string":
        field, _, ports = of["query"].partition(": ")
        return str(one.get(field)) in re.findall(r"\d+", ports)
    ((field, wanted),) = of.items()
    value = one.get(field)
    if kind == "range":
        return value is not None and wanted.get("gt", -1) < value < wanted.get("lt", math.inf)
    return value in wanted if kind == "terms" else value == wanted


def answered(aggs: dict[str, Any], ones: list[dict[str, Any]]) -> dict[str, Any]:
    """What Elasticsearch answers to the aggregations of the Vega panels."""
    return {name: _answered({**one}, ones) for name, one in aggs.items()}


def _answered(agg: dict[str, Any], ones: list[dict[str, Any]]) -> dict[str, Any]:
    inner = agg.pop("aggs", {})
    ((kind, of),) = agg.items()

    def bucket(some: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {**more, "doc_count": len(some), **answered(inner, some)}

    if kind == "filter":
        return bucket([one for one in ones if matches(of, one)])
    if kind == "filters":
        return {"buckets": {
            name: bucket([one for one in ones if matches(query, one)]) for name, query in of["filters"].items()
        }}  # fmt: skip
    if kind == "top_hits":
        last = sorted(ones, key=lambda one: one["@timestamp"])[-of["size"] :]
        return {"hits": {"hits": [{"_source": {"wrtflow": {
            field.removeprefix("wrtflow."): one[field] for field in of["_source"]
        }}} for one in last]}}  # fmt: skip
    values = [one[of["field"]] for one in ones if of["field"] in one]
    if kind in ("terms", "date_histogram", "geotile_grid"):
        groups: dict[Any, list[dict[str, Any]]] = {}
        for one in ones:
            if (key := one.get(of["field"])) is not None:
                if kind == "date_histogram":
                    key = int(datetime.fromisoformat(key).timestamp()) // 3600 * 3_600_000
                groups.setdefault(str(key) if kind == "geotile_grid" else key, []).append(one)
        buckets = [bucket(some, key=key) for key, some in groups.items()]
        ((by, _),) = of.get("order", {"": 0}).items()
        if kind != "date_histogram":
            buckets.sort(key=lambda one: -(one[by]["value"] if by else one["doc_count"]))
        return {"buckets": buckets[: of.get("size")]}
    if kind == "geo_centroid":
        return {"location": values[0]}
    if kind == "cardinality":
        return {"value": len({str(value) for value in values})}
    numbers = [
        value if isinstance(value, int | float) else datetime.fromisoformat(value).timestamp() * 1000
        for value in values
    ]
    return {"value": sum(numbers) if kind == "sum" else {"min": min, "max": max}[kind](numbers, default=None)}


#: A week of an invented house, and a minute of its chain after the other.
FLOWS = [
    one
    for one in map(flat, house.House().flows(1_796_000_000_000, 7, 3000))
    if one["observer.type"] == document.ROUTER
]
MINUTES = [flat(one) for one in house.House().health(1_796_000_000_000, 1)]


class TestPictures:
    """Each Vega panel drawn by Vega itself, with the answer that Elasticsearch would give for an invented house."""

    @pytest.mark.parametrize(
        ("ones", "contract"), [(FLOWS, FIELDS), (MINUTES, HEALTH)], ids=["flows", "health"]
    )
    def test_the_house_keeps_to_the_contract(self, ones, contract):
        assert {field for one in ones for field in one} - contract.keys() == set()
        # Health documents are of two kinds, and only what is in both is in every one.
        always = {
            about["name"] for about in contract.values()
            if about.get("always") and about.get("in", "both") == "both"
        }  # fmt: skip
        assert {field for one in ones for field in always if field not in one} == set()

    def spec(self, name: str, *, empty: bool = False) -> dict[str, Any]:
        """A panel's specification as Kibana completes it: with an answer, and with a size."""
        (one,) = [one for one in SENT if one["id"] == f"wrtflow-{name}"]
        spec = json.loads(
            json.loads(one["attributes"]["visState"])["params"]["spec"].replace("kibanaAddFilter", "merge")
        )
        (source,) = [source for source in spec["data"] if "url" in source]
        url = source.pop("url")
        of_house = MINUTES if "health" in url["index"] else FLOWS
        source["values"] = {"aggregations": answered(url["body"]["aggs"], [] if empty else of_house)}
        return spec | {"width": 640, "height": 320, "autosize": "none"}

    def marks(self, name: str, kind: str) -> list[dict[str, Any]]:
        """All things of a kind in a picture, but for axes and legends."""
        scene = vl_convert.vega_to_scenegraph(self.spec(name))["scenegraph"]
        return [
            item for mark in scene["items"][0]["items"] if mark["marktype"] == kind and mark.get("role") == "mark"
            for item in mark["items"]
        ]  # fmt: skip

    @pytest.mark.parametrize("empty", [False, True], ids=["a house", "no flows"])
    @pytest.mark.parametrize("name", [name.removeprefix("visualization/") for name in VEGA])
    def test_every_picture_is_drawn_without_nonsense(self, name, empty):
        picture = vl_convert.vega_to_svg(self.spec(name, empty=empty))
        assert "<svg" in picture
        assert re.findall(r"NaN|undefined|Infinity|\bnull\b", picture) == []

    @pytest.mark.parametrize("name", ["device-country", "nights"])
    def test_the_matrix_has_a_square_for_each_device_and_country(self, name):
        outbound = [one for one in FLOWS if one["network.direction"] == "outbound"]
        if name == "nights":
            outbound = [one for one in outbound if one["wrtflow.hour"] < 6]
        often = Counter(one["destination.geo.country_name"] for one in outbound).most_common()
        countries = {country for country, times in often if times >= often[:20][-1][1]}
        pairs = Counter(
            (one["wrtflow.device"], one["destination.geo.country_name"])
            for one in outbound
            if one["destination.geo.country_name"] in countries
        )
        squares = self.marks(name, "rect")
        assert 0.8 * len(pairs) <= len(squares) <= len(pairs)
        assert len({square["fill"] for square in squares}) > 5

    def test_labels_of_device_and_country_keep_apart(self):
        labels = [one for one in self.marks("phoning", "text") if one["text"]]
        for align in ("left", "right"):
            heights = sorted(one["y"] for one in labels if one["align"] == align)
            assert 10 < len(heights) <= 16
            assert min(after - before for before, after in itertools.pairwise(heights)) > 10

    def test_figures_fit_beside_one_another(self):
        for name in ("figures", "site-figures", "inbound-figures", "health-figures"):
            figures = [one for one in self.marks(name, "text") if one.get("fontWeight") == "bold"]
            assert len(figures) >= 6
            widths = [0.62 * one["fontSize"] * len(one["text"]) for one in figures]
            assert max(widths) <= 640 / len(figures) + 1, name


class TestMap:
    """Drawn by Vega itself, with an answer of Elasticsearch in place of Kibana's request."""

    SOME = answer(
        ("DE", "Germany", "Frankfurt am Main", 50.1, 8.7, 2_500_000),
        ("CN", "China", "Shenzhen", 22.5, 114.1, 26_000),
        ("SG", "Singapore", None, 0, 0, 100),
    )

    @staticmethod
    def spec(data: dict[str, Any]) -> dict[str, Any]:
        """The map's Vega specification as Kibana would complete it: with the answer and the panel's size."""
        (one,) = [one for one in SENT if one["id"] == "wrtflow-world"]
        spec = json.loads(json.loads(one["attributes"]["visState"])["params"]["spec"])
        (ask,) = [source for source in spec["data"] if source.pop("url", None)]
        ask["values"] = data
        for signal in spec["signals"]:
            # A function of Kibana's.
            signal["on"][0]["update"] = signal["on"][0]["update"].replace("kibanaAddFilter", "merge")
        return spec | {"width": 600, "height": 300, "autosize": "none"}

    def marks(self, data: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The countries and the dots of the picture."""
        scene = vl_convert.vega_to_scenegraph(self.spec(data))["scenegraph"]
        groups = [mark["items"] for mark in scene["items"][0]["items"]]
        return groups[0], groups[1]

    def test_countries_are_shaded_by_bytes_and_the_others_are_not(self):
        countries, _ = self.marks(self.SOME)
        fills = Counter(country["fill"] for country in countries)
        assert fills.pop("#98a2b3") == len(countries) - 3
        assert sorted(fills.values()) == [1, 1, 1]

    def test_places_lie_where_they_are(self):
        _, (frankfurt, shenzhen) = self.marks(self.SOME)
        assert 300 < frankfurt["x"] < 330
        assert 450 < shenzhen["x"] < 500
        assert frankfurt["y"] < shenzhen["y"] < 150
        assert frankfurt["size"] > 5 * shenzhen["size"]

    def test_tooltips_name_country_and_city(self):
        spec = self.spec(self.SOME)
        for mark in spec["marks"]:
            # Tooltips are in no picture; descriptions are.
            update = mark["encode"]["update"]
            tip = f"({update.pop('tooltip')['signal']})"
            update["description"] = {"signal": f"{tip} ? {tip}.title + ', ' + {tip}.bytes : ''"}
        tips = re.findall(r'aria-label="([^"]+, [^" ]+B)"', vl_convert.vega_to_svg(spec))
        assert sorted(tips) == [
            "China, 26.0kB",
            "Frankfurt am Main, 2.50MB",
            "Germany, 2.50MB",
            "Shenzhen, 26.0kB",
            "Singapore, 100B",
        ]

    @pytest.mark.parametrize(
        "data", [answer(), {"hits": {"total": {"value": 0}}}], ids=["no flows", "no index"]
    )
    def test_a_house_without_flows_has_a_map_as_well(self, data):
        countries, dots = self.marks(data)
        assert len(countries) > 200
        assert dots == []

    def test_the_outlines_are_those_of_the_world(self):
        world = json.loads((FOLDER / "world.json").read_text())
        codes = [shape.get("id", "") for shape in world["objects"]["countries"]["geometries"]]
        assert [code for code, times in Counter(codes).items() if code and times > 1] == []
        assert set(codes) > {"DE", "CN", "US", "HU", "BR", "SG", "MT", "XK", "HK", "GI"}
        assert all(re.fullmatch("[A-Z]{2}|", code) for code in codes)
