"""A router that wrtflow has left is the one it came to; a dry run there says exactly what the next run does.

These tests build on each other, in this order, and leave the router deployed.
"""

import difflib
import os
from pathlib import Path

import lab
import playbook
import pytest

VIRGIN = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "virgin"

#: sh that restarts the log, and dnsmasq, in its jail, once the new logd runs.
ANOTHER_LOGD = (
    "old=$(pidof logd); /etc/init.d/log restart; until pidof logd | grep -vx $old; do sleep 1; done;"
    "/etc/init.d/dnsmasq restart"
)


def state() -> str:
    """List all that wrtflow could change on the router."""
    lab.put("router", "/tmp/state.sh", (Path(__file__).parent / "state.sh").read_bytes())
    return lab.run("router", "sh", "/tmp/state.sh").strip()


def difference(before: str, after: str) -> list[str]:
    return list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0))


def test_after_a_sysupgrade_the_packages_are_back():
    """It keeps the role's own files, and the package manager puts its own configuration beside a kept one."""
    names = "ulogd-mod-syslog ulogd-mod-extra ulogd-mod-nfct ulogd"
    lab.run(
        "router",
        "sh",
        "-c",
        f"if command -v apk; then apk del {names}; else opkg remove --autoremove {names}; fi",
    )
    assert ("openwrt : Ulogd and its plugins are installed", []) in playbook.succeeds("router")
    beside = "ls /etc/ulogd.conf-opkg /etc/ulogd.conf.apk-new 2>/dev/null || true"
    assert lab.run("router", "sh", "-c", beside).strip()


def test_uninstall_leaves_nothing_behind():
    logd = lab.run("router", "pidof", "logd")
    deployed = state()
    would = playbook.succeeds("uninstall", "--check")
    assert difference(deployed, state()) == []
    assert playbook.succeeds("uninstall") == would
    assert difference(VIRGIN.read_text().strip(), state()) == []
    # Nor is anybody deaf: a jailed program goes on writing to the socket that it was started with.
    assert lab.run("router", "pidof", "logd") == logd
    assert lab.run("router", "sh", "-c", "grep -l '//deleted /dev/log ' /proc/[0-9]*/mountinfo || true") == ""


@pytest.mark.long
def test_somebody_s_own_log_is_put_back():
    """A log that went elsewhere, with a prefix, as datagrams and to a file, from a ring with a size of its own."""
    own = {"ip": "10.77.0.99", "proto": "udp", "prefix": "front", "buffer_size": "32", "file": "/tmp/own.log"}
    lab.run(
        "router", "sh", "-ec",
        "cp -p /etc/config/system /tmp/system;"
        + "".join(f"uci set system.@system[0].log_{name}={value};" for name, value in own.items())
        + "uci commit system;" + ANOTHER_LOGD,
    )  # fmt: skip
    before = state()
    playbook.succeeds("router", openwrt_replace_log_target=True, openwrt_log_size=96)
    runs = lab.run("router", "sh", "-c", "ps w | grep '[s]bin/log'")
    assert "logd -S 96\n" in runs
    assert " front" not in runs
    playbook.succeeds("uninstall")
    assert difference(before, state()) == []
    assert lab.run("router", "sh", "-c", "grep -l '//deleted /dev/log ' /proc/[0-9]*/mountinfo || true") == ""
    lab.run(
        "router", "sh", "-ec",
        f"mv /tmp/system /etc/config/system; {ANOTHER_LOGD}; while pidof logread; do sleep 1; done; rm /tmp/own.log",
    )  # fmt: skip


def test_a_dry_run_says_what_the_next_run_does():
    virgin = state()
    would = playbook.succeeds("router", "--check", "--diff")
    assert difference(virgin, state()) == []
    assert playbook.succeeds("router") == would
