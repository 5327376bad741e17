"""A router with a fault: the run stops before it changes anything, or warns, and says how to fix it."""

from contextlib import contextmanager

import feeds
import lab
import playbook
import pytest


@contextmanager
def broken(how: str, mend: str):
    """Break something on the router (sh), and mend it in any case."""
    try:
        lab.run("router", "sh", "-ec", how)
        yield
    finally:
        lab.run("router", "sh", "-ec", mend)


def replaced(program: str, script: str):
    """Have a script in the place of one of the router's programs, wherever that is."""
    path = f"path=$(command -v {program})"
    return broken(
        f"{path}; mv $path $path.kept; printf '#!/bin/sh\n{script}\n' >$path; chmod +x $path",
        f"{path}; mv $path.kept $path",
    )


def uci(option: str, value: str) -> tuple[str, str]:
    """Return sh that sets an option, and sh that puts it back."""
    config = option.split(".")[0]
    former = lab.run("router", "sh", "-c", f"uci -q get {option} || true").strip()
    back = f"uci set {option}='{former}'" if former else f"uci delete {option}"
    return f"uci set {option}='{value}'; uci commit {config}", f"{back}; uci commit {config}"


def refused(**variables) -> str:
    """Run the playbook, which must stop before it changes anything; return its messages."""
    done = playbook.run("router", **variables)
    assert done.failed
    assert done.changed == []
    return done.said


#: Packages are missing where flows are to travel another way.
MISSING = {"openwrt_flow_transport": "json"}

OFFLOADING = "firewall.@defaults[0].flow_offloading_hw"


def test_no_openwrt():
    assert "This is no OpenWrt" in refused(ansible_host="wrtflow-client")


def test_openwrt_that_does_not_run():
    with replaced("ubus", "exit 255"):
        assert "Start a container with /sbin/init" in refused()


def test_too_old():
    release = "/etc/openwrt_release"
    old = f"cp {release} /tmp/release; sed -i \"s/^DISTRIB_RELEASE=.*/DISTRIB_RELEASE='21.02.7'/\" {release}"
    with broken(old, f"cp /tmp/release {release}"):
        assert "runs OpenWrt 21.02.7; 22.03 or newer is needed" in refused()


def test_no_room():
    full = "mkdir -p /overlay; mount -t tmpfs -o size=64k none /overlay"
    with broken(full, "umount /overlay; rmdir /overlay"):
        said = refused(**MISSING)
    assert "The router has 64 KiB free, the packages need 600" in said
    assert "extroot" in said


def test_wrong_clock():
    with replaced("date", "echo 1000000000"):
        said = refused(**MISSING)
    assert "The router's clock says 2001-09-09 01:46 UTC" in said
    assert "Enable NTP" in said


def test_no_name_server():
    with feeds.added("away.example", "far.example"):
        assert "can't resolve away.example far.example, where its packages are" in refused(**MISSING)


@pytest.mark.parametrize("server", ["news.example", "198.18.9.9"])
def test_a_feed_that_is_no_more_is_put_up_with(server):
    """Another one's name is resolved, or it has none."""
    with feeds.added("away.example", server):
        run = playbook.run("router", "--check", **MISSING)
    assert not run.failed, run.said


def test_another_log_target():
    with broken(*uci("system.@system[0].log_ip", "10.77.0.99")):
        assert "already sends its log to 10.77.0.99" in refused()


def test_a_name_that_no_line_can_hold():
    name = "/proc/sys/kernel/hostname"
    with broken(f"cp {name} /tmp/name; echo 'my router' >{name}", f"cat /tmp/name >{name}"):
        assert "calls itself my router" in refused()


def test_changes_that_nobody_has_saved():
    with broken("uci set system.@system[0].zonename=Nowhere", "uci revert system"):
        assert "changed options on the router without saving them (system)" in refused()


