"""The letter about the week: what is new, who sent how much, who was busy at night.

wrtflow-report          prints the letter (also: wrtflow report)
wrtflow-report --mail   sends it to alerts_letter_to; a timer runs this each week
"""

from __future__ import annotations

import argparse
import dataclasses
import email.message
import json
import os
import subprocess
import sys
import time
import typing

from wrtflow_alerts import letter, message, page, post, watch
from wrtflow_alerts.settings import FILE, Settings
from wrtflow_alerts.storage import Json, Storage, StorageError

_COLLECTOR = "/usr/local/sbin/wrtflow"


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="wrtflow-report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--days", type=float, default=7, help="the number of days until now that it is about (default: 7)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--html", action="store_true", help="print it as HTML")
    form.add_argument("--json", action="store_true", help="print its figures")
    form.add_argument("--mail", action="store_true", help="send it, as text and HTML")
    parser.add_argument("--settings", default=FILE, help=f"default: {FILE}")
    parser.add_argument("--health", default="/run/wrtflow-report.health.json", help=argparse.SUPPRESS)
    parser.add_argument("--ledger", default="/run/wrtflow-report.ledger.json", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if not 0 < chosen.days <= 366:
        parser.error("--days is from 1 to 366")
    try:
        return _report(Settings.load(chosen.settings), chosen)
    except (StorageError, post.Away, OSError, ValueError, TypeError) as error:
        print(f"wrtflow-report: {error}", file=sys.stderr)
        return 1


def _report(settings: Settings, chosen: argparse.Namespace) -> int:
    now = time.time()
    found = letter.figures(Storage(settings), now, chosen.days)
    health = _told(["health"], chosen.health, now)
    ledger = _told(["ledger", f"--since={chosen.days * 24:.0f}h"], chosen.ledger, now)
    found.losses = [str(each["what"]) for each in ledger.get("differences", []) if each["lost"]]
    if chosen.json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
        return 0
    faults = [str(fault) for fault in health.get("faults", [])]
    link = message.link(settings, "home", found.begin, found.end)
    written = page.write(settings, found, faults, link)
    if chosen.mail:
        if not settings.letter_to:
            raise ValueError(
                "alerts_letter_to names nobody: put an address into the inventory and run playbooks/alerts.yml"
            )
        mail = email.message.EmailMessage()
        mail["Subject"] = written.subject
        mail.set_content(page.as_text(written))
        mail.add_alternative(page.as_html(written), subtype="html")
        post.send_mail(settings, mail, settings.letter_to)
    else:
        print(
            page.as_html(written) if chosen.html else f"{written.subject}\n\n{page.as_text(written)}", end=""
        )
    return 0


def _told(command: list[str], file: str, now: float) -> Json:
    """Return the output of the collector's command: run here by root, else from the file that the unit has written."""
    if os.geteuid() == 0 and os.access(_COLLECTOR, os.X_OK):
        done = subprocess.run([_COLLECTOR, *command, "--json"], capture_output=True, check=False, timeout=60)
        try:
            return typing.cast(Json, json.loads(done.stdout))
        except ValueError:
            return {}
    return watch.record(file, now)


if __name__ == "__main__":
    sys.exit(main())
