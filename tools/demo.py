"""make demo: send traffic through the lab's router, and print who talks to whom, how much, and where.

If a flow is missing or its document is not exact, say so and exit with 1.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import chain
import lab


def size(count: float) -> str:
    """Return a number of bytes as text with a unit: 2.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def terms(field: str, size_limit: int = 10, **aggs: Any) -> dict[str, Any]:
    """Return a terms aggregation ordered by bytes."""
    return {
        "terms": {"field": field, "size": size_limit, "order": {"bytes": "desc"}},
        "aggs": {"bytes": {"sum": {"field": "network.bytes"}}, **aggs},
    }


def names(aggregation: dict[str, Any], limit: int = 4) -> str:
    """Return the first `limit` keys of a terms aggregation, separated by commas."""
    buckets = [str(bucket["key"]) for bucket in aggregation["buckets"]]
    return ", ".join(buckets[:limit]) + (" …" if len(buckets) > limit else "")


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table with aligned columns."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    print(f"\n{title}")
    for row in [header, ["─" * width for width in widths], *rows]:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def report() -> None:
    """Print what Elasticsearch knows about all flows of the lab."""
    answer = lab.search(
        {"match_all": {}},
        size=0,
        aggs={
            "devices": terms(
                "source.domain",
                countries=terms("destination.geo.country_iso_code"),
                sites=terms("destination.domain"),
            ),
            "countries": terms("destination.geo.country_name", sites=terms("destination.domain")),
            "sites": terms(
                "destination.domain",
                network=terms("destination.as.organization.name", 1),
                country=terms("destination.geo.country_iso_code", 1),
            ),
            "first": {"min": {"field": "event.start"}},
        },
        track_total_hits=True,
    )
    found = answer["aggregations"]
    print(f"{answer['hits']['total']['value']} flows since {found['first'].get('value_as_string', '-')}")
    table(
        "Devices",
        ["device", "flows", "bytes", "countries", "sites"],
        [
            [
                b["key"],
                str(b["doc_count"]),
                size(b["bytes"]["value"]),
                names(b["countries"]),
                names(b["sites"]),
            ]
            for b in found["devices"]["buckets"]
        ],
    )
    table(
        "Countries",
        ["country", "flows", "bytes", "sites"],
        [
            [b["key"], str(b["doc_count"]), size(b["bytes"]["value"]), names(b["sites"])]
            for b in found["countries"]["buckets"]
        ],
    )
    table(
        "Sites",
        ["site", "flows", "bytes", "country", "network"],
        [
            [
                b["key"],
                str(b["doc_count"]),
                size(b["bytes"]["value"]),
                names(b["country"]),
                names(b["network"]),
            ]
            for b in found["sites"]["buckets"]
        ],
    )


def main() -> int:
    """Run the demo and return its exit status."""
    print(f"  {'Traffic':<22}", end="", flush=True)
    began = time.monotonic()
    run = chain.run_traffic()
    print(f"{time.monotonic() - began:4.0f} s\n")
    wrong = chain.faults(run)
    report()
    slowest = max(run.latency.values(), default=0.0)
    print(
        f"\n{len(run.documents)} of {len(run.finished)} new flows are searchable, the slowest {slowest:.1f} s after"
        " its end; one is still open, as it should be."
    )
    if slowest > chain.SEARCHABLE_WITHIN:
        print(f"More than {chain.SEARCHABLE_WITHIN:.0f} s is slow: this machine is busy.")
    password, certificate = (
        (lab.SECRETS / name).relative_to(lab.PROJECT) for name in ("wrtflow.password", "elasticsearch-ca.crt")
    )
    if lab.kibana_is_real():
        print(f"\nKibana: {lab.KIBANA}  user: wrtflow  password: in {password}")
        print(f"        its certificate is signed by {certificate}")
    else:
        print("\nKibana: a stand-in without pages, because Elastic's servers can't be reached from here.")
    if wrong:
        print("\nNot as it should be:", *wrong, sep="\n  ", file=sys.stderr)
        print("\nThe collector says:", lab.health(), sep="\n", file=sys.stderr)
        return 1
    print("Every document holds exactly what the router's kernel counted.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except lab.LabError as error:
        sys.exit(f"demo: {error}")
