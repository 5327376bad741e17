"""Let the unit tests import the lab's doubles and the roles' plugins, which are not Python packages."""

import sys
from pathlib import Path

import ansible.module_utils
import fakes
import pytest
from wrtflow import collector, health

PROJECT = Path(__file__).parents[2]
ELASTICSEARCH = PROJECT / "roles/elasticsearch"

sys.path += [
    str(PROJECT / "molecule/doubles"),
    str(ELASTICSEARCH / "library"),
    str(ELASTICSEARCH / "filter_plugins"),
]
ansible.module_utils.__path__.append(str(ELASTICSEARCH / "module_utils"))


@pytest.fixture(autouse=True)
def nothing_is_said(monkeypatch):
    """Forget which messages were logged: some are logged once an hour only."""
    monkeypatch.setattr(health, "_said", {})


@pytest.fixture
def chains(tmp_path, monkeypatch):
    """Make collectors with fake names, outbox and clock; keyword arguments are settings."""
    monkeypatch.setattr(collector, "Names", fakes.Names)
    monkeypatch.setattr(collector, "Outbox", fakes.Outbox)
    monkeypatch.setattr(collector.Collector, "_keep", lambda self: None)
    made = []

    def make(**settings):
        made.append(fakes.Chain(tmp_path, **settings))
        return made[-1]

    yield make
    for chain in made:
        chain.collector.stop()


@pytest.fixture
def chain(chains):
    """Such a collector with the usual settings."""
    return chains()
