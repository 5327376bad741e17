"""Links, headings, files, make's targets, variables and tests in the documentation exist."""

import re
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "roles/*/README.md", "molecule/**/*.md", "tests/**/*.md")
    for page in PROJECT.glob(pattern)
)
MAKEFILE = (PROJECT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))

OPTIONS = {
    name
    for specs in PROJECT.glob("roles/*/meta/argument_specs.yml")
    for name in yaml.safe_load(specs.read_text())["argument_specs"]["main"]["options"]
}
ROLES = sorted(path.name for path in PROJECT.glob("roles/*"))
#: Names that begin as variables do, and are none: modules and programs of the roles, the storage's own roles.
OTHER_NAMES = {path.stem for path in PROJECT.glob("roles/*/*/*") if path.suffix in (".py", ".sh")} | {
    "kibana_admin",
    "wrtflow_reader",
}


def code(page: Path) -> str:
    """Return a page's code: blocks and `words`, one a line."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    words = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return "\n".join([*blocks, *words])


def anchor(heading: str) -> str:
    """Return the address of a heading within its page, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def page(request) -> Path:
    return request.param


def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert fragment in [anchor(heading) for heading in headings], target


def test_make_has_the_targets(page):
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", code(page))) <= TARGETS


def test_files_exist(page):
    """Paths that begin with a folder of the project. A deployment makes secrets, and capitals stand for a name."""
    top = "|".join(
        re.escape(path.name) for path in PROJECT.iterdir() if path.is_dir() and path.name != ".venv"
    )
    for path in re.findall(rf"(?<![\w/.~-])((?:{top})/[\w./*{{}},-]*)", code(page)):
        if "/secrets" in path or re.search(r"\b[A-Z]{4,}\b", path.replace("README", "")):
            continue
        if not page.parent.joinpath(path).exists():
            assert list(PROJECT.glob(path.rstrip(".,"))), path


def test_variables_exist(page):
    # The changelog also names variables that are gone.
    text = "" if page.name == "CHANGELOG.md" else code(page)
    named = set(re.findall(rf"(?<![\w./-])((?:{'|'.join(ROLES)})_[a-z_]+)\b(?![./-])", text))
    assert sorted(named - OPTIONS - OTHER_NAMES - set(ROLES)) == []


def test_tests_exist(page):
    tests = "".join(
        path.read_text() for root in ("tests", "molecule") for path in PROJECT.glob(f"{root}/**/*.py")
    )
    for name in re.findall(r"\b(test_\w+)\b(?!\.py)", code(page)):
        assert f"def {name}(" in tests, name
