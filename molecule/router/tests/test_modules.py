"""The role's modules on real uci, jshn and procd: changed, unchanged, check mode, odd values and failure."""

import json
from pathlib import Path

import feeds
import lab
import pytest

MODULES = Path(__file__).parents[3] / "roles/openwrt/library"


@pytest.fixture(scope="module", autouse=True)
def nobody_mends():
    """Services that are stopped here stay so."""
    lab.run("router", "/etc/init.d/wrtflow", "stop")
    yield
    lab.run("router", "/etc/init.d/wrtflow", "start")


def module(name: str, /, before: str = "", **arguments) -> dict:
    """Run a module of the role on the router, as Ansible does, and return its answer. Before: sh to run first."""
    lab.put("router", "/tmp/module.sh", (MODULES / f"{name}.sh").read_bytes())
    lab.put("router", "/tmp/module.json", json.dumps(arguments).encode())
    return json.loads(lab.run("router", "sh", "-c", f"{before}\nsh /tmp/module.sh /tmp/module.json"))


def test_info_tells_the_name_that_the_log_has():
    assert module("openwrt_info")["hostname"] == "OpenWrt"
    named = "uci set system.@system[0].log_hostname=front"
    assert module("openwrt_info", f"{named}; trap 'uci revert system' EXIT")["hostname"] == "front"


ODD = [
    "two words",
    "it's",
    'a "quoted" one',
    "$HOME `id` \\n",
    "Zürich 東京",
    "semi;colon & pipe|",
    "-n",
    "#no comment",
    "two\nlines",
]


@pytest.fixture
def config():
    lab.put("router", "/etc/config/labtest", b"config thing 'one'\n\toption kept 'as it was'\n")
    yield {"config": "labtest", "section": "one"}
    lab.run("router", "rm", "-f", "/etc/config/labtest")


@pytest.mark.parametrize("value", ODD)
def test_uci_keeps_odd_values(config, value):
    assert module("openwrt_uci", **config, options={"odd": value})["changed"]
    assert lab.run("router", "uci", "get", "labtest.one.odd") == value + "\n"
    assert not module("openwrt_uci", **config, options={"odd": value})["changed"]
    assert lab.run("router", "uci", "get", "labtest.one.kept") == "as it was\n"
    assert lab.run("router", "uci", "changes") == ""


def test_uci_keeps_lists_and_removes(config):
    assert module("openwrt_uci", **config, options={"list": ODD})["changed"]
    assert not module("openwrt_uci", **config, options={"list": ODD})["changed"]
    assert module("openwrt_uci", **config, options={"list": ODD[:1]})["changed"]
    assert lab.run("router", "uci", "-d", "|", "get", "labtest.one.list").strip("'\n") == ODD[0]
    assert module("openwrt_uci", **config, options={"list": None})["changed"]
    assert not module("openwrt_uci", **config, options={"list": None})["changed"]
    assert "list" not in lab.run("router", "uci", "show", "labtest")


def test_uci_in_check_mode_changes_nothing_and_shows_what_it_would(config):
    answer = module("openwrt_uci", **config, options={"kept": "new"}, _ansible_check_mode=True)
    assert answer["changed"]
    assert answer["diff"]["before"] == "kept='as it was'\n"
    assert answer["diff"]["after"] == "kept='new'\n"
    assert lab.run("router", "uci", "get", "labtest.one.kept") == "as it was\n"


def test_uci_refuses_what_is_not_there(config):
    assert "no section" in module("openwrt_uci", config="labtest", section="two", options={"a": "b"})["msg"]
    assert (
        "no /etc/config/nothing"
        in module("openwrt_uci", config="nothing", section="x", options={"a": "b"})["msg"]
    )
    lab.run("router", "uci", "set", "labtest.one.somebody=else")
    answer = module("openwrt_uci", **config, options={"a": "b"})
    assert answer["failed"]
    assert "uncommitted" in answer["msg"]
    lab.run("router", "uci", "revert", "labtest")


