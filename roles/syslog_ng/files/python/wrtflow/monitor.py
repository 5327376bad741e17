"""Health documents (files/health-document.yml): once a minute the rows of the ledger go to Elasticsearch.

They go their own way, with a key of their own: nothing that is wrong with them or their index holds up a flow. What
can't be sent stays in the ledger, so an hour without Elasticsearch and a restart lose none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
import threading
import typing
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from wrtflow import health, settings, store
from wrtflow.document import timestamp
from wrtflow.ledger import Ledger, Row

INDEX = "wrtflow-health"

# Seconds between two tries, and minutes of one request.
_PAUSE = 30
_MINUTES = 60

# Counters of a document, by their names in the ledger.
_ROUTER = ("lines", "starts", "ends", "flows", "without_start", "without_end")
_KERNEL = {"kernel_starts": "starts", "kernel_overruns": "overruns"}
_COLLECTOR = ("indexed", "duplicates", "refused", "dropped", "failed_requests", "strangers", "unparsed")
_SITES = ("dns", "ptr", "ptr_unconfirmed", "none")


def documents(minute: int, row: Row, host: str) -> Iterator[store.Document]:
    """Make the documents of a minute (since 1970). host: the collector's name."""
    end = timestamp((minute + 1) * 60_000)
    index = f"{INDEX}-{end[:4]}.{end[5:7]}".encode()
    gauges = row.gauges
    every = {"@timestamp": end, "ecs": {"version": "8.17.0"}, "host": {"hostname": host}}

    def document(
        kind: str, who: str, own: dict[str, typing.Any], numbers: dict[str, typing.Any]
    ) -> store.Document:
        event = {"kind": "metric", "dataset": f"wrtflow.{kind}", "duration": row.ms * 1_000_000}
        whole = {**every, "event": event, **own, "wrtflow": numbers}
        which = hashlib.blake2b(f"{host} {who}".encode(), digest_size=6).hexdigest()
        return store.Document(index, f"{minute:x}-{which}".encode(), json.dumps(whole).encode())

    for router, about in gauges.get("routers", {}).items():
        name, _, address = router.rpartition("@")
        numbers = {each: row.counts.get(f"{each} {router}", 0) for each in _ROUTER}
        kernel = {name: row.counts.get(f"{each} {router}", 0) for each, name in _KERNEL.items()}
        # Of what it has not told there is no 0.
        told = {name: count for name, count in kernel.items() if name in about["kernel"]}
        yield document(
            "router",
            router,
            {"observer": {"hostname": name, "ip": address}},
            {**numbers, "silence": about["silence"], **({"kernel": told} if told else {})},
        )
    faults = gauges.get("faults", [])
    yield document(
        "collector",
        "",
        {"error": {"message": faults}} if faults else {},
        {
            **{each: row.counts.get(each, 0) for each in _COLLECTOR},
            **{each: gauges[each] for each in ("delay", "database_age") if gauges.get(each)},
            **{each: gauges.get(each, 0) for each in ("open", "waiting")},
            "sites": {via: row.counts.get(f"sites_{via}", 0) for via in _SITES},
            "faults": len(faults),
        },
    )


class Monitor:
    """Sends what the ledger has, in a thread of its own."""

    def __init__(self, chosen: settings.Delivery, ledger: Ledger) -> None:
        """Nothing is read or connected before it is needed."""
        self._ledger = ledger
        self._key = Path(chosen.health_key_file)
        self._client = store.Client(dataclasses.replace(chosen, api_key_file=chosen.health_key_file))
        self._condition = health.Condition("Health documents are sent again")
        self._stopped = False

    def start(self) -> None:
        """Send until stop()."""
        self._stopped = False
        threading.Thread(target=self._run, name="wrtflow-monitor", daemon=True).start()

    def stop(self) -> None:
        """End soon; nobody waits for a request that is under way: what it sends twice is stored once."""
        self._stopped = True
        self._ledger.closed.set()

    def report(self) -> health.Report:
        """Return how many minutes wait, for the health record; fault: the sentence of what is wrong."""
        fault = {"fault": self._condition.sentence} if self._condition.sentence else {}
        return {"minutes_waiting": len(self._ledger), **fault}

    def send(self) -> None:
        """Send all minutes that are over."""
        # Where the role has put no key, nobody wants them.
        while self._key.exists() and (minutes := self._ledger.unsent(_MINUTES)):
            host = socket.gethostname()
            batch = [(minute, each) for minute, row in minutes for each in documents(minute, row, host)]
            answers = self._client.bulk(store.Batch.of([each for _, each in batch]))
            if not isinstance(answers, list):
                raise store.Unavailable(answers.name, f"Elasticsearch refuses the request ({answers}).")
            for (_, each), answer in zip(batch, answers, strict=True):
                if answer.status not in (HTTPStatus.CREATED, HTTPStatus.CONFLICT):
                    where = each.target.decode()
                    raise store.Unavailable(
                        answer.name,
                        f"Elasticsearch refuses them for {where} ({answer}): run playbooks/storage.yml.",
                    )
            self._ledger.sent(minute for minute, _ in minutes)
        self._condition.right()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self.send()
            except Exception as error:
                # This thread must not end, and whatever it is, the next try may be better.
                fault = error.fault if isinstance(error, store.Unavailable) else repr(error)
                self._condition.wrong(fault, f"Health documents wait: {error or repr(error)}")
            self._ledger.closed.wait(_PAUSE if self._condition.fault else None)
            self._ledger.closed.clear()
        self._client.close()
