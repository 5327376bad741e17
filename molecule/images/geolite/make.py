"""Make the lab's City and ASN databases, in GeoLite2's schema, from places.yml.

make.py DIRECTORY [DATE] writes GeoLite2-City.mmdb and GeoLite2-ASN.mmdb there, built now or on another day.
Schema: MaxMind's "GeoIP2 and GeoLite City and Country Databases" and "GeoLite ASN Databases" documents.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from mmdb_writer import MMDBWriter
from netaddr import IPSet


def city_record(place: dict[str, Any]) -> dict[str, Any]:
    """Return a place as a record of GeoLite2-City. What places.yml does not say is left out."""
    record: dict[str, Any] = {
        "continent": {"code": place["continent"]["code"], "names": {"en": place["continent"]["name"]}},
        "country": {"iso_code": place["country"]["iso_code"], "names": {"en": place["country"]["name"]}},
        "registered_country": {
            "iso_code": place["country"]["iso_code"],
            "names": {"en": place["country"]["name"]},
        },
    }
    if "region" in place:
        region = place["region"]
        record["subdivisions"] = [{"iso_code": region["iso_code"], "names": {"en": region["name"]}}]
    if "city" in place:
        record["city"] = {"names": {"en": place["city"]}}
    if "location" in place:
        record["location"] = {**place["location"], "accuracy_radius": 20}
    return record


def as_record(place: dict[str, Any]) -> dict[str, Any]:
    """Return a place's autonomous system as a record of GeoLite2-ASN."""
    return {
        "autonomous_system_number": place["as"]["number"],
        "autonomous_system_organization": place["as"]["organization"],
    }


def main() -> None:
    """Write both databases."""
    built = datetime.fromisoformat(sys.argv[2]).replace(tzinfo=UTC) if sys.argv[2:] else datetime.now(UTC)
    places = yaml.safe_load(Path(__file__).with_name("places.yml").read_text())["places"]
    for kind, make, wanted in (("City", city_record, "country"), ("ASN", as_record, "as")):
        writer = MMDBWriter(
            ip_version=6,
            ipv4_compatible=True,
            database_type=f"GeoLite2-{kind}",
            languages=["en"],
            description=f"the lab's stand-in for GeoLite2 {kind}",
            float_type="f64",
        )
        for place in places:
            if wanted in place:
                writer.insert_network(IPSet(place["networks"]), make(place))
        with mock.patch("time.time", return_value=built.timestamp()):
            writer.to_db_file(f"{sys.argv[1]}/GeoLite2-{kind}.mmdb")


main()