def test_file_content_mode_and_absence():
    content = "\n".join(ODD) + "\n\n"
    path = {"dest": "/tmp/labtest/file"}
    assert module("openwrt_file", **path, content=content, _ansible_check_mode=True)["changed"]
    assert lab.run("router", "sh", "-c", "ls /tmp/labtest 2>/dev/null || echo none") == "none\n"
    assert module("openwrt_file", **path, content=content, mode="0640")["changed"]
    assert lab.run("router", "cat", path["dest"]) == content
    assert lab.run("router", "ls", "-l", path["dest"]).startswith("-rw-r-----")
    assert not module("openwrt_file", **path, content=content, mode="0640")["changed"]
    assert module("openwrt_file", **path, content=content, mode="0755")["changed"]
    assert module("openwrt_file", **path, state="absent")["changed"]
    assert not module("openwrt_file", **path, state="absent")["changed"]
    assert module("openwrt_file", dest="/tmp", content="x")["failed"]


def test_file_lines_are_added_and_removed_and_the_others_stay():
    path = "/tmp/labtest-lines"
    lab.put("router", path, b"mine\nno newline at the end", mode=0o600)
    lines = {"dest": path, "lines": ["new one", "mine", "$HOME/*"]}
    assert module("openwrt_file", **lines, _ansible_check_mode=True)["changed"]
    assert module("openwrt_file", **lines)["changed"]
    assert lab.run("router", "cat", path) == "mine\nno newline at the end\nnew one\n$HOME/*\n"
    assert lab.run("router", "ls", "-l", path).startswith("-rw-------")
    assert not module("openwrt_file", **lines)["changed"]
    assert module("openwrt_file", dest=path, lines=["new one", "$HOME/*"], state="absent")["changed"]
    assert lab.run("router", "cat", path) == "mine\nno newline at the end\n"
    assert not module("openwrt_file", dest=path, lines=["new one", "$HOME/*"], state="absent")["changed"]


def test_a_folder_goes_with_all_that_is_in_it():
    lab.run("router", "sh", "-c", "mkdir -p /tmp/labtest/a; touch /tmp/labtest/a/b")
    assert module("openwrt_file", dest="/tmp/labtest", state="absent")["changed"]
    assert not module("openwrt_file", dest="/tmp/labtest", state="absent")["changed"]


def test_service_knows_who_runs_and_whose_configuration_is_newer():
    assert not module("openwrt_service", name="ulogd", enabled=True, state="started")["changed"]
    lab.run("router", "/etc/init.d/ulogd", "stop")
    assert module("openwrt_service", name="ulogd", state="started", _ansible_check_mode=True)["changed"]
    assert module("openwrt_service", name="ulogd", state="started")["changed"]
    lab.run("router", "touch", "-d", "2037-01-01 00:00:00", "/tmp/newer")
    assert module("openwrt_service", name="ulogd", state="started", config=["/tmp/newer"])["did"] == "restart"
    assert not module("openwrt_service", name="ulogd", state="started", config=["/etc/ulogd.conf"])["changed"]
    assert "no /etc/init.d/nothing" in module("openwrt_service", name="nothing", state="started")["msg"]


def test_service_enabled_and_stopped():
    """What is refreshed is restarted where it runs, and left alone where it does not."""
    assert not module("openwrt_service", name="cron", enabled=True)["changed"]
    assert module("openwrt_service", name="cron", enabled=False, _ansible_check_mode=True)["changed"]
    assert module("openwrt_service", name="cron", enabled=False)["changed"]
    assert module("openwrt_service", name="cron", enabled=True)["changed"]
    assert module("openwrt_service", name="ulogd", state="stopped")["did"] == "stop"
    assert not module("openwrt_service", name="ulogd", state="stopped")["changed"]
    assert not module("openwrt_service", name="ulogd", state="refreshed", renewed=True)["changed"]
    assert module("openwrt_service", name="ulogd", state="started")["did"] == "start"
    assert module("openwrt_service", name="ulogd", state="refreshed", renewed=True)["did"] == "restart"
    assert not module("openwrt_service", name="nothing", state="stopped")["changed"]


