"""The classes that syslog-ng's configuration names, and nothing but the way between its messages and Collector.

20, 30 and 40 run one after another for each message, all messages on one thread (10-source.conf): a flow is handed on
as an object, not written onto the message. Finished documents come back as messages of their own: wrtflow.documents.
"""

from __future__ import annotations

import typing

from syslogng import LogDestination, LogMessage, LogParser, LogSource  # type: ignore[import-not-found]

from wrtflow import collector as collectors
from wrtflow import health, store
from wrtflow.correlate import Event
from wrtflow.parse import LINE
from wrtflow.state import Spool

Message = typing.Any


class _Part:
    """What every class has in common: the one Collector."""

    collector: collectors.Collector

    def init(self, options: dict[str, typing.Any]) -> bool:
        """Start the collector; syslog-ng does not start with settings that can't be used."""
        if started := collectors.start():
            self.collector = started
        return started is not None

    def deinit(self) -> None:
        """Stop the collector, when this is its last part."""
        if self.__dict__.pop("collector", None) is not None:
            collectors.stop()


# What the parser before has handed on.
_event: Event
_ended: list[Event]
# Who sent a piece of a line that does not end yet.
_cut: set[str] = set()


class Parse(_Part, LogParser):  # type: ignore[misc]
    """20: reads a router's line. Only flow events pass."""

    kind = "line"

    def init(self, options: dict[str, typing.Any]) -> bool:
        """Find out how a line is taken."""
        if not super().init(options):
            return False
        self.take = getattr(self.collector, self.kind)
        return True

    def parse(self, message: Message) -> bool:
        """Take the message's line."""
        global _event
        raw, sender = message["MESSAGE"], message["SOURCEIP"].decode()
        piece = len(raw) >= LINE or sender in _cut
        if piece:
            # What follows is the rest of the line: nothing in it is a line of its own.
            (_cut.add if len(raw) >= LINE else _cut.discard)(sender)
        event = self.take(raw.decode("utf-8", "replace"), sender, piece)
        if event is None:
            return False
        _event = event
        return True


class ParseJson(Parse):
    """20: reads an object of ulogd's JSON output."""

    kind = "object"


class Correlate(_Part, LogParser):  # type: ignore[misc]
    """30: NEW and DESTROY become one. Only ended flows pass."""

    def parse(self, message: Message) -> bool:
        """Take the event."""
        global _ended
        _ended = self.collector.correlated(_event)
        return bool(_ended)


class Enrich(_Part, LogParser):  # type: ignore[misc]
    """40: makes documents. Nothing passes: they leave by the source Documents."""

    def parse(self, message: Message) -> bool:
        """Take the flows."""
        self.collector.enriched(_ended)
        return False


class Documents(_Part, LogSource):  # type: ignore[misc]
    """Finished documents, those of a moment in one message."""

    def run(self) -> None:
        """Post documents until request_exit()."""
        self.collector.outbox.run(self._post)

    def _post(self, text: str) -> None:
        message = LogMessage()
        message["wrtflow.documents"] = text
        self.post_message(message)

    def request_exit(self) -> None:
        """Make run() return. syslog-ng reads no lines any more: these documents are the last."""
        self.collector.finish()


class Elasticsearch(_Part, LogDestination):  # type: ignore[misc]
    """90: documents out of the disk buffer go to Elasticsearch. syslog-ng calls it from one thread."""

    store: store.Store

    def init(self, options: dict[str, typing.Any]) -> bool:
        """Make the store. Called again when syslog-ng reloads."""
        if not super().init(options):
            return False
        chosen, outbox = self.collector.settings, self.collector.outbox
        self.store = store.Store(chosen.delivery, Spool(chosen.state_file("refused.sqlite")), outbox.numbers)
        health.register("delivery", self.store.report)
        health.register("queue", lambda: outbox.report(self.store.size > 0))
        health.start(chosen.state_file("health.json"))
        return True

    def open(self) -> bool:
        """Whether it makes sense to give documents. syslog-ng asks every second while they wait."""
        return self.store.due()

    def close(self) -> None:
        """End the connection, when syslog-ng stops or documents have to wait."""
        self.store.close()

    def send(self, message: Message) -> int:
        """Take one message into the batch, and settle it when it fills a request."""
        full = self.store.add(message.get("wrtflow.documents", b""))
        return self.flush() if full else typing.cast("int", self.QUEUED)

    def flush(self) -> int:
        """Settle the batch; NOT_CONNECTED makes syslog-ng keep it and ask open() again."""
        return typing.cast("int", self.SUCCESS if self.store.flush() else self.NOT_CONNECTED)
