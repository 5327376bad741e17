"""Alerts about the chain and the house.

wrtflow-alerts               checks the chain and the house once, and sends alerts; a timer runs it each minute
wrtflow-alerts test          sends a test message to each receiver, and prints each receiver's answer
wrtflow-alerts check [FILE]  checks a file of rules, and prints what is wrong with it
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from wrtflow_alerts import message, post, rules, settings
from wrtflow_alerts.memory import File, say
from wrtflow_alerts.watch import Watch, record


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="wrtflow-alerts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=["test", "check"])
    parser.add_argument("file", nargs="?", help="the rules to check")
    parser.add_argument("--settings", default=settings.FILE, help=f"default: {settings.FILE}")
    parser.add_argument("--rules", default="/etc/wrtflow/alert-rules.toml")
    parser.add_argument("--health", default="/run/wrtflow-alerts.health.json")
    parser.add_argument("--state", default=os.environ.get("STATE_DIRECTORY", "/var/lib/wrtflow-alerts"))
    chosen = parser.parse_args(arguments)
    try:
        if chosen.action == "check":
            rules.load(chosen.file or chosen.rules)
            return 0
        loaded = settings.Settings.load(chosen.settings)
        if chosen.action == "test":
            return _test(loaded)
        read = rules.load(chosen.rules)
        file = File(Path(chosen.state) / "alerts.json")
        memory = file.load()
        if file.damaged:
            say(4, "The file alerts.json was damaged. It is set aside as alerts.json.damaged.")
        watch = Watch(loaded, read, memory)
        watch.look(record(chosen.health, time.time()), lambda: file.save(memory))
    except (rules.RulesError, OSError, ValueError, TypeError) as error:
        print(f"wrtflow-alerts: {error}", file=sys.stderr)
        return 1
    return 0


def _test(loaded: settings.Settings) -> int:
    now = time.time()
    title = "A test of wrtflow's alerts"
    look = message.link(loaded, "home", now - 86400, now)
    text = message.text(loaded, [title, "If you can read this, alerts reach you."], now, look)
    number = message.identify(message.TEST, now)
    sent = message.Message(number, "", message.TEST, "", title, settings.iso(now), title, text, look)
    failed = False
    for name, send in post.receivers(loaded).items():
        try:
            send(loaded, sent)
            print(f"{name}: taken")
        except (post.Away, post.Refused) as why:
            failed = True
            print(f"{name}: {why}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