def test_service_renews_all_but_what_is_spared():
    """The log's daemon stays, since whoever logs from a jail has its socket."""
    log = {"name": "log", "state": "started", "spared": ["logd"]}
    before = lab.run("router", "pidof", "logd"), lab.run("router", "pidof", "logread")
    assert module("openwrt_service", **log, renewed=True, _ansible_check_mode=True)["did"] == "start"
    assert module("openwrt_service", **log, renewed=True)["did"] == "start"
    after = lab.run("router", "pidof", "logd"), lab.run("router", "pidof", "logread")
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert not module("openwrt_service", **log, config=["/etc/config/system"])["changed"]


def test_service_starts_the_log_that_a_former_run_has_only_configured():
    """Logd runs, and logread has never been started: a run may be interrupted before that."""
    log = {"name": "log", "state": "started", "spared": ["logd"], "config": ["/etc/config/system"]}
    lab.run(
        "router", "sh", "-ec",
        "cp -p /etc/config/system /tmp/system; uci delete system.@system[0].log_ip; uci commit system;"
        "/etc/init.d/log restart; while pidof logread; do sleep 1; done; mv /tmp/system /etc/config/system",
    )  # fmt: skip
    assert module("openwrt_service", **log, _ansible_check_mode=True)["did"] == "start"
    assert module("openwrt_service", **log)["did"] == "start"
    assert lab.run("router", "pidof", "logread")
    assert not module("openwrt_service", **log)["changed"]
    # Restarted with it, since its jail had the socket of the former logd.
    assert not module("openwrt_service", name="dnsmasq", state="refreshed")["changed"]


def test_service_renews_a_logread_that_is_older_than_logd():
    """It may wait for ever for the answer of the logd that has crashed."""
    log = {"name": "log", "state": "started", "spared": ["logd"]}
    before = lab.run("router", "pidof", "logread")
    another = "until pidof logd | grep -vx $killed; do sleep 1; done"
    lab.run("router", "sh", "-c", f"killed=$(pidof logd); kill -9 $killed; {another}")
    assert module("openwrt_service", **log, _ansible_check_mode=True)["did"] == "start"
    assert module("openwrt_service", **log)["did"] == "start"
    assert lab.run("router", "pidof", "logread") != before
    assert not module("openwrt_service", **log)["changed"]
    assert not module("openwrt_service", name="dnsmasq", state="refreshed")["changed"]


def test_service_knows_who_logs_to_the_socket_of_a_former_logd():
    dnsmasq = {"name": "dnsmasq", "state": "refreshed"}
    assert not module("openwrt_service", **dnsmasq)["changed"]
    lab.run("router", "/etc/init.d/log", "restart")
    assert module("openwrt_service", **dnsmasq, _ansible_check_mode=True)["did"] == "restart"
    assert module("openwrt_service", **dnsmasq)["did"] == "restart"
    assert not module("openwrt_service", **dnsmasq)["changed"]


@pytest.mark.long
def test_service_says_when_one_does_not_stay_up():
    good = lab.run("router", "cat", "/etc/ulogd.conf")
    try:
        lab.put("router", "/etc/ulogd.conf", b"[global]\n")
        answer = module("openwrt_service", name="ulogd", state="started", renewed=True)
        assert answer["failed"]
        assert "does not stay up" in answer["msg"]
    finally:
        lab.put("router", "/etc/ulogd.conf", good.encode())
        module("openwrt_service", name="ulogd", state="started", renewed=True)


