"""The router's role, as far as it can be judged without a router (molecule/router has one)."""

import re
from pathlib import Path

import jinja2
import pytest
import yaml

ROLE = Path(__file__).parents[2] / "roles/openwrt"
MODULES = sorted(ROLE.glob("library/*.sh"))


def variables() -> dict:
    return yaml.safe_load((ROLE / "vars/main.yml").read_text())


@pytest.fixture(params=MODULES, ids=lambda path: path.stem)
def module(request) -> Path:
    return request.param


def test_a_module_takes_what_its_documentation_says(module):
    documentation = yaml.safe_load(module.with_suffix(".yml").read_text())["DOCUMENTATION"]
    script = module.read_text()
    taken = {
        *re.findall(r"json_get_(?:var|values|type) \w+ (\w+)$", script, re.MULTILINE),
        *re.findall(r"json_select (\w+)\b", script),
        *(name for names in re.findall(r"json_get_vars (.*)", script) for name in names.split()),
        *(
            name
            for names in re.findall(r"for kind in (.*); do json_get_values", script)
            for name in names.split()
        ),
    }
    assert taken - {"_ansible_check_mode"} == set(documentation["options"])
    assert documentation["module"] == module.stem


def test_a_module_heeds_check_mode(module):
    """molecule/router tries it; here no new module may forget it."""
    script = module.read_text()
    assert "WANT_JSON" in script.splitlines()[1]
    code = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("#"))
    changes_nothing = module.stem == "openwrt_info"
    assert ('"$_ansible_check_mode"' in code) is not changes_nothing


def test_every_file_below_files_is_installed():
    there = sorted(
        f"/{path.relative_to(ROLE / 'files')}" for path in (ROLE / "files").rglob("*") if path.is_file()
    )
    assert sorted(program["path"] for program in variables()["__openwrt_programs"]) == there


def ulogd_conf(**changed: object) -> list[str]:
    """Render ulogd.conf; return its lines without comments."""
    values = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    values |= {
        "ansible_managed": "managed",
        "openwrt_collector_address": "192.168.1.10",
        "__openwrt_router": {"hostname": "OpenWrt"},
    } | changed
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    text = environment.from_string((ROLE / "templates/etc/ulogd.conf.j2").read_text()).render(values)
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("transport", ["syslog", "json"])
def test_ulogd_loads_the_plugins_of_its_one_stack_and_reads_their_sections(transport):
    lines = ulogd_conf(openwrt_flow_transport=transport)
    stacks = [line for line in lines if line.startswith("stack=")]
    assert len(stacks) == 1
    instances = dict(part.split(":") for part in stacks[0].removeprefix("stack=").split(","))
    loaded = [re.search(r"_([A-Z0-9]+)\.so", line).group(1) for line in lines if line.startswith("plugin=")]
    assert sorted(loaded) == sorted(instances.values())
    sections = {line.strip("[]") for line in lines if line.startswith("[")} - {"global"}
    assert sections <= set(instances)
    assert "hash_enable=0" in lines
    assert not any(line.startswith("reliable=") for line in lines)


def test_ulogd_s_events_and_the_router_s_name_in_json():
    assert "event_mask=0x00000005" in ulogd_conf()
    lines = ulogd_conf(openwrt_flow_transport="json")
    assert {
        "event_mask=0x00000004",
        'mode="tcp"',
        'host="192.168.1.10"',
        'port="5140"',
        'device="OpenWrt"',
    } <= set(lines)
    assert 'device="attic"' in ulogd_conf(openwrt_flow_transport="json", openwrt_log_hostname="attic")
