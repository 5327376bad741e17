#!/usr/bin/env python3
"""Write the reference tables: each role's variables into its README, the documents' fields into docs/.

Variables come from each role's meta/argument_specs.yml, fields from files/flow-document.yml and
files/health-document.yml. tests/unit/test_reference.py fails if a table is out of date.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[1]
BEGIN, END = "<!-- tools/reference.py writes this table -->", "<!-- end of the table -->"

HEAD = """# The flow document

Each finished flow is one document. Its fields have the names of the Elastic Common Schema (ECS) 8; `wrtflow.*` are our
own. A field that has no value is left out. `tools/reference.py` writes this page from `files/flow-document.yml`.

"""

HEALTH = """# The health document

A health document has the chain's state in one minute. The indices are `wrtflow-health-YYYY.MM`. There are two kinds:
one document a minute for each router (`event.dataset` is `wrtflow.router`), and one for everything else
(`wrtflow.collector`). A counter has the count of its minute: counters can be added up, other fields can't. A field that
has no value is left out. `tools/reference.py` writes this page from `files/health-document.yml`.

"""


def _table(*rows: tuple[str, ...]) -> str:
    head, *body = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows)
    rule = " | ".join("---" for _ in rows[0])
    return "".join(f"| {row} |\n" for row in (head, rule, *body))


def _default(option: dict[str, typing.Any]) -> str:
    value = option.get("default")
    if option.get("required"):
        return "required"
    if value in ("", None):
        return ""
    if isinstance(value, str) and "{{" in value:
        # A long expression stands, with its reason, in defaults/main.yml.
        found = re.fullmatch(r"\{\{ (\w+) \}\}", value)
        return f"`{found[1]}`" if found else "computed"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _type(option: dict[str, typing.Any]) -> str:
    inner = option.get("elements")
    return f"{option['type']} of {inner}" if inner else str(option["type"])


def variables(role: Path) -> str:
    """Return the table of a role's variables."""
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    rows = []
    for name, option in specs["options"].items():
        about = option["description"]
        about = " ".join(about) if isinstance(about, list) else about
        rows.append((f"`{name}`", _type(option), _default(option), " ".join(about.split())))
    return _table(("variable", "type", "default", "meaning"), *rows)


def fields() -> str:
    """Return the reference of the flow document."""
    document = yaml.safe_load((PROJECT / "files/flow-document.yml").read_text())
    rows = [
        (f"`{each['name']}`", each["type"], "always" if each.get("always") else "", each["about"])
        for each in document["flow_fields"]
    ]
    aliases = [(f"`{name}`", f"`{field}`") for name, field in document["flow_aliases"].items()]
    return (
        HEAD
        + _table(("field", "type", "present", "meaning"), *rows)
        + "\nThese names work in every query, as aliases. All but `event.end` are the article's.\n\n"
        + _table(("alias", "field"), *aliases)
    )


def health() -> str:
    """Return the reference of the health document."""
    document = yaml.safe_load((PROJECT / "files/health-document.yml").read_text())
    rows = [
        (
            f"`{each['name']}`",
            each["type"],
            each["in"],
            "yes" if each.get("counter") else "",
            each["about"],
        )
        for each in document["health_fields"]
    ]
    return HEALTH + _table(("field", "type", "kind", "counter", "meaning"), *rows)


def pages() -> Iterator[tuple[Path, str]]:
    """Yield each page's path, and the text that it must have."""
    for readme in sorted(PROJECT.glob("roles/*/README.md")):
        before, found, rest = readme.read_text().partition(BEGIN)
        if found:
            yield readme, f"{before}{BEGIN}\n{variables(readme.parent)}{END}{rest.partition(END)[2]}"
    yield PROJECT / "docs/flow-document.md", fields()
    yield PROJECT / "docs/health-document.md", health()


def main() -> None:
    """Write the pages that are out of date."""
    for path, text in pages():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(path.relative_to(PROJECT))


if __name__ == "__main__":
    main()