@pytest.mark.long
def test_service_is_not_taken_in_by_a_process_that_will_not_end():
    """It is said to be running, though what is to follow it ends at once."""
    lab.put(
        "router", "/etc/init.d/labstubborn",
        b"""#!/bin/sh /etc/rc.common
START=99
USE_PROCD=1
start_service() {
    procd_open_instance
    procd_set_param command sh -c 'trap "" TERM; mkdir /tmp/labstubborn || exit; while sleep 1; do :; done'
    procd_close_instance
}
""", 0o755,
    )  # fmt: skip
    try:
        assert module("openwrt_service", name="labstubborn", state="started")["did"] == "start"
        answer = module("openwrt_service", name="labstubborn", state="started", renewed=True)
        assert "does not stay up" in answer.get("msg", "")
    finally:
        lab.run(
            "router",
            "sh",
            "-c",
            "/etc/init.d/labstubborn stop; rm -r /etc/init.d/labstubborn /tmp/labstubborn",
        )


def test_sysctl_is_set_now_and_kept():
    name, file = "net.netfilter.nf_conntrack_icmp_timeout", "/tmp/labtest.conf"
    former = lab.run("router", "cat", "/proc/sys/net/netfilter/nf_conntrack_icmp_timeout").strip()
    assert module("openwrt_sysctl", name=name, value="29", file=file, _ansible_check_mode=True)["changed"]
    assert module("openwrt_sysctl", name=name, value="29", file=file)["changed"]
    assert lab.run("router", "cat", "/proc/sys/net/netfilter/nf_conntrack_icmp_timeout") == "29\n"
    assert not module("openwrt_sysctl", name=name, value="29", file=file)["changed"]
    assert module("openwrt_sysctl", name=name, value=former, file=file)["changed"]
    assert module("openwrt_sysctl", name=name, file=file, state="absent")["changed"]
    assert module("openwrt_sysctl", name="net.nothing.of_that", value="1", file=file)["failed"]


def test_package_explains_what_is_not_in_the_feed():
    """A feed that is gone does no harm to one that is there."""
    assert not module("openwrt_package", name=["ulogd"])["changed"]
    assert module("openwrt_package", name=["ulogd-mod-xml"], _ansible_check_mode=True)["changed"]
    with feeds.added("127.0.0.1:1"):
        assert module("openwrt_package", name=["ulogd-mod-xml"])["changed"]
    assert not module("openwrt_package", name=["ulogd-mod-xml"])["changed"]
    assert module("openwrt_package", name=["ulogd-mod-xml"], state="absent")["changed"]
    answer = module("openwrt_package", name=["no-such-package"])
    assert answer["failed"]
    assert "no-such-package" in answer["msg"]


#: What package managers have been seen to print, and what is to be made of it.
PACKAGE_FAULTS = {
    "verify_pkg_installable: Only have 12kb available on filesystem /overlay, pkg ulogd needs 40": "no room",
    "ERROR: ulogd-2.0.9-r1: failed to extract usr/sbin/ulogd: No space left on device": "no room",
    "opkg_download: Failed to download http://downloads/Packages.gz, wget returned 4.": "does not reach",
    "WARNING: updating and opening https://downloads/packages.adb: DNS: transient error": "does not reach",
    "opkg_download: Failed to download https://downloads/Packages.gz, wget returned 5.": "does not trust",
    "ERROR: https://downloads/packages.adb: UNTRUSTED signature": "does not trust",
    "ERROR: unable to select packages:\n  ulogd (no such package)": "does not have one of: ulogd",
    "Unknown package 'ulogd'.": "does not have one of: ulogd",
    "Signature file download failed.\nRemove wrong Signature file.\nUnknown package 'ulogd'.": "not the signature",
    "opkg_lock: Could not lock /var/lock/opkg.lock": "The package manager failed",
}


