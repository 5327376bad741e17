"""The reference tables are up to date with the specifications."""

from pathlib import Path

import pytest
import reference

PAGES = list(reference.pages())


@pytest.mark.parametrize(
    ("page", "text"), PAGES, ids=[str(page.relative_to(reference.PROJECT)) for page, _ in PAGES]
)
def test_a_table_is_up_to_date(page: Path, text: str):
    assert page.read_text() == text, "run tools/reference.py"