def test_no_kernel_times():
    hidden = "mount -t tmpfs none /proc/sys/net/netfilter; echo 1 >/proc/sys/net/netfilter/nf_conntrack_acct"
    with broken(hidden, "umount /proc/sys/net/netfilter"):
        said = refused(**MISSING)
    assert "built without CONFIG_NF_CONNTRACK_TIMESTAMP" in said


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        ({"openwrt_collector_port": 515}, "10.77.0.10 (tcp/515)"),
        (
            {"openwrt_collector_address": "10.77.0.77", "openwrt_replace_log_target": True},
            "10.77.0.77 (tcp/514)",
        ),
        ({"openwrt_json_port": 5141, **MISSING}, "10.77.0.10 (tcp/5141)"),
        (
            {
                "openwrt_collector_address": "10.77.0.77",
                "openwrt_replace_log_target": True,
                "openwrt_collector_transport": "udp",
            },
            "10.77.0.77 (udp/514)",
        ),
    ],
    ids=["port", "address", "json", "udp"],
)
def test_collector_out_of_reach(variables, where):
    said = refused(**variables)
    assert f"does not reach the collector at {where}" in said
    assert "playbooks/collector.yml" in said


def test_no_conntrack():
    hidden = "mount -t tmpfs none /proc/sys/net/netfilter"
    with broken(hidden, "umount /proc/sys/net/netfilter"):
        assert "The kernel tracks no connections" in refused()


def test_accounting_that_is_off_for_good():
    folder = "/proc/sys/net/netfilter"
    with broken(
        f"mount -t tmpfs none {folder}; echo 0 >{folder}/nf_conntrack_acct; mount -o remount,ro {folder}",
        f"umount {folder}",
    ):
        assert "can't be switched on: /proc/sys is read-only" in refused()


def test_hardware_offloading_that_is_not_wanted():
    with broken(*uci(OFFLOADING, "1")):
        assert "Hardware flow offloading is on" in refused(openwrt_hardware_offloading="refuse")


@pytest.fixture
def doubtful():
    """A router on which much is not as it should be, but nothing forbids to go on."""
    set_all, put_back = zip(
        uci(OFFLOADING, "1"),
        uci("system.@system[0].log_ip", "10.77.0.99"),
        uci("dhcp.@dnsmasq[0].logfacility", "/tmp/dnsmasq.log"),
        uci("system.@system[0].log_file", "/root/log"),
        strict=True,
    )
    off = "echo 0 >/proc/sys/net/netfilter/nf_conntrack_acct"
    small = "echo 'MemTotal: 60000 kB' >/tmp/meminfo; mount --bind /tmp/meminfo /proc/meminfo"
    on = "echo 1 >/proc/sys/net/netfilter/nf_conntrack_acct; umount /proc/meminfo"
    with broken("; ".join([*set_all, off, small]), "; ".join([*put_back, on])):
        yield


def test_what_is_doubtful_is_told(doubtful):
    said = playbook.run("router", "--check", openwrt_replace_log_target=True, **MISSING)
    assert not said.failed, said.said
    assert "Hardware flow offloading is on" in said.said
    assert "Conntrack accounting (net.netfilter.nf_conntrack_acct) was off" in said.said
    assert "The router has 58 MB of memory" in said.said
    assert "Dnsmasq logs to /tmp/dnsmasq.log instead of the system's log" in said.said
    assert "The router also writes its log to /root/log" in said.said
    assert "its packages are missing, as they are after a sysupgrade" in said.said
    assert ("openwrt : The log's target is the collector", []) in said.changed


def test_what_is_not_doubtful_is_not_told(doubtful):
    said = playbook.run(
        "router",
        "--check",
        openwrt_replace_log_target=True,
        openwrt_hardware_offloading="ignore",
        openwrt_log_queries=False,
    )
    assert not said.failed, said.said
    for word in ("offloading is on", "MB of memory", "Dnsmasq logs to", "sysupgrade"):
        assert word not in said.said