def package_fault(add: str, update: str = "") -> dict:
    """Have a package manager say this when ulogd is to be installed. (apk is looked for first on every router.)"""
    lab.run("router", "mkdir", "-p", "/tmp/fake")
    lab.put("router", "/tmp/fake/update", update.encode())
    lab.put("router", "/tmp/fake/add", add.encode())
    fake = b"#!/bin/sh\ncd /tmp/fake; case $1 in update) cat update ;; add) cat add >&2; exit 1 ;; *) exit 1 ;; esac\n"
    lab.put("router", "/tmp/fake/apk", fake, mode=0o755)
    answer = module("openwrt_package", name=["ulogd"], before="export PATH=/tmp/fake:$PATH")
    assert answer["failed"]
    return answer


def test_a_feed_that_is_not_trusted_is_told_though_its_update_succeeds():
    """As opkg's: the list is gone, and the package unknown."""
    assert "does not trust" in package_fault("Unknown package 'ulogd'.", "Signature check failed.")["msg"]


def test_what_a_package_manager_said_of_a_fault_is_told_whole():
    """Not of what went well; opkg's errors of the feeds come long before those of the packages."""
    fault = " * opkg_download: Failed to download http://far.example/x/Packages.sig, wget returned 4.\n"
    noise = "".join(
        f"Downloading http://far.example/{n}/Packages.gz\nUpdated list of available packages in /var/opkg-lists/{n}\n"
        for n in range(6)
    )
    said = package_fault("Unknown package 'ulogd'.", f"Collected errors:\n{fault}\n{noise}")["msg"]
    assert "wget returned 4" in said
    assert "Updated list" not in said


@pytest.mark.parametrize("output", PACKAGE_FAULTS)
def test_package_faults_are_told_apart(output):
    answer = package_fault(output)
    assert PACKAGE_FAULTS[output] in answer["msg"]
    assert output.splitlines()[-1] in answer["msg"]


def test_what_was_there_before_is_noted_once(config):
    lab.run("router", "rm", "-rf", "/tmp/labformer", "/tmp/labfile")
    lab.put("router", "/tmp/labfile", b"line\n\n")
    note = {
        "directory": "/tmp/labformer",
        "uci": ["labtest.one.kept", "labtest.one.new"],
        "sysctls": ["net.netfilter.nf_conntrack_acct", "net.nothing"],
        "services": ["ulogd", "nothing"],
        "packages": ["ulogd", "nothing"],
        "files": ["/tmp/labfile", "/tmp/nothing"],
    }
    answer = module("openwrt_former", **note, _ansible_check_mode=True)
    assert answer["changed"]
    assert not module("openwrt_former", directory="/tmp/labformer", state="read")["noted"]
    assert module("openwrt_former", **note)["changed"]
    assert not module("openwrt_former", **note)["changed"]
    lab.put("router", "/tmp/labfile", b"changed since\n")
    lab.run("router", "sh", "-c", "uci set labtest.one.kept=changed; uci commit labtest")
    assert module("openwrt_former", **note | {"services": ["ulogd", "nothing", "cron"]})["changed"]
    former = module("openwrt_former", directory="/tmp/labformer", state="read")["former"]
    assert {(item["kind"], item["name"]): item["was"] for item in former} == {
        ("uci", "labtest.one.kept"): "as it was",
        ("uci", "labtest.one.new"): "",
        ("sysctl", "net.netfilter.nf_conntrack_acct"): "1",
        ("sysctl", "net.nothing"): "",
        ("service", "ulogd"): "enabled",
        ("service", "nothing"): "",
        ("service", "cron"): "enabled",
        ("package", "ulogd"): "installed",
        ("package", "nothing"): "",
        ("file", "/tmp/labfile"): "copied",
        ("file", "/tmp/nothing"): "",
    }
    assert next(item["content"] for item in former if item["name"] == "/tmp/labfile") == "line\n\n"
    lab.run("router", "rm", "-rf", "/tmp/labformer", "/tmp/labfile")
