"""wrtflow.settings: the settings file becomes typed objects, and mistakes are named."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from wrtflow import settings

ROLE = Path(__file__).parents[2] / "roles/syslog_ng"
PACKAGE = ROLE / "files/python/wrtflow"


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


def role_settings() -> dict:
    """What the role writes to settings.json: the variables' names in place of values."""
    return yaml.safe_load((ROLE / "vars/main.yml").read_text())["__syslog_ng_settings"]


def leaves(value: object, name: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {name: value}
    return {
        key: leaf
        for inner in value
        for key, leaf in leaves(value[inner], f"{name}.{inner}" if name else inner).items()
    }


def fields(kind: type, name: str = "") -> dict[str, object]:
    found = {}
    for field in dataclasses.fields(kind):
        whole = f"{name}{field.name}"
        default = getattr(kind(), field.name)
        found |= fields(type(default), f"{whole}.") if dataclasses.is_dataclass(default) else {whole: default}
    return found


# Where the role installs things, and what no house has to set.
FIXED = {"delivery.ca_file", "delivery.api_key_file", "names.save_every"}


def test_the_role_writes_every_setting_and_no_other():
    written = {name for name, value in leaves(role_settings()).items() if value is not None}
    assert written == set(fields(settings.Settings)) - FIXED


def test_the_role_s_defaults_are_the_package_s():
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    known = fields(settings.Settings)
    for name, template in leaves(role_settings()).items():
        default = defaults[re.fullmatch(r"\{\{ (\w+) \}\}", str(template))[1]]
        if not str(default).startswith("{{"):  # several roles' own
            value = known[name]
            assert default == (list(value) if isinstance(value, tuple) else value), name


def test_every_setting_is_read_by_the_package():
    code = "".join(path.read_text() for path in PACKAGE.glob("*.py") if path.name != "settings.py")
    assert [name for name in fields(settings.Settings) if f".{name.rpartition('.')[2]}" not in code] == [
        "state_directory"  # by Settings.state_file()
    ]


def test_every_variable_of_the_role_is_used():
    role = "".join(
        path.read_text()
        for folder in ("templates", "tasks", "vars", "handlers")
        for path in (ROLE / folder).rglob("*")
        if path.is_file()
    )
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert [name for name in defaults if not re.search(rf"\b{name}\b", role)] == []
