"""wrtflow.settings: the settings file becomes typed objects, and mistakes are named."""

import json
from pathlib import Path

import pytest
from wrtflow import settings


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(content))
    return path


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert settings.load(written(tmp_path, {})) == settings.Settings()


def test_values_get_the_types_of_their_fields(tmp_path: Path) -> None:
    content = {
        "home_networks": ["10.77.0.0/24"],
        "flow_timeout": 60,
        "names": {"devices": {"10.77.0.20": "laptop"}},
        "delivery": {"url": "https://storage:9200"},
    }
    loaded = settings.load(written(tmp_path, content))
    assert loaded.home_networks == ("10.77.0.0/24",)
    assert loaded.flow_timeout == 60
    assert loaded.names.devices == {"10.77.0.20": "laptop"}
    assert loaded.delivery.url == "https://storage:9200"
    assert loaded.state_file("state.sqlite") == Path("/var/lib/wrtflow/state.sqlite")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([], "object is expected"),
        ({"flow_timeuot": 60}, "unknown: flow_timeuot"),
        ({"names": {"resolver": []}}, "names: unknown: resolver"),
        ({"flow_timeout": "60"}, "flow_timeout"),
        ({"flow_timeout": True}, "flow_timeout"),
        ({"home_networks": "10.0.0.0/8"}, "home_networks"),
        ({"home_networks": [10]}, "home_networks"),
        ({"names": {"devices": {"10.0.0.1": None}}}, "devices.10.0.0.1"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, content: object, named: str) -> None:
    with pytest.raises(settings.SettingsError, match=named):
        settings.load(written(tmp_path, content))


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(settings.SettingsError, match="nowhere"):
        settings.load(tmp_path / "nowhere")
    (tmp_path / "half").write_text("{")
    with pytest.raises(settings.SettingsError, match="half"):
        settings.load(tmp_path / "half")
